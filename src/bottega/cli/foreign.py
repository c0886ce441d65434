"""``bottega import`` and ``bottega export``: models of the diffusers library become model folders, and back."""

from pathlib import Path
from typing import Annotated

import typer

from bottega.cli.options import LocalFilesOnly, listed, printable


def import_model(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A diffusers folder, or an id of the Hub.")
    ],
    target: Annotated[Path, typer.Argument(metavar="MODEL", help="The model folder to write.")],
    then: Annotated[
        list[str] | None,
        typer.Option("--then", metavar="SOURCE", help="What enlarges its pictures, as IF's II."),
    ] = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Write a pipeline of Stable Diffusion, SDXL or DeepFloyd IF as a model folder that paint --model takes."""
    from bottega.pipelines.convert import import_model as convert

    manifest = convert(source, target, then=listed(then), local_files_only=local_files_only)
    size = sum((target / name).stat().st_size for name in manifest.files)
    stages = ", ".join(f"{stage.name} {stage.size} px" for stage in manifest.stages)
    typer.echo(printable(f"{target}: {manifest.name}, {stages}, {size / 1e6:,.1f} MB"))


def export_model(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model folder that import wrote.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="The diffusers folder to write.")
    ],
) -> None:
    """Write an imported model as diffusers folders again, one per stage where it has several."""
    from bottega.pipelines.convert import export_model as convert

    for folder in convert(model, target):
        typer.echo(printable(str(folder)))


__all__ = ["export_model", "import_model"]
