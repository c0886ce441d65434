"""Pictures and their captions on one sheet, to look at what a model is taught."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bottega.data.batch import Source
from bottega.data.emoji_world.world import EmojiWorld
from bottega.errors import InputError
from bottega.rundir import write_atomically

_MARGIN = 6
_LETTER = 11
_LINES = 4


def contact_sheet(
    source: Source | EmojiWorld | Sequence[Any],
    indices: Sequence[int],
    path: Path | str,
    *,
    columns: int = 6,
    size: int = 128,
) -> Path:
    """Write a PNG with the pictures at ``indices``, each above its caption.

    Args:
        source: A source of batches, a world, or examples that have ``caption`` and ``image(size)``.
        indices: Which pictures, in reading order.
        path: Where the PNG goes; its folder must exist.
        columns: Pictures in a row.
        size: Pixels a picture takes on the sheet; smaller pictures of a source are enlarged without smoothing.

    Raises:
        InputError: Without pictures, with fewer than one column, or for a path that cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not indices or columns < 1 or size < 16:
        raise InputError(
            "a contact sheet needs at least one picture, one column and 16 pixels a picture"
        )
    shown = _pictures(source, indices, size)
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    cell = (size + _MARGIN, size + _MARGIN + _LINES * (_LETTER + 2))
    sheet = Image.new("RGB", (columns * cell[0] + _MARGIN, rows * cell[1] + _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=_LETTER)
    width = max(8, int(size / (_LETTER * 0.52)))
    for place, (picture, caption) in enumerate(shown):
        left = _MARGIN + place % columns * cell[0]
        top = _MARGIN + place // columns * cell[1]
        sheet.paste(picture, (left, top))
        lines = textwrap.wrap(caption, width, max_lines=_LINES, placeholder=" ...")
        pen.multiline_text((left, top + size + 2), "\n".join(lines), "black", font, spacing=1)
    target = Path(path)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    try:
        write_atomically(target, buffer.getvalue())
    except OSError as error:
        raise InputError(
            f"the contact sheet cannot be written to {target}: {error.strerror}"
        ) from error
    return target


def _pictures(source: Any, indices: Sequence[int], size: int) -> list[tuple[Any, str]]:
    from PIL import Image

    if hasattr(source, "batch"):
        batch = source.batch(indices)
        arrays = [np.ascontiguousarray(p.numpy().transpose(1, 2, 0)) for p in batch.images]
        captions = list(batch.captions)
    else:
        examples = [source[i] for i in indices]
        arrays = [example.image(size) for example in examples]
        captions = [example.caption for example in examples]
    images = [Image.fromarray(array) for array in arrays]
    scaled = [image if image.size == (size, size) else _fitted(image, size) for image in images]
    return list(zip(scaled, captions, strict=True))


def _fitted(image: Any, size: int) -> Any:
    from PIL import Image

    larger = image.width < size
    method = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
    return image.resize((size, size), method)


__all__ = ["contact_sheet"]
