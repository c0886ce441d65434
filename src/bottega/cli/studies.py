"""``bottega evaluate regions``, ``conditions``, ``style`` and ``tradeoff``: one model under several arms."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bottega.cli.options import Device, Dtype, Model, names
from bottega.cli.progress import counting_bar

if TYPE_CHECKING:
    from bottega.data.emoji_world import Thing
    from bottega.evaluation.judge import Judge
    from bottega.evaluation.plot import Curve
    from bottega.evaluation.prompts import Prompt
    from bottega.evaluation.study import Arm, Study, Task
    from bottega.pipelines import Painter, StageSettings

JudgeFolder = Annotated[
    Path | None,
    typer.Option("--judge", metavar="FOLDER", help="By default the model's own judge."),
]
NumPrompts = Annotated[int, typer.Option("--prompts", help="How many prompts.")]
Seeds = Annotated[int, typer.Option("--seeds", help="Pictures per prompt.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Steps of every stage.")]
Guidance = Annotated[
    float | None, typer.Option("--guidance", help="How hard to follow the prompt.")
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="JSON", help="Write the figures here.")
]
Page = Annotated[
    Path | None, typer.Option("--plot", metavar="PNG", help="Draw the figures, or pictures.")
]
JournalFile = Annotated[
    Path | None,
    typer.Option("--journal", metavar="FILE", help="Keep findings here, and go on from them."),
]


def regions(
    model: Model = "piccolo",
    judge: JudgeFolder = None,
    num_prompts: NumPrompts = 500,
    num_seeds: Seeds = 1,
    strengths: Annotated[
        str, typer.Option("--strengths", metavar="A,B", help="Values of w'.")
    ] = "0,0.25,0.5,1,2",
    weights: Annotated[
        str, typer.Option("--weights", metavar="A,B", help="largest, deviation, or both.")
    ] = "largest,deviation",
    steps: Steps = None,
    guidance: Guidance = None,
    output: Output = None,
    page: Page = None,
    journal: JournalFile = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Do things stand where they were painted with words? Random layouts of two and three things."""
    from bottega.errors import InputError, nearest
    from bottega.evaluation.arms import real_pictures, region_arms
    from bottega.evaluation.regions import layout_prompts
    from bottega.evaluation.study_report import strength_curves
    from bottega.models import LargestLogit, LogitDeviation

    known = {"largest": LargestLogit(), "deviation": LogitDeviation()}
    chosen = names(weights)
    for name in () if chosen is None else chosen:
        if name not in known:
            raise InputError(f"weight {name!r} is not known{nearest(name, known)}")
    levels = numbers(strengths, "--strengths")
    check_counts(num_prompts, num_seeds)
    check_outputs(output, page, journal)
    painter, reader = opened(model, judge, device, dtype)
    prompts = layout_prompts(things_of(reader), num_prompts)
    settings = resolved(painter, steps, guidance)
    picked = {name: known[name] for name in (known if chosen is None else chosen)}
    study = conducted(
        "regions",
        painter,
        reader,
        region_arms(painter, prompts, levels, picked, settings),
        [prompt.task for prompt in prompts],
        real_pictures([prompt.plan for prompt in prompts], painter.stages[-1].size),
        settings,
        num_seeds,
        journal,
    )
    finish(study, output)
    draw(page, lambda: strength_curves(study, ("landed", "found")), "strength w'", "share")


def conditions(
    model: Model = "piccolo",
    judge: JudgeFolder = None,
    num_prompts: Annotated[int, typer.Option("--prompts", help="Prompts per category.")] = 20,
    num_seeds: Seeds = 1,
    steps: Steps = None,
    guidance: Guidance = None,
    output: Output = None,
    page: Page = None,
    journal: JournalFile = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """T5, CLIP and both, each with and without a reference picture: what is right in each cell, and a sheet."""
    from bottega.evaluation.arms import condition_arms, prompt_tasks, real_pictures

    check_counts(num_prompts, num_seeds)
    check_outputs(output, page, journal)
    painter, reader = opened(model, judge, device, dtype)
    prompts = prompts_of(reader, num_prompts)
    settings = resolved(painter, steps, guidance)
    arms = condition_arms(painter, prompts, settings)
    study = conducted(
        "conditions",
        painter,
        reader,
        arms,
        prompt_tasks(prompts),
        real_pictures(prompts, painter.stages[-1].size),
        settings,
        num_seeds,
        journal,
    )
    finish(study, output)
    show_cells(page, arms, prompts)


def style(
    model: Model = "piccolo",
    judge: JudgeFolder = None,
    num_prompts: NumPrompts = 100,
    num_seeds: Seeds = 1,
    steps: Steps = None,
    guidance: Guidance = None,
    output: Output = None,
    page: Page = None,
    journal: JournalFile = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Is the style of a reference picture recognised in what is painted, and do the things of the prompt stay?"""
    from bottega.evaluation.arms import style_arms, style_tasks, styled_pictures

    check_counts(num_prompts, num_seeds)
    check_outputs(output, page, journal)
    painter, reader = opened(model, judge, device, dtype)
    prompts = prompts_of(reader, num_prompts, ("single",))
    settings = resolved(painter, steps, guidance)
    arms = style_arms(painter, prompts, settings)
    study = conducted(
        "style",
        painter,
        reader,
        arms,
        style_tasks(prompts),
        styled_pictures(prompts, painter.stages[-1].size),
        settings,
        num_seeds,
        journal,
    )
    finish(study, output)
    show_cells(page, arms, prompts)


def tradeoff(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME|FOLDER", help="May be repeated."),
    ] = None,
    judge: JudgeFolder = None,
    num_prompts: Annotated[int, typer.Option("--prompts", help="Prompts per category.")] = 20,
    num_seeds: Seeds = 1,
    scales: Annotated[
        str, typer.Option("--scales", metavar="A,B", help="Guidance scales; 1 is off.")
    ] = "1,1.5,2,3,5,8",
    steps: Steps = None,
    output: Output = None,
    page: Page = None,
    journal: JournalFile = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Alignment against distance from real pictures over guidance scales, of several models side by side."""
    from bottega.errors import InputError
    from bottega.evaluation.arms import guidance_arms, prompt_tasks, real_pictures
    from bottega.evaluation.study_report import tradeoff_curves

    levels = numbers(scales, "--scales")
    check_counts(num_prompts, num_seeds)
    check_outputs(output, page, journal)
    wanted = ["piccolo"] if models is None else models
    painter, reader = opened(wanted[0], judge, device, dtype)
    painters = [painter, *(_load(name, device, dtype) for name in wanted[1:])]
    size = painter.stages[-1].size
    if any(other.stages[-1].size != size for other in painters):
        raise InputError("models to compare need to paint at one size")
    prompts = prompts_of(reader, num_prompts)
    settings = [resolved(one, steps, None) for one in painters]
    study = conducted(
        "tradeoff",
        painter,
        reader,
        guidance_arms(painters, prompts, levels, settings),
        prompt_tasks(prompts),
        real_pictures(prompts, size),
        settings[0],
        num_seeds,
        journal,
        others=painters[1:],
    )
    finish(study, output)
    draw(page, lambda: tradeoff_curves(study), "share of prompts right", "distance from real")


def _load(model: str, device: str, dtype: str) -> "Painter":
    from bottega.pipelines import load

    return load(model, device=device, dtype=dtype)


def opened(model: str, judge: Path | None, device: str, dtype: str) -> "tuple[Painter, Judge]":
    """A painter and the judge of its pictures."""
    from bottega.cli.evaluate import judge_folder
    from bottega.evaluation.judge import Judge

    painter = _load(model, device, dtype)
    return painter, Judge.load(judge_folder(painter, judge))


def resolved(
    painter: "Painter", steps: int | None, guidance: float | None
) -> "dict[str, StageSettings]":
    """The model's own settings, but for what was asked."""
    given = {"steps": steps, "guidance_scale": guidance}
    return painter.resolve(None, {k: v for k, v in given.items() if v is not None})


def things_of(reader: "Judge") -> "list[Thing]":
    """What the judge can name."""
    from bottega.data.emoji_world import thing_named

    return [thing_named(name) for name in reader.config.things]


def prompts_of(
    reader: "Judge", per_category: int, categories: Sequence[Any] | None = None
) -> "tuple[Prompt, ...]":
    """The fixed prompts that the judge can check."""
    from bottega.evaluation.prompts import CATEGORIES, make_prompts

    wanted = CATEGORIES if categories is None else categories
    return make_prompts(things_of(reader), per_category=per_category, categories=wanted)


def conducted(
    kind: str,
    painter: "Painter",
    reader: "Judge",
    arms: "Sequence[Arm]",
    tasks: "Sequence[Task]",
    real: "Arm",
    settings: "Mapping[str, StageSettings]",
    num_seeds: int,
    journal: Path | None,
    others: "Sequence[Painter]" = (),
) -> "Study":
    """Paint, judge and count, with a bar where somebody watches."""
    from bottega import __version__
    from bottega.config import to_json
    from bottega.evaluation.study import conduct

    card = {
        "models": {one.name: one.digest for one in (painter, *others)},
        "settings": to_json(dict(settings)),
        "num_tasks": len(tasks),
        "size": painter.stages[-1].size,
        "bottega": __version__,
    }
    with counting_bar("painting and judging") as progress:
        return conduct(
            kind,
            arms,
            tasks,
            reader,
            card=card,
            seeds=tuple(range(num_seeds)),
            real=real,
            journal=journal,
            progress=progress,
        )


def finish(study: "Study", output: Path | None) -> None:
    """Write and print what was found."""
    from rich.console import Console

    from bottega.evaluation.study_report import save_study, study_table

    if output is not None:
        save_study(study, output)
    Console().print(study_table(study))


def draw(page: Path | None, curves: "Callable[[], list[Curve]]", x_name: str, y_name: str) -> None:
    """A plot, where one is wanted."""
    from bottega.evaluation.plot import plot
    from bottega.pipelines import save_picture

    if page is not None:
        title = f"{y_name} over {x_name}"
        save_picture(plot(curves(), title=title, x_name=x_name, y_name=y_name), page)


def show_cells(page: Path | None, arms: "Sequence[Arm]", prompts: "Sequence[Prompt]") -> None:
    """A sheet: a row for each of the first prompts, a column for each arm."""
    from bottega.pipelines import save_picture, sheet
    from bottega.pipelines.output import to_pictures

    if page is None:
        return
    rows = range(min(4, len(prompts)))
    pictures = [to_pictures(arm.paint([i], [0]))[0] for i in rows for arm in arms]
    captions = [f"{arm.name}: {prompts[i].text}" for i in rows for arm in arms]
    save_picture(sheet(pictures, len(arms), captions), page)


def numbers(text: str, option: str) -> list[float]:
    """Numbers separated by commas, each finite, not negative, and once.

    Raises:
        InputError: Naming the option, for anything else.
    """
    import math

    from bottega.errors import InputError

    parts = [part.strip() for part in text.split(",")]
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = [math.nan]
    if not all(math.isfinite(v) and v >= 0 for v in values) or len(set(values)) < len(values):
        raise InputError(
            f"{option} expects different numbers of 0 or more like 0,0.5,1, got {text!r}"
        )
    return values


def check_counts(num_prompts: int, num_seeds: int) -> None:
    """Refuse what paints nothing."""
    from bottega.errors import InputError

    for option, value in (("--prompts", num_prompts), ("--seeds", num_seeds)):
        if value < 1:
            raise InputError(f"{option} must be at least 1, got {value}")


def check_outputs(output: Path | None, page: Path | None, journal: Path | None) -> None:
    """Refuse a place that could not be written, before the work."""
    from bottega.pipelines import check_writable
    from bottega.rundir import check_place

    if output is not None:
        check_place(output)
    if page is not None:
        check_writable(page)
    if journal is not None and journal.parent.is_dir():  # its folder is made
        check_place(journal)


__all__ = [
    "check_counts",
    "check_outputs",
    "conditions",
    "conducted",
    "draw",
    "finish",
    "numbers",
    "opened",
    "prompts_of",
    "regions",
    "resolved",
    "show_cells",
    "style",
    "things_of",
    "tradeoff",
]
