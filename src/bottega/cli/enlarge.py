"""``bottega enlarge``: a picture made larger in one go."""

from pathlib import Path
from typing import Annotated

import typer

from bottega.cli.options import Device
from bottega.cli.progress import counting_bar


def enlarge(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="What to enlarge.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="PNG", help="The picture to write.")
    ],
    scale: Annotated[
        int | None,
        typer.Option("--scale", help="How many times larger; the model's own is the only one."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME|FOLDER|FILE",
            help="A shipped enlarger, a run's export, or Real-ESRGAN's weights as safetensors.",
        ),
    ] = "piccolo-srgan",
    tile: Annotated[
        int | None,
        typer.Option("--tile", metavar="PX", help="Side of a tile; less needs less memory."),
    ] = None,
    halo: Annotated[
        int | None,
        typer.Option(
            "--halo",
            metavar="PX",
            help="What a tile sees around itself; by default all that matters to it.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32, bfloat16 or auto; bfloat16 rounds more.")
    ] = "float32",
) -> None:
    """Make a picture four times larger, tile by tile, so that memory does not grow with it.

    With the halo that is the default, tiles leave no trace: the result is that of the whole picture at once.
    """
    from bottega.errors import InputError
    from bottega.pipelines import check_writable, open_picture, save_picture
    from bottega.pipelines.enlarging import TILE_PX, enlargement_note, load_enlarger
    from bottega.pipelines.output import CHUNK

    check_writable(output)
    small = open_picture(picture)
    enlarger = load_enlarger(model, device=device, dtype=dtype)
    if scale is not None and scale != enlarger.scale:
        raise InputError(
            f"--scale: {enlarger.name} makes pictures {enlarger.scale} times larger, not {scale}"
        )
    tile_px = TILE_PX if tile is None else tile
    halo_px = enlarger.halo_px if halo is None else halo
    with counting_bar("enlarging") as progress:
        large = enlarger.enlarge(small, tile_px=tile_px, halo_px=halo_px, progress=progress)
    large.info[CHUNK] = enlargement_note(enlarger, small, tile_px=tile_px, halo_px=halo_px)
    save_picture(large, output)
    typer.echo(f"{output}: {large.width} x {large.height}")


__all__ = ["enlarge"]
