"""``bottega assemble``: finished runs become a model folder that paints."""

from pathlib import Path
from typing import Annotated

import typer


def assemble(
    runs: Annotated[
        Path, typer.Argument(metavar="RUNS", help="The folder in which piccolo's runs lie.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")],
) -> None:
    """Gather what the runs of piccolo exported into a model that paint --model FOLDER takes."""
    from bottega.recipes.ship import ship_piccolo

    manifest = ship_piccolo(runs, output)
    size = sum((output / name).stat().st_size for name in manifest.files)
    typer.echo(f"{output}: {len(manifest.files)} files, {size / 1e6:.1f} MB")


__all__ = ["assemble"]
