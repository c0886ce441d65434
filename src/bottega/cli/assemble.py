"""``bottega assemble``: finished runs become a model folder that paints."""

from pathlib import Path
from typing import Annotated

import typer


def assemble(
    runs: Annotated[
        Path,
        typer.Argument(
            metavar="RUNS", help="The folder in which piccolo's runs lie, or a programme's folder."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The model's, of a programme; by default its own.")
    ] = None,
    judge: Annotated[
        Path | None,
        typer.Option("--judge", metavar="FOLDER", help="Of a programme: the judge to take along."),
    ] = None,
) -> None:
    """Gather what the runs of piccolo exported, or what a plan has trained, into a model that paint --model takes."""
    from bottega.errors import InputError
    from bottega.recipes.execute import PLAN
    from bottega.recipes.ship import ship_piccolo, ship_programme

    if (runs / PLAN).is_file():
        manifest = ship_programme(runs, output, name=name, judge=judge)
    elif name is not None or judge is not None:
        raise InputError(f"--name and --judge are for a programme; {runs} holds no {PLAN}")
    else:
        manifest = ship_piccolo(runs, output)
    size = sum((output / name).stat().st_size for name in manifest.files)
    typer.echo(f"{output}: {len(manifest.files)} files, {size / 1e6:.1f} MB")


__all__ = ["assemble"]
