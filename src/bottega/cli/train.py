"""``bottega train``: run a recipe."""

import re
from pathlib import Path
from typing import Annotated

import typer

from bottega.cli.options import Settings, listed

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
) -> None:
    """Train a model by a recipe. Stop it with Ctrl-C and continue with --resume.

    --set changes a setting of the recipe, for example --set train.batch_size=32.
    """
    from bottega import recipes
    from bottega.config import dumps, override, parse_assignments
    from bottega.errors import InputError

    if recipe is None:
        if settings or resume or run is not None:
            raise InputError("name the recipe to train; without one, all are listed")
        for name, build in sorted(recipes.RECIPES.items()):
            typer.echo(f"{name:16} {(build.__doc__ or '').strip().splitlines()[0]}")
        return
    seconds = None if time_limit is None else parse_duration(time_limit)
    config = override(recipes.recipe(recipe), parse_assignments(listed(settings)))
    if dry_run:
        typer.echo(dumps(config), nl=False)
        return
    from bottega.training.limits import StopHook

    limit = StopHook(images=stop_after, seconds=seconds)
    folder = Path("runs") / recipe if run is None else run
    state = recipes.train(config, folder, resume=resume, hooks=[limit])
    total = state.config.total_images
    typer.echo(f"{folder}: {state.images_seen:,} of {total:,} images seen")
    if not state.finished:
        typer.echo("go on with --resume", err=True)
    if state.stopped_by == "SIGINT":
        raise typer.Exit(INTERRUPTED)


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


__all__ = ["INTERRUPTED", "parse_duration", "train"]
