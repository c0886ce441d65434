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
) -> None:
    """Gather what the runs of piccolo exported, or what a plan has trained, into a model that paint --model takes."""
    from bottega.recipes.execute import PLAN
    from bottega.recipes.ship import ship_piccolo, ship_programme

    ship = ship_programme if (runs / PLAN).is_file() else ship_piccolo
    manifest = ship(runs, output)
    size = sum((output / name).stat().st_size for name in manifest.files)
    typer.echo(f"{output}: {len(manifest.files)} files, {size / 1e6:.1f} MB")


__all__ = ["assemble"]
