"""``bottega data edges``: make a control picture out of any picture."""

from pathlib import Path
from typing import Annotated

import typer


def edges(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="Any picture.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The PNG to write.")] = Path(
        "edges.png"
    ),
    size: Annotated[
        str,
        typer.Option(
            "--size",
            metavar="PX|HEIGHTxWIDTH",
            help="Pixels of a side, or of both: those of the stage to steer.",
        ),
    ] = "32",
    blur: Annotated[float, typer.Option("--blur", help="Smoothing in pixels.")] = 1.0,
    low: Annotated[float, typer.Option("--low", help="A slope that goes on an edge.")] = 0.1,
    high: Annotated[float, typer.Option("--high", help="A slope that begins one.")] = 0.2,
) -> None:
    """Find the edges of a picture after Canny: white on black, for `bottega paint --control`.

    What does not fit is cut off on both sides. The defaults are those that the recipe controlnet learns from.
    """
    import numpy as np
    from PIL import Image, ImageOps

    from bottega.data import Canny
    from bottega.errors import InputError
    from bottega.pipelines import check_writable, open_picture, save_picture
    from bottega.pipelines.canvas import parse_canvas

    canvas = parse_canvas(size)
    if min(canvas.height, canvas.width) < 8:
        raise InputError(f"--size must be between 8 and 8192, got {size}")
    check_writable(output)
    find = Canny(blur_px=blur, low=low, high=high)
    wanted = (canvas.width, canvas.height)
    fitted = ImageOps.fit(open_picture(picture), wanted, method=Image.Resampling.BOX)
    found = find(np.asarray(fitted))
    drawn = Image.fromarray(found.astype(np.uint8) * 255).convert("RGB")
    save_picture(drawn, output, metadata=False)
    typer.echo(f"{output}: {found.mean():.1%} of its pixels are edges")


__all__ = ["edges"]
