"""Six ways to draw the same scene, as operations on the finished picture."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray

from bottega.data.emoji_world.plan import STYLES, Style
from bottega.errors import ConfigError, nearest

Picture = UInt8[ndarray, "height width 3"]
Real = Float32[ndarray, "height width channels"]
Plane = Float32[ndarray, "height width"]
Shade = tuple[int, int, int]

_LIGHT = np.array([0.299, 0.587, 0.114], np.float32)


def apply_style(
    picture: Picture, things: Bool[ndarray, "height width"], style: Style, shade: Shade
) -> Picture:
    """Redraw a plain picture in a style.

    Args:
        picture: The plain picture.
        things: Where its things are.
        style: One of `STYLES`.
        shade: The colour of its ground, which every style keeps recognisable.
    """
    ground = np.array(shade, np.float32)
    if style == "plain":
        return picture
    if style == "pixel art":
        return _pixel_art(picture)
    draw = {"ink": _ink, "neon": _neon, "watercolour": _watercolour, "sketch": _sketch}.get(style)
    if draw is None:
        raise ConfigError(f"style {style!r} is not known{nearest(style, STYLES)}")
    return np.clip(draw(picture, things, ground) + 0.5, 0, 255).astype(np.uint8)


def _ink(picture: Picture, things: Bool[ndarray, "height width"], ground: Any) -> Real:
    """Dark pen strokes and flat wash on the ground's own paper."""
    light = picture @ _LIGHT
    line = _lines(picture, things, 3.2)
    dark = np.clip((120 - light) / 40, 0, 1) * things
    strokes = np.maximum(line, dark)[..., None]
    pen = np.array([20, 22, 40], np.float32) if ground @ _LIGHT > 60 else np.float32(232)
    paper = np.where(things[..., None], 0.25 * ground + 0.75 * 250, ground)
    return (paper * (1 - strokes) + pen * strokes).astype(np.float32)


def _pixel_art(picture: Picture) -> Picture:
    """Sixteen cells to the shorter side, few levels."""
    from PIL import Image

    height, width = picture.shape[:2]
    cells = (_cells(width, min(height, width)), _cells(height, min(height, width)))
    small = Image.fromarray(picture).resize(cells, Image.Resampling.BOX)
    levels = np.asarray(small).astype(np.int16)
    few = np.clip((levels + 12) // 24 * 24, 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(few).resize((width, height), Image.Resampling.NEAREST)).copy()


def _cells(pixels: int, shorter: int) -> int:
    return round(16 * pixels / shorter)


def _neon(picture: Picture, things: Bool[ndarray, "height width"], ground: Any) -> Real:
    """Glowing outlines in the dark; the dark keeps the ground's hue."""
    colour = picture.astype(np.float32)
    light = colour @ _LIGHT
    vivid = np.clip(light[..., None] + (colour - light[..., None]) * 1.8, 0, 255)
    vivid = 70 + vivid * 0.73
    line = _lines(picture, things, 4.0)[..., None]
    tube = vivid * line
    glow = _blurred(tube, _side(picture) / 24)
    return (ground * 0.28 + colour * things[..., None] * 0.18 + tube + glow * 0.9).astype(
        np.float32
    )


def _watercolour(picture: Picture, things: Bool[ndarray, "height width"], ground: Any) -> Real:
    """Soft pale washes with darker rims on grainy paper."""
    colour = picture.astype(np.float32)
    soft = _blurred(colour, _side(picture) / 56)
    rim = np.abs(soft - colour).mean(axis=2, keepdims=True)
    washed = 0.66 * soft + 0.34 * 250 - 0.5 * np.minimum(rim, 60)
    return washed + _grain(picture.shape[:2])[..., None] * 22


def _sketch(picture: Picture, things: Bool[ndarray, "height width"], ground: Any) -> Real:
    """Grey pencil on paper that is only faintly coloured by the ground."""
    light = picture @ _LIGHT
    line = _lines(picture, things, 2.6)
    size = picture.shape[:2]
    hatch = _hatching(size) * np.clip((170 - light) / 130, 0, 1) * things
    pencil = np.clip(line + 0.55 * hatch, 0, 1)[..., None]
    paper = 0.5 * ground + 0.5 * 252
    return (paper * (1 - pencil) + 52 * pencil + _grain(size)[..., None] * 10).astype(np.float32)


def _lines(picture: Picture, things: Bool[ndarray, "height width"], gain: float) -> Plane:
    """How much of a line goes through each pixel: from steps of lightness, and from outlines."""
    size = _side(picture)
    light = (picture @ _LIGHT).astype(np.float32)
    light += 90 * things
    steps = _steps(light)
    if size >= 64:
        steps = _blurred(steps, size / 200) * 1.7
    return np.clip(steps * (gain / 255), 0, 1)


def _side(picture: Picture) -> int:
    """The shorter side in pixels, which strokes and grain go by."""
    return min(picture.shape[:2])


def _steps(plane: Plane) -> Plane:
    """Size of the local change, by central differences."""
    padded = np.pad(plane, 1, mode="edge")
    across = padded[1:-1, 2:] - padded[1:-1, :-2]
    down = padded[2:, 1:-1] - padded[:-2, 1:-1]
    return np.maximum(np.abs(across), np.abs(down)) * 0.5


def _blurred(image: Any, radius: float) -> Any:
    """A Gaussian blur of levels from 0 to 255, of a plane or of colours."""
    from PIL import Image, ImageFilter

    levels = Image.fromarray(np.clip(image + 0.5, 0, 255).astype(np.uint8))
    return np.asarray(levels.filter(ImageFilter.GaussianBlur(radius))).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _grain(size: tuple[int, int]) -> Plane:
    """Paper grain, always the same."""
    noise = np.random.default_rng(11).standard_normal(size).astype(np.float32)
    coarse = _blurred(128 + 60 * noise, min(size) / 96) - 128
    return np.clip(coarse / 60, -1, 1)


@functools.lru_cache(maxsize=8)
def _hatching(size: tuple[int, int]) -> Plane:
    """Slanted strokes, always the same."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    period = max(3.0, min(size) / 24)
    return (0.5 + 0.5 * np.sin((x + y) * (2 * np.pi / period))).astype(np.float32)


__all__ = ["apply_style"]
