"""Pictures of single things and words at the sizes they are needed, drawn once and kept."""

import functools
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt16
from numpy import ndarray

from bottega.data.emoji_world.font import FONT_VARIABLE, find_font

_DRAWN_AT = 109
_CANVAS = 160
_BUDGET = 96 * 2**20
"""Bytes of sprites kept at most; the oldest are dropped and made again when wanted."""

DYES: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 44),
    "orange": (246, 140, 30),
    "yellow": (248, 214, 40),
    "green": (56, 168, 64),
    "blue": (44, 104, 224),
    "purple": (138, 64, 190),
    "pink": (250, 128, 184),
}
"""The middle tone of each tint, RGB."""


@dataclass(frozen=True, eq=False)
class Sprite:
    """A picture to lay over another: colour already multiplied by alpha, what remains of the ground, and its shape.

    ``solid`` is where the thing covers at least half of a pixel.
    """

    colour: UInt16[ndarray, "side width 3"]
    ground: UInt16[ndarray, "side width 1"]
    solid: Bool[ndarray, "side width"]


class SpriteStore:
    """Every sprite of one font file, cached by thing, pixels and tint up to a budget of memory."""

    def __init__(self, font_file: str) -> None:
        """Use this font; it is opened when the first sprite is drawn."""
        self._font_file = font_file
        self._masters: dict[tuple[str, str | None], Any] = {}
        self._sprites: dict[tuple[str, int, str | None], Sprite] = {}
        self._bytes = 0

    def get(self, char: str, pixels: int, tint: str | None = None) -> Sprite:
        """The sprite of a character in a square of ``pixels``."""
        key = (char, pixels, tint)
        sprite = self._sprites.get(key)
        if sprite is None:
            sprite = _finish(_resized(self._master(char, tint), (pixels, pixels)))
            self._keep(key, sprite)
        return sprite

    def word(self, text: str, width: int, colour: tuple[int, int, int]) -> Sprite:
        """A written word ``width`` pixels wide."""
        key = (text, width, str(colour))
        sprite = self._sprites.get(key)
        if sprite is None:
            master = _word_master(text, colour)
            height = max(3, round(width * master.height / master.width))
            sprite = _finish(_resized(master, (width, height)))
            self._keep(key, sprite)
        return sprite

    def _keep(self, key: tuple[str, int, str | None], sprite: Sprite) -> None:
        self._sprites[key] = sprite
        self._bytes += _weight(sprite)
        while self._bytes > _BUDGET and len(self._sprites) > 1:
            dropped = self._sprites.pop(next(iter(self._sprites)), None)
            self._bytes -= 0 if dropped is None else _weight(dropped)

    def _master(self, char: str, tint: str | None) -> Any:
        key = (char, tint)
        master = self._masters.get(key)
        if master is None:
            master = (
                _drawn(self._font_file, char)
                if tint is None
                else _dyed(self._master(char, None), tint)
            )
            self._masters[key] = master
        return master


def store() -> SpriteStore:
    """This process's sprites of the font that `find_font` finds; it looks once for each setting of its variable."""
    return _store_for(os.environ.get(FONT_VARIABLE))


@functools.lru_cache(maxsize=4)
def _store_for(_named: str | None) -> SpriteStore:
    return SpriteStore(str(find_font()))


@functools.lru_cache(maxsize=4)
def _font(font_file: str) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(font_file, _DRAWN_AT, layout_engine=ImageFont.Layout.BASIC)


def _drawn(font_file: str, char: str) -> Any:
    """A character at the font's own size, cropped to what it shows and padded to a square."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGBA", (_CANVAS, _CANVAS), (0, 0, 0, 0))
    pen = ImageDraw.Draw(canvas)
    pen.text((12, 12), char, font=_font(font_file), embedded_color=True)
    box = canvas.getchannel("A").point([0] * 9 + [255] * 247).getbbox()
    content = canvas if box is None else canvas.crop(box)
    side = max(content.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(content, ((side - content.width) // 2, (side - content.height) // 2))
    return square


def _dyed(master: Any, tint: str) -> Any:
    """The same shading in another colour: the thing's middle tone becomes the dye, light and dark stay around it."""
    from PIL import Image

    pixels = np.asarray(master).astype(np.float32)
    alpha = pixels[..., 3]
    light = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    seen = light[alpha > 128]
    middle = float(np.median(seen)) if seen.size else 128.0
    depth = np.clip((light - middle) / 255, -0.6, 0.6)[..., None]
    dye = np.array(DYES[tint], np.float32)
    shaded = np.where(depth < 0, dye * (1 + depth * 1.3), dye + (255 - dye) * depth * 1.1)
    pixels[..., :3] = np.clip(shaded, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8), "RGBA")


@functools.lru_cache(maxsize=512)
def _word_master(text: str, colour: tuple[int, int, int]) -> Any:
    """A word in the bold form of Pillow's own font, which is the same everywhere."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=80)
    box = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, font=font, stroke_width=3)
    width, height = int(box[2] - box[0]), int(box[3] - box[1])
    image = Image.new("RGBA", (max(1, width), max(1, height)), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    pen.text(
        (-box[0], -box[1]), text, font=font, fill=(*colour, 255), stroke_width=3, stroke_fill=(*colour, 255)
    )  # fmt: skip
    return image


def _resized(image: Any, size: tuple[int, int]) -> Float32[ndarray, "height width 4"]:
    """Antialiased, with colour multiplied by alpha so that clear pixels do not bleed in; levels from 0 to 255."""
    from PIL import Image

    smaller = size[0] <= image.width
    method = Image.Resampling.HAMMING if smaller else Image.Resampling.BICUBIC
    return np.asarray(image.convert("RGBa").resize(size, method)).astype(np.float32)


def _finish(premultiplied: Float32[ndarray, "height width 4"]) -> Sprite:
    alpha = premultiplied[..., 3:]
    colour = np.minimum(premultiplied[..., :3], alpha)
    return Sprite(
        colour=colour.astype(np.uint16),
        ground=(255 - alpha).astype(np.uint16),
        solid=alpha[..., 0] >= 127.5,
    )


def _weight(sprite: Sprite) -> int:
    return sprite.colour.nbytes + sprite.ground.nbytes + sprite.solid.nbytes


def lay(canvas: UInt8[ndarray, "height width 3"], sprite: Sprite, top: int, left: int) -> None:
    """Lay a sprite over a picture, in place."""
    height, width = sprite.solid.shape
    region = canvas[top : top + height, left : left + width]
    kept = region * sprite.ground
    kept += 128
    kept += kept >> 8
    kept >>= 8
    kept += sprite.colour
    region[...] = kept


__all__ = ["DYES", "Sprite", "SpriteStore", "lay", "store"]
