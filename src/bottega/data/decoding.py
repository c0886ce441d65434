"""Picture files of strangers: judged before they are unpacked, and decoded to upright RGB at the size wanted."""

import warnings
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from bottega.data.buckets import Bucket

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Endings of files that are taken for pictures."""
MAX_PIXELS = 64_000_000
"""Pictures that claim more pixels than this are refused before anything is unpacked."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What a picture may be by its contents. Pillow would read more, and start Ghostscript for PostScript."""

Check = Literal["pixels", "headers"]
"""Whether pictures are decoded when they are looked at, or only their first bytes read."""

_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)  # orientations of EXIF that turn a picture by a quarter


class Shape(NamedTuple):
    """Pixels of a picture as it is seen, after EXIF rotation."""

    height: int
    width: int


def probe(file: Path | BufferedIOBase, check: Check, max_pixels: int = MAX_PIXELS) -> Shape | str:
    """The shape of a picture, or in one line why it cannot be used.

    Args:
        file: Where it is.
        check: Whether to decode it too.
        max_pixels: More than that are refused by what the file claims, before anything is unpacked.
    """
    from PIL import Image

    bomb = f"it claims more than {max_pixels:,} pixels, which could be meant to exhaust the memory"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(cast(Any, file), formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    return bomb
                if image.mode == "F":
                    return "its pixels are fractions, whose range is not known"
                if check == "pixels":
                    image.load()
                if _orientation(image, check) in _LYING:
                    width, height = height, width
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return bomb
    # Decoders raise whatever they please on damaged files; all of it means the same here.
    except Exception as error:
        return words(error)
    return Shape(height, width)


def _orientation(image: Any, check: Check) -> int | None:
    """How EXIF says a picture is to be turned; of a PNG's header only what stands before the pixels is read."""
    if check == "headers" and image.format == "PNG" and "exif" not in image.info:
        return None
    return image.getexif().get(_ORIENTATION)


def decoded(file: Path | BufferedIOBase, near: Bucket | None = None) -> Any:
    """A picture upright and in RGB, transparency on white, of animations the first frame.

    Args:
        file: Where it is.
        near: The size it will be resized to, if that is known; JPEG then unpacks no more than twice that.
    """
    from PIL import Image

    with Image.open(cast(Any, file), formats=FORMATS) as opened:
        if near is not None:
            longest = max(near)
            opened.draft("RGB", (2 * longest, 2 * longest))
        return as_seen(opened)


def as_seen(picture: Any) -> Any:
    """A picture of Pillow's as a viewer shows it: turned as EXIF says, in RGB, transparency on white; a copy."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):
        upright = Image.fromarray((np.asarray(upright) // 257).clip(0, 255).astype(np.uint8))
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    image = Image.new("RGB", upright.size, "white")
    layer = upright.convert("RGBA")
    image.paste(layer, mask=layer)
    return image


def fitted(
    file: Path | BufferedIOBase, bucket: Bucket, *, crop: bool
) -> UInt8[ndarray, "height width 3"]:
    """A picture at the size of a bucket, antialiased: its middle where ``crop`` is True, otherwise all of it."""
    from PIL import Image, ImageOps

    image, size = decoded(file, bucket), (bucket.width, bucket.height)
    if crop:
        image = ImageOps.fit(image, size, method=Image.Resampling.LANCZOS)
    else:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image).copy()


def words(error: Exception) -> str:
    """What went wrong in one line; without the path, which is named beside it."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a picture, by its contents"
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


__all__ = [
    "ENDINGS",
    "FORMATS",
    "MAX_PIXELS",
    "Check",
    "Shape",
    "as_seen",
    "decoded",
    "fitted",
    "probe",
    "words",
]
