"""Draw a plan: the picture, which pixel belongs to what, and the exact edges."""

import numpy as np
from jaxtyping import Bool, Int8, UInt8
from numpy import ndarray

from bottega.data.emoji_world.plan import PlacedWord, Plan
from bottega.data.emoji_world.sprites import Sprite, lay, store
from bottega.data.emoji_world.styles import apply_style
from bottega.data.emoji_world.vocabulary import thing_named
from bottega.errors import InputError

Picture = UInt8[ndarray, "height width 3"]
Labels = Int8[ndarray, "height width"]

Size = int | tuple[int, int]
"""The side of a square in pixels, or height and width.

In a picture that is no square places are parts of its own height and width, and sizes of things parts of its shorter
side: nothing is stretched, nothing leaves the picture, and whatever the caption says of the scene stays true.
"""

_DRAWN_AT = 128
_INK = (24, 24, 28)
_PAPER = (250, 250, 246)


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def render(plan: Plan, size: Size) -> Picture:
    """The plan's picture; the same plan always gives the same bytes.

    Styles and words are drawn at 128 pixels or more and made smaller, so that strokes, grain and letters look alike
    at every size.
    """
    height, width = sides(size)
    shorter, longer = sorted((height, width))
    if shorter < 8 or longer > 1024:
        raise InputError(f"a picture of the world is 8 to 1024 pixels wide, got {size}")
    plain = plan.style == "plain" and plan.word is None
    times = 1 if plain else -(-_DRAWN_AT // shorter)
    drawn = (height * times, width * times)
    picture = _ground(plan, drawn)
    for sprite, top, left in _sprites(plan, drawn):
        lay(picture, sprite, top, left)
    if plan.style != "plain":
        picture = apply_style(picture, labels(plan, drawn) > 0, plan.style, plan.shade)
    return picture if times == 1 else _reduced(picture, times)


def _reduced(picture: UInt8[ndarray, "tall wide 3"], times: int) -> Picture:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).reduce(times)).copy()


def labels(plan: Plan, size: Size) -> Labels:
    """Whose each pixel is: 0 the ground, i + 1 object i, and one more for the written word."""
    shape = sides(size)
    owners = np.zeros(shape, np.int8)
    for owner, (sprite, top, left) in enumerate(_sprites(plan, shape), start=1):
        tall, wide = sprite.solid.shape
        owners[top : top + tall, left : left + wide][sprite.solid] = owner
    return owners


def edges(plan: Plan, size: Size) -> Bool[ndarray, "height width"]:
    """The outline of every thing as far as it is seen: its pixels that touch another's or the ground."""
    owners = labels(plan, size)
    padded = np.pad(owners, 1)
    inner = padded[1:-1, 1:-1]
    differs = np.zeros(owners.shape, bool)
    for shifted in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        differs |= inner != shifted
    return differs & (owners > 0)


def _ground(plan: Plan, size: tuple[int, int]) -> Picture:
    picture = np.empty((*size, 3), np.uint8)
    picture[:] = plan.shade
    word = plan.word
    if word is not None and word.plate:
        left, top, right, bottom = _plate(word, size)
        picture[top:bottom, left:right] = _PAPER
    return picture


def _sprites(plan: Plan, size: tuple[int, int]) -> list[tuple[Sprite, int, int]]:
    """Every sprite with its top and left pixel, in drawing order."""
    sprites = store()
    height, width = size
    side = min(size)
    placed: list[tuple[Sprite, int, int]] = []
    for thing in plan.objects:
        pixels = min(side, max(2, round(thing.size * side)))
        half = thing.size / 2
        left = round((thing.x - half * (side / width)) * width)
        top = round((thing.y - half * (side / height)) * height)
        left, top = min(width - pixels, max(0, left)), min(height - pixels, max(0, top))
        placed.append((sprites.get(thing_named(thing.thing).char, pixels, thing.tint), top, left))
    word = plan.word
    if word is not None:
        colour = _INK if word.plate or sum(plan.shade) > 300 else _PAPER
        sprite = sprites.word(word.text, min(side, max(4, round(word.width * side))), colour)
        tall, wide = sprite.solid.shape
        left = min(width - wide, max(0, round(word.x * width - wide / 2)))
        top = min(height - tall, max(0, round(word.y * height - tall / 2)))
        placed.append((sprite, top, left))
    return placed


def _plate(word: PlacedWord, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The plate behind a word: left, top, right, bottom in pixels."""
    side = min(size)
    sprite = store().word(word.text, min(side, max(4, round(word.width * side))), _INK)
    tall, wide = sprite.solid.shape
    margin = max(1, round(side * 0.035))
    left = round(word.x * size[1] - wide / 2) - margin
    top = round(word.y * size[0] - tall / 2) - margin
    return max(0, left), max(0, top), left + wide + 2 * margin, top + tall + 2 * margin


__all__ = ["Labels", "Picture", "Size", "edges", "labels", "render", "sides"]
