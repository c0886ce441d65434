"""What commands that measure have in common: options, a model with its judge, figures and where they go."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bottega.cli.beside import read_beside, say_beside
from bottega.cli.options import check_apart
from bottega.cli.progress import counting_bar

if TYPE_CHECKING:
    from rich.table import Table

    from bottega.data.emoji_world import Thing
    from bottega.evaluation.judge import Judge
    from bottega.evaluation.plot import Curve
    from bottega.evaluation.prompts import Prompt
    from bottega.evaluation.study import Arm, Study, Task
    from bottega.pipelines import Painter, StageSettings

JudgeFolder = Annotated[
    Path | None,
    typer.Option(
        "--judge",
        metavar="NAME|FOLDER",
        help="A judge, or a model that has one; by default the model's own.",
    ),
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


_WIDEST = 1000


def load_painter(model: str, device: str, dtype: str, loras: list[str] | None = None) -> "Painter":
    """A painter by its name or folder, with LoRAs mixed in as ``--lora`` gives them; what they change is said."""
    from bottega.pipelines import load

    beside = read_beside(loras, None, None)
    painter = load(model, device=device, dtype=dtype, **beside.folders())
    say_beside(painter)
    return painter


def opened(
    model: str, judge: Path | None, device: str, dtype: str, loras: list[str] | None = None
) -> "tuple[Painter, Judge]":
    """A painter and the judge of its pictures."""
    from bottega.errors import InputError
    from bottega.recipes.srgan import find_judge

    painter = load_painter(model, device, dtype, loras)
    if judge is None:
        if painter.folder is None or painter.manifest.judge is None:
            raise InputError(f"{painter.name} comes without a judge; name one with --judge FOLDER")
        judge = painter.folder
    return painter, find_judge(str(judge))


def measured_as(painter: "Painter") -> tuple[str, str]:
    """Under which name and digest figures are kept: the model's, and with LoRAs those of both together."""
    used = [one.record for one in painter.adapters.loras]
    if not used:
        return painter.name, painter.digest
    name = " + ".join([painter.name, *(f"{one.name}@{one.scale:g}" for one in used)])
    facts = [painter.digest, *([one.digest, one.scale] for one in used)]
    return name, hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def write_facts(output: Path | None, painter: "Painter", kind: str, facts: dict[str, Any]) -> None:
    """Figures as JSON, beside what they are of and the model they were measured on."""
    from bottega.rundir import write_atomically

    if output is not None:
        name, digest = measured_as(painter)
        whole = {**facts, "kind": kind, "model": name, "model_digest": digest}
        write_atomically(output, (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode())


def resolved(
    painter: "Painter", steps: int | None, guidance: float | None, sampler: str | None = None
) -> "dict[str, StageSettings]":
    """The model's own settings, but for what was asked."""
    given = {"steps": steps, "guidance_scale": guidance, "sampler": sampler}
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
        "models": dict(measured_as(one) for one in (painter, *others)),
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
    from bottega.evaluation.study_report import save_study, study_table

    if output is not None:
        save_study(study, output)
    print_table(study_table(study))


def print_table(table: "Table") -> None:
    """A table with every figure whole: a line is cut only where somebody looks at a terminal that is too narrow."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    if not console.is_terminal:
        room = console.options.update(max_width=_WIDEST)
        console.width = max(console.width, Measurement.get(console, room, table).maximum)
    console.print(table)


def draw(
    page: Path | None,
    curves: "Callable[[], list[Curve]]",
    x_name: str,
    y_name: str,
    *,
    log_x: bool = False,
) -> None:
    """A plot, where one is wanted."""
    from bottega.evaluation.plot import plot
    from bottega.pipelines import save_picture

    if page is not None:
        title = f"{y_name} over {x_name}"
        save_picture(plot(curves(), title=title, x_name=x_name, y_name=y_name, log_x=log_x), page)


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


def check_counts(**counts: int) -> None:
    """Refuse what paints nothing, naming the option: ``prompts=0`` is ``--prompts``."""
    from bottega.errors import InputError

    for option, value in counts.items():
        if value < 1:
            raise InputError(f"--{option.replace('_', '-')} must be at least 1, got {value}")


def check_outputs(
    output: Path | None, page: Path | None, journal: Path | None = None, maps: Path | None = None
) -> None:
    """Refuse a place that could not be written, or is named twice, before the work."""
    from bottega.pipelines import check_writable
    from bottega.rundir import check_place

    if output is not None:
        check_place(output)
    for picture in (page, maps):
        if picture is not None:
            check_writable(picture)
    check_apart(output, page, journal, maps)
    if journal is not None and journal.parent.is_dir():  # its folder is made
        check_place(journal)


__all__ = [
    "Guidance",
    "JournalFile",
    "JudgeFolder",
    "NumPrompts",
    "Output",
    "Page",
    "Seeds",
    "Steps",
    "check_counts",
    "check_outputs",
    "conducted",
    "draw",
    "finish",
    "load_painter",
    "measured_as",
    "numbers",
    "opened",
    "print_table",
    "prompts_of",
    "resolved",
    "show_cells",
    "things_of",
    "write_facts",
]
