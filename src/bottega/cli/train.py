"""``bottega train``: run a recipe."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bottega.cli.options import Settings, listed

if TYPE_CHECKING:
    from bottega.recipes import RunConfig
    from bottega.training import TrainState

INTERRUPTED = 130
"""The exit code of a run that Ctrl-C stopped; its state is on the disk."""


def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="Without one, all are listed.")
    ] = None,
    settings: Settings = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run was stopped.")
    ] = False,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="FOLDER", help="The run's folder; by default runs/RECIPE."),
    ] = None,
    stop_after: Annotated[
        int | None,
        typer.Option("--stop-after", metavar="IMAGES", help="Stop once it has seen this many."),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option("--time-limit", metavar="TIME", help="Stop after 90m, 2h or 600s."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Execute what bottega plan wrote."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="NODE", help="Of a plan, one node: 9/511 or STAGE:9/511."),
    ] = None,
) -> None:
    """Train a model by a recipe or a whole plan. Stop it with Ctrl-C and continue with --resume.

    --set changes a setting of the recipe, for example --set train.batch_size=32. With --resume a run goes on by the
    settings that it was begun with, and those of --set; --run FOLDER is then enough, without a recipe's name.
    """
    from bottega import recipes
    from bottega.config import dumps, override, parse_assignments
    from bottega.errors import InputError

    seconds = None if time_limit is None else parse_duration(time_limit)
    if plan is not None:
        if recipe is not None or settings or stop_after is not None or dry_run:
            raise InputError(
                "a plan holds its recipes and settings; --plan goes with --only, --run, --resume and --time-limit"
            )
        _execute(plan, run, seconds, only=only, resume=resume)
        return
    if only is not None:
        raise InputError("--only names a node of a plan; give it with --plan FILE")
    if recipe is None and run is None and not settings and not resume:
        _list_recipes()
        return
    config, folder = _begun_or_new(recipe, run, resume=resume)
    config = override(config, parse_assignments(listed(settings)))
    if dry_run:
        typer.echo(dumps(config), nl=False)
        return
    from bottega.training.limits import StopHook

    limit = StopHook(images=stop_after, seconds=seconds)
    if resume and not (folder / "checkpoints").is_dir():
        typer.echo(f"{folder} holds nothing to go on from: it begins at the beginning", err=True)
    state = recipes.train(config, folder, resume=resume, hooks=[limit])
    report_run(folder, state)
    if state.stopped_by == "SIGINT":
        raise typer.Exit(INTERRUPTED)


def _begun_or_new(
    recipe: str | None, run: Path | None, *, resume: bool
) -> "tuple[RunConfig, Path]":
    """The settings to train by and the folder: those a run was begun with, where one goes on, or a recipe's."""
    from bottega import recipes
    from bottega.errors import InputError

    if recipe is None:
        if not resume or run is None:
            raise InputError("name the recipe to train; without one, all are listed")
        return recipes.read_config(run), run
    config = recipes.recipe(recipe)
    folder = Path("runs") / config.name if run is None else run
    if resume and (folder / "config.json").is_file():
        begun = recipes.read_config(folder)
        if begun.name == config.name:  # or else training refuses the folder
            config = begun
    return config, folder


def report_run(folder: Path, state: "TrainState") -> None:
    """Say how far a run has come."""
    total = state.config.total_images
    typer.echo(f"{folder}: {state.images_seen:,} of {total:,} images seen")
    if not state.finished:
        typer.echo(f"go on with --resume --run {folder}", err=True)


def _list_recipes() -> None:
    from bottega import recipes

    for name, build in sorted(recipes.RECIPES.items()):
        typer.echo(f"{name:16} {(build.__doc__ or '').strip().splitlines()[0]}")


def _execute(
    plan: Path, folder: Path | None, seconds: int | None, *, only: str | None, resume: bool
) -> None:
    from bottega.recipes.execute import execute
    from bottega.recipes.programme import read_plan
    from bottega.training.limits import StopHook

    programme = read_plan(plan)
    folder = Path("runs") / programme.name if folder is None else folder
    began = time.monotonic()

    def limits() -> list[StopHook]:
        if seconds is None:
            return []
        return [StopHook(seconds=max(seconds - (time.monotonic() - began), 1e-3))]

    reports = execute(programme, folder, resume=resume, only=only, hooks=limits)
    for report in reports:
        where = f"{report.stage} {report.part}"
        if report.state is None:
            typer.echo(f"{where}: trained already")
            continue
        total = report.state.config.total_images
        typer.echo(f"{where}: {report.state.images_seen:,} of {total:,} images seen")
        if not report.is_done:
            typer.echo("go on with --resume", err=True)
        if report.state.stopped_by == "SIGINT":
            raise typer.Exit(INTERRUPTED)
    for stage in programme.stages:
        typer.echo(
            f"{folder / stage.name}: see it with bottega show {folder / stage.name} --steps 25"
        )


def parse_duration(text: str) -> int:
    """Seconds from ``600s``, ``90m``, ``2h``, ``1h30m`` or a bare number of seconds.

    Raises:
        InputError: When the text is none of these, or no time at all.
    """
    from bottega.errors import InputError

    parts = re.fullmatch(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s?)?", text.strip())
    given = [0] if parts is None else [int(part) if part else 0 for part in parts.groups()]
    if parts is None or sum(given) == 0:
        raise InputError(f"a time is written 90m, 2h, 1h30m or 600s, got {text!r}")
    hours, minutes, seconds = given
    return hours * 3600 + minutes * 60 + seconds


__all__ = ["INTERRUPTED", "parse_duration", "report_run", "train"]
