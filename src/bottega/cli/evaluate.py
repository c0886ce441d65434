"""``bottega evaluate``: measure a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bottega.cli.evaluate_enlarging import enlarging
from bottega.cli.options import Device, Dtype, Model, names
from bottega.cli.progress import counting_bar
from bottega.cli.studies import conditions, regions, style, super_resolution, tradeoff

if TYPE_CHECKING:
    from bottega.evaluation.prompts import Prompt
    from bottega.pipelines import Painter, StageSettings
    from bottega.shapes import Images

app = typer.Typer(help="Measure a model.", no_args_is_help=True)
app.command()(regions)
app.command()(conditions)
app.command()(style)
app.command()(tradeoff)
app.command()(super_resolution)
app.command()(enlarging)


@app.callback()
def group() -> None:
    """Measure a model."""


@app.command()
def alignment(
    model: Model = "piccolo",
    judge: Annotated[
        Path | None,
        typer.Option("--judge", metavar="FOLDER", help="By default the model's own judge."),
    ] = None,
    per_category: Annotated[
        int, typer.Option("--prompts", help="Prompts per category, at most.")
    ] = 40,
    categories: Annotated[
        str | None, typer.Option("--categories", metavar="A,B", help="Only these categories.")
    ] = None,
    num_seeds: Annotated[int, typer.Option("--seeds", help="Pictures per prompt.")] = 3,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of every stage.")] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="How hard to follow the prompt.")
    ] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help="Another sampler.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="JSON", help="Write the report here.")
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option("--journal", metavar="FILE", help="Keep verdicts here, and go on from them."),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Paint fixed prompts, let the judge say what is right, and print it beside its accuracy on real pictures."""
    from rich.console import Console

    from bottega.config import to_json
    from bottega.errors import InputError
    from bottega.evaluation.alignment import Subject, evaluate
    from bottega.evaluation.judge import Judge
    from bottega.pipelines import load
    from bottega.rundir import check_place

    if num_seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {num_seeds}")
    for place in (output, journal):
        if place is not None and (place is output or place.parent.is_dir()):  # a journal's is made
            check_place(place)
    painter = load(model, device=device, dtype=dtype)
    reader = Judge.load(judge_folder(painter, judge))
    prompts = _prompts(reader.config.things, per_category, names(categories))
    given = {"steps": steps, "guidance_scale": guidance, "sampler": sampler}
    settings = painter.resolve(None, {k: v for k, v in given.items() if v is not None})
    with counting_bar("painting and judging") as counter:
        report = evaluate(
            _Paint(painter, settings),
            reader,
            prompts,
            subject=Subject(
                name=painter.name, digest=painter.digest, settings=to_json(dict(settings))
            ),
            seeds=tuple(range(num_seeds)),
            size=painter.stages[-1].size,
            journal=journal,
            progress=counter,
        )
    if output is not None:
        report.save(output)
    Console().print(report.table())


def judge_folder(painter: "Painter", judge: Path | None) -> Path:
    """The judge asked for, or the model's own."""
    from bottega.errors import InputError

    if judge is not None:
        return judge
    if painter.folder is None or painter.manifest.judge is None:
        raise InputError(f"{painter.name} comes without a judge; name one with --judge FOLDER")
    return painter.folder / painter.manifest.judge


def _prompts(
    things: Sequence[str], per_category: int, categories: tuple[str, ...] | None
) -> tuple["Prompt", ...]:
    from bottega.data.emoji_world import thing_named
    from bottega.errors import InputError, nearest
    from bottega.evaluation.prompts import CATEGORIES, make_prompts

    wanted = CATEGORIES if categories is None else categories
    for name in wanted:
        if name not in CATEGORIES:
            raise InputError(f"category {name!r} is not known{nearest(name, CATEGORIES)}")
    return make_prompts(
        [thing_named(name) for name in things],
        per_category=per_category,
        categories=[name for name in CATEGORIES if name in wanted],
    )


class _Paint:
    """A painter as the evaluation calls it."""

    def __init__(self, painter: "Painter", settings: "dict[str, StageSettings]") -> None:
        self._painter = painter
        self._settings = settings

    def __call__(self, texts: Sequence[str], seeds: Sequence[int]) -> "Images":
        from bottega.evaluation.alignment import images_of

        return images_of(self._painter.paint(texts, seeds=seeds, settings=self._settings))


__all__ = ["alignment", "app", "group", "judge_folder"]
