"""Masks as a picture's description keeps them: grey, small, and checked when a stranger's file is read."""

import base64
import binascii
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bottega.errors import InputError
from bottega.pipelines import given

MAX_SIDE_PX = 8192
"""Larger masks are taken for a mistake."""

MAX_TEXT_BYTES = 512 << 10
"""A mask that takes more than this to write down is refused."""

Grey = Float[Tensor, "height width"]
"""A mask in [0, 1]."""

MaskLike = Image.Image | np.ndarray | Tensor
"""What is taken for a mask: a grey picture (white is 1), or numbers from 0 to 1, by row and column."""


@dataclass(frozen=True, kw_only=True)
class StoredMask:
    """A grey mask as text: its rows from the top, a byte per pixel, deflated, in base 64."""

    width: int
    height: int
    data: str

    def __post_init__(self) -> None:
        if not (1 <= self.width <= MAX_SIDE_PX and 1 <= self.height <= MAX_SIDE_PX):
            raise InputError(
                f"a mask has 1 to {MAX_SIDE_PX} pixels along each side, got {self.width} x {self.height}"
            )
        if len(self.data) > MAX_TEXT_BYTES:
            raise InputError(
                f"a mask takes {len(self.data):,} bytes to write down, more than {MAX_TEXT_BYTES:,}; "
                "use a smaller or a simpler one"
            )
        self._bytes()

    def tensor(self) -> Grey:
        """The mask as numbers from 0 to 1."""
        pixels = np.frombuffer(self._bytes(), np.uint8).reshape(self.height, self.width)
        return torch.from_numpy(pixels.astype(np.float32) / 255)

    def picture(self) -> Image.Image:
        """The mask as a grey picture."""
        return Image.frombytes("L", (self.width, self.height), self._bytes())

    def _bytes(self) -> bytes:
        wanted = self.width * self.height
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(base64.b64decode(self.data, validate=True), wanted + 1)
        except (binascii.Error, ValueError, zlib.error) as error:
            raise InputError(f"a mask in it cannot be read: {error}") from None
        if len(data) != wanted:
            raise InputError(f"a mask in it has another number of pixels than {wanted}")
        return data


def store(mask: MaskLike, *, largest_px: int | None = None, what: str = "the mask") -> StoredMask:
    """Write a mask down.

    Args:
        mask: See `MaskLike`.
        largest_px: A longer side than this is reduced to it, every pixel counting by its area.
        what: How messages call it.

    Raises:
        InputError: For anything that is no mask, or too large or too complicated to keep.
    """
    picture = _grey(mask, what)
    longest = max(picture.size)
    if longest > MAX_SIDE_PX or not min(picture.size):
        raise InputError(
            f"{what} is {picture.width} x {picture.height}; it needs 1 to {MAX_SIDE_PX} pixels along each side"
        )
    if largest_px is not None and longest > largest_px:
        width, height = (max(1, round(side * largest_px / longest)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX)
    data = base64.b64encode(zlib.compress(picture.tobytes(), 9)).decode("ascii")
    return StoredMask(width=picture.width, height=picture.height, data=data)


def _grey(mask: Any, what: str) -> Image.Image:
    if isinstance(mask, Image.Image):
        return _grey_picture(mask, what)
    if isinstance(mask, Tensor):
        plain = mask.detach().cpu()
        numbers = (plain.float() if plain.is_floating_point() else plain).numpy()
    elif isinstance(mask, np.ndarray):
        numbers = mask
    else:
        raise InputError(
            f"{what} is a picture, an array or a tensor, got {given.shown(mask)}; "
            "bottega.pipelines.open_mask(path) reads one"
        )
    if numbers.ndim != 2:
        raise InputError(f"{what} has rows and columns, got {numbers.ndim} dimensions")
    is_whole = numbers.dtype.kind in "iu" and bool(np.isin(numbers, (0, 1)).all())
    if numbers.dtype.kind not in "bf" and not is_whole:
        raise InputError(
            f"{what} holds numbers from 0 to 1, got {numbers.dtype}; divide bytes by 255"
        )
    values = numbers.astype(np.float64)
    if not (values.size and np.isfinite(values).all() and 0 <= values.min() <= values.max() <= 1):
        raise InputError(f"{what} holds numbers from 0 to 1, got others or none at all")
    return Image.fromarray((values * 255).round().astype(np.uint8))


def _grey_picture(mask: Image.Image, what: str) -> Image.Image:
    """What is transparent counts as black; colours are refused, since nobody could tell what they mean."""
    if mask.mode in ("L", "1"):
        return mask.convert("L")
    flat = Image.new("RGB", mask.size)
    layer = mask.convert("RGBA")
    flat.paste(layer, mask=layer.getchannel("A"))
    red, green, blue = (np.asarray(flat.getchannel(c), np.int16) for c in "RGB")
    if max(int(np.abs(red - green).max(initial=0)), int(np.abs(red - blue).max(initial=0))) > 8:
        raise InputError(f"{what} is grey, white where it holds; got a picture in colour")
    return flat.convert("L")


__all__ = ["MAX_SIDE_PX", "MAX_TEXT_BYTES", "MaskLike", "StoredMask", "store"]
