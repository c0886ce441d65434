"""Plots of a few curves as PNG, drawn with Pillow: no other library is needed to look at a result."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from bottega.errors import InputError

COLOURS = ("#1f5fbf", "#d1495b", "#2e8b57", "#b8860b", "#7b3fa0", "#3a7d8c", "#a0522d", "#555555")
"""One for each curve, in turn."""

_SIZE = (900, 560)
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 24, 48, 64
_LETTER = 15
_TICKS = 6

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line: its points in order, what each is called (or nothing), and for each a band (low, high) or nothing."""

    name: str
    points: tuple[Point, ...]
    labels: tuple[str, ...] = ()
    bands: tuple[Point, ...] = ()


def plot(
    curves: Sequence[Curve], *, title: str, x_name: str, y_name: str, log_x: bool = False
) -> Image.Image:
    """Draw curves into one frame, with a legend beneath the title.

    Raises:
        InputError: Without any point, for a point that is not finite, or for x not above 0 on a logarithmic axis.
    """
    points = [point for curve in curves for point in curve.points]
    ends = [
        (x, end) for c in curves for (x, _), b in zip(c.points, c.bands, strict=False) for end in b
    ]
    if not points or not all(map(math.isfinite, (v for p in points + ends for v in p))):
        raise InputError("a plot needs points, all of them finite")
    if log_x and min(x for x, _ in points) <= 0:
        raise InputError("a logarithmic axis needs values above 0")
    frame = _Frame(points + ends, log_x)
    page = Image.new("RGB", _SIZE, "white")
    pen = ImageDraw.Draw(page, "RGBA")
    font = ImageFont.load_default(size=_LETTER)
    frame.draw(pen, font, x_name, y_name)
    pen.text((_LEFT, 6), title, "black", ImageFont.load_default(size=_LETTER + 2))
    left = float(_LEFT)
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        _draw_curve(pen, font, frame, curve, colour)
        pen.line([(left, 38), (left + 22, 38)], colour, 3)
        pen.text((left + 28, 29), curve.name, "black", font)
        left += 28 + pen.textlength(curve.name, font) + 24
    return page


class _Frame:
    """Where values lie on the page."""

    def __init__(self, points: Sequence[Point], log_x: bool) -> None:
        self._log_x = log_x
        self._x = _spread([self._across(x) for x, _ in points])
        self._y = _spread([y for _, y in points])

    def _across(self, x: float) -> float:
        return math.log10(x) if self._log_x else x

    def place(self, point: Point) -> Point:
        width, height = _SIZE[0] - _LEFT - _RIGHT, _SIZE[1] - _TOP - _BOTTOM
        across = (self._across(point[0]) - self._x[0]) / (self._x[1] - self._x[0])
        up = (point[1] - self._y[0]) / (self._y[1] - self._y[0])
        return _LEFT + across * width, _TOP + (1 - up) * height

    def draw(self, pen: ImageDraw.ImageDraw, font: object, x_name: str, y_name: str) -> None:
        right, bottom = _SIZE[0] - _RIGHT, _SIZE[1] - _BOTTOM
        for value in _decade_ticks(*self._x) if self._log_x else _ticks(*self._x):
            shown = 10**value if self._log_x else value
            x = self.place((shown, self._y[0]))[0]
            pen.line([(x, _TOP), (x, bottom)], "#e4e4e4")
            pen.text((x, bottom + 6), f"{shown:.4g}", "black", font, anchor="ma")  # pyright: ignore
        for value in _ticks(*self._y):
            y = _TOP + (1 - (value - self._y[0]) / (self._y[1] - self._y[0])) * (bottom - _TOP)
            pen.line([(_LEFT, y), (right, y)], "#e4e4e4")
            pen.text((_LEFT - 8, y), f"{value:.4g}", "black", font, anchor="rm")  # pyright: ignore
        pen.rectangle((_LEFT, _TOP, right, bottom), outline="#888888")
        pen.text((right, _SIZE[1] - 30), x_name, "black", font, anchor="ra")  # pyright: ignore
        pen.text((8, _SIZE[1] - 30), f"upwards: {y_name}", "black", font)  # pyright: ignore


def _draw_curve(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    frame: _Frame,
    curve: Curve,
    colour: str,
) -> None:
    if len(curve.bands) == len(curve.points) > 1:
        xs = [x for x, _ in curve.points]
        upper = [frame.place((x, b[1])) for x, b in zip(xs, curve.bands, strict=True)]
        lower = [frame.place((x, b[0])) for x, b in zip(xs, curve.bands, strict=True)]
        pen.polygon([*upper, *reversed(lower)], fill=f"{colour}30")
    places = [frame.place(point) for point in curve.points]
    if len(places) > 1:
        pen.line(places, colour, 3)
    for x, y in places:
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
    for (x, y), label in zip(places, curve.labels, strict=False):
        pen.text((x + 7, y - 19), label, colour, font)


def _spread(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.06 if high > low else max(abs(high), 1.0) * 0.1
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers inside a range, about half a dozen."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def _decade_ticks(low: float, high: float) -> list[float]:
    """Logarithms of round numbers inside a range: of powers of ten, and of more between them where it is short."""
    if high - low >= 2:
        step = max(1, round((high - low) / _TICKS))
        return [float(power) for power in range(math.ceil(low), math.floor(high) + 1, step)]
    digits = (1, 2, 5) if high - low >= 1 else (1, 1.5, 2, 3, 4, 6, 8)
    powers = range(math.floor(low), math.ceil(high))
    ticks = [power + math.log10(digit) for power in powers for digit in digits]
    ticks = [value for value in [*ticks, float(math.ceil(high))] if low <= value <= high]
    return ticks if len(ticks) > 1 else _ticks(low, high)


__all__ = ["COLOURS", "Curve", "plot"]
