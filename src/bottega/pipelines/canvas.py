"""How high and wide a picture is painted, when that is not the square a model was trained on."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bottega.errors import InputError
from bottega.pipelines import given

MAX_SIDE_PX = 8192
"""Longer sides are taken for a mistake."""

MAX_ASPECT = 16.0
"""Narrower strips are taken for a mistake."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Pixels down and across."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if not (1 <= self.height <= MAX_SIDE_PX and 1 <= self.width <= MAX_SIDE_PX):
            raise InputError(
                f"a picture has 1 to {MAX_SIDE_PX} pixels along each side, got {self.height} x {self.width}"
            )
        if max(self.height, self.width) > MAX_ASPECT * min(self.height, self.width):
            raise InputError(
                f"one side of a picture is at most {MAX_ASPECT:g} times the other, got {self.height} x {self.width}"
            )

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@runtime_checkable
class Painting(Protocol):
    """What has to be known of a stage: the side it was trained on, and of what its sides are multiples."""

    @property
    def size(self) -> int:
        """Pixels of the square it paints by default."""
        ...

    @property
    def multiple(self) -> int:
        """Its sides are multiples of this."""
        ...


def canvas_of(size: Canvas | tuple[int, int] | int) -> Canvas:
    """A size as a canvas: height and width, or one number for a square.

    Raises:
        InputError: When it is something else, or makes no picture.
    """
    if isinstance(size, Canvas):
        return size
    sides = [size, size] if isinstance(size, int) else given.listed(size, "height and width")
    if len(sides) != 2:
        raise InputError(f"a size is (height, width), got {len(sides)} numbers")
    height, width = (given.whole(side, "a side of a picture") for side in sides)
    return Canvas(height=height, width=width)


def parse_canvas(text: str) -> Canvas:
    """Read ``96x160``, height before width, or ``128`` for a square.

    Raises:
        InputError: When it is written otherwise, or makes no picture.
    """
    found = re.fullmatch(r"(\d{1,6})(?:[xX](\d{1,6}))?", text.strip())
    if found is None:
        raise InputError(
            f"a size is written HEIGHTxWIDTH in pixels, as in 96x160, or one number for a square, got {text!r}"
        )
    height, width = found.groups()
    return Canvas(height=int(height), width=int(height if width is None else width))


def parse_aspect(text: str) -> float:
    """Width over height from ``3:2``, width before height.

    Raises:
        InputError: When it is written otherwise, or is narrower than a picture may be.
    """
    found = re.fullmatch(r"(\d{1,4}(?:\.\d{1,4})?):(\d{1,4}(?:\.\d{1,4})?)", text.strip())
    across, down = (0.0, 0.0) if found is None else map(float, found.groups())
    if not (across > 0 and down > 0):
        raise InputError(f"an aspect is written WIDTH:HEIGHT, as in 3:2, got {text!r}")
    if not 1 / MAX_ASPECT <= across / down <= MAX_ASPECT:
        raise InputError(
            f"one side of a picture is at most {MAX_ASPECT:g} times the other, got {text}"
        )
    return across / down


def unit_px(stages: Sequence[Painting]) -> int:
    """Sides of the finished picture are multiples of this, so that every stage can paint its smaller one."""
    last, unit = stages[-1].size, 1
    for stage in stages:
        scaled = stage.multiple * last
        unit = math.lcm(unit, scaled // math.gcd(scaled, stage.size))
    return unit


def check_canvas(stages: Sequence[Painting], canvas: Canvas, model: str) -> Canvas:
    """The canvas itself, if a model's stages can paint it.

    Raises:
        InputError: If they cannot; the message names the nearest that they can.
    """
    unit = unit_px(stages)
    if canvas.height % unit or canvas.width % unit:
        height, width = (
            max(unit, round(side / unit) * unit) for side in (canvas.height, canvas.width)
        )
        raise InputError(
            f"{model} paints sides that are multiples of {unit} px; nearest to {canvas} is {height}x{width}"
        )
    return canvas


def stage_canvases(stages: Sequence[Painting], canvas: Canvas) -> list[Canvas]:
    """What each stage paints when the last one paints ``canvas``, which was checked."""
    last = stages[-1].size
    return [
        Canvas(height=canvas.height * s.size // last, width=canvas.width * s.size // last)
        for s in stages
    ]


def fit_aspect(stages: Sequence[Painting], aspect: float) -> Canvas:
    """The canvas nearest to an aspect (width over height) with about as many pixels as the model was trained on.

    A wrong aspect counts twice as much as a wrong area, both as ratios.
    """
    side, unit = stages[-1].size, unit_px(stages)
    middle = math.log(aspect)

    def miss(canvas: Canvas) -> float:
        ratio = math.log(canvas.width / canvas.height) - middle
        area = math.log(canvas.width * canvas.height / side**2)
        return 2 * abs(ratio) + abs(area)

    return min(_around(side, unit, aspect), key=miss)


def _around(side: int, unit: int, aspect: float) -> Iterator[Canvas]:
    down, across = side / math.sqrt(aspect) / unit, side * math.sqrt(aspect) / unit
    for height in _near(down):
        for width in _near(across):
            if max(height, width) <= MAX_ASPECT * min(height, width):
                yield Canvas(height=height * unit, width=width * unit)


def _near(count: float) -> range:
    low = math.floor(count)
    return range(max(1, low - 1), low + 3)


__all__ = [
    "MAX_ASPECT",
    "MAX_SIDE_PX",
    "Canvas",
    "Painting",
    "canvas_of",
    "check_canvas",
    "fit_aspect",
    "parse_aspect",
    "parse_canvas",
    "stage_canvases",
    "unit_px",
]
