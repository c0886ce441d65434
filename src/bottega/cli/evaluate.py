"""``bottega evaluate``: measure a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bottega.cli.beside import Loras
from bottega.cli.evaluate_enlarging import enlarging
from bottega.cli.measuring import (
    Guidance,
    JournalFile,
    JudgeFolder,
    Output,
    Seeds,
    Steps,
    check_counts,
    check_outputs,
    measured_as,
    opened,
    print_table,
    resolved,
)
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
    judge: JudgeFolder = None,
    per_category: Annotated[
        int, typer.Option("--prompts", help="Prompts per category, at most.")
    ] = 40,
    categories: Annotated[
        str | None, typer.Option("--categories", metavar="A,B", help="Only these categories.")
    ] = None,
    num_seeds: Seeds = 3,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help="Another sampler.")] = None,
    output: Output = None,
    journal: JournalFile = None,
    lora: Loras = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Paint fixed prompts, let the judge say what is right, and print it beside its accuracy on real pictures."""
    from bottega.config import to_json
    from bottega.evaluation.alignment import Subject, evaluate

    check_counts(prompts=per_category, seeds=num_seeds)
    check_outputs(output, None, journal)
    wanted = names(categories)
    painter, reader = opened(model, judge, device, dtype, lora)
    prompts = _prompts(reader.config.things, per_category, wanted)
    settings = resolved(painter, steps, guidance, sampler)
    name, digest = measured_as(painter)
    with counting_bar("painting and judging") as counter:
        report = evaluate(
            _Paint(painter, settings),
            reader,
            prompts,
            subject=Subject(name=name, digest=digest, settings=to_json(dict(settings))),
            seeds=tuple(range(num_seeds)),
            size=painter.stages[-1].size,
            journal=journal,
            progress=counter,
        )
    if output is not None:
        report.save(output)
    print_table(report.table())


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


__all__ = ["alignment", "app", "group"]
