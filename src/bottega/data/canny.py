"""Edges of ordinary pictures after Canny: thin lines where the colour changes most, followed from strong to weak."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from bottega.errors import ConfigError, InputError

Plane = Float[ndarray, "height width"]
EdgeMap = Bool[ndarray, "height width"]
"""True on an edge."""


@dataclass(frozen=True, kw_only=True)
class Canny:
    """Finds edges in a picture: smoothed, the steepest channel's slope, thinned, and followed from strong to weak.

    ``blur_px`` is the smoothing's standard deviation in pixels. ``low`` and ``high`` are slopes as shares of a full
    step from 0 to 255 between neighbours: a line of at least ``low`` counts where it touches, at any distance along
    itself, a pixel of at least ``high``.

    Source: Canny 1986, "A Computational Approach to Edge Detection", sections V to VIII. Directions are rounded to
    eighths of a turn, as is usual. We take each pixel's slope from its steepest colour channel instead of from grey,
    so that red on green of equal brightness has an edge too.
    """

    blur_px: float = 1.0
    low: float = 0.1
    high: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.blur_px <= 100:
            raise ConfigError(f"blur_px must be in [0, 100] pixels, got {self.blur_px}")
        if not 0 < self.low <= self.high:
            raise ConfigError(
                f"low must be above 0 and at most high, got low={self.low}, high={self.high}"
            )

    def __call__(self, picture: UInt8[ndarray, "height width 3"]) -> EdgeMap:
        """The edges of one picture.

        Raises:
            InputError: For a picture without pixels.
        """
        if picture.size == 0:
            raise InputError(f"a picture needs pixels, got {picture.shape}")
        planes = picture.astype(np.float32).transpose(2, 0, 1) / 255
        slopes = [_slope(_blurred(plane, self.blur_px)) for plane in planes]
        down = np.stack([slope[0] for slope in slopes])
        right = np.stack([slope[1] for slope in slopes])
        size = np.hypot(down, right)
        steepest = size.argmax(axis=0)[None]
        thin = _thinned(
            *(np.take_along_axis(each, steepest, axis=0)[0] for each in (size, down, right))
        )
        return _followed(thin >= self.low, thin >= self.high)


def _blurred(plane: Plane, std: float) -> Plane:
    """A Gaussian of that many pixels, cut off at three times as many; the border is repeated outwards."""
    if std == 0:
        return plane
    reach = max(1, round(3 * std))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / std) ** 2)
    weights = (weights / weights.sum()).astype(plane.dtype)
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (reach, reach)
        padded = np.pad(plane, pad, mode="edge")
        count = plane.shape[axis]
        parts = (
            weight * padded.take(range(at, at + count), axis=axis)
            for at, weight in enumerate(weights)
        )
        plane = np.sum(list(parts), axis=0)
    return plane


def _slope(plane: Plane) -> tuple[Plane, Plane]:
    """Sobel's slopes downwards and to the right; 1 beside a full step."""
    p = np.pad(plane, 1, mode="edge")
    across = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
    along = p[:-2] + 2 * p[1:-1] + p[2:]
    return (across[2:] - across[:-2]) / 4, (along[:, 2:] - along[:, :-2]) / 4


def _thinned(size: Plane, down: Plane, right: Plane) -> Plane:
    """The slope where it is the largest along its own direction, elsewhere 0.

    Of two equal neighbours the one behind stays, so that an even step leaves one line and not two.
    """
    padded = np.pad(size, 1)
    eighth = np.round(np.arctan2(down, right) / (np.pi / 4)).astype(int) % 4
    height, width = size.shape
    kept = np.zeros_like(size)
    for direction, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        ahead = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        behind = padded[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        is_peak = (eighth == direction) & (size >= ahead) & (size > behind)
        kept[is_peak] = size[is_peak]
    return kept


def _followed(weak: EdgeMap, strong: EdgeMap) -> EdgeMap:
    """The weak pixels that a chain of weak pixels joins to a strong one."""
    stride = weak.shape[1] + 2
    open_pixels = np.pad(weak, 1).ravel()
    found = np.zeros_like(open_pixels)
    around = np.array([-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1])
    newest = np.flatnonzero(np.pad(strong, 1).ravel())
    while newest.size:
        found[newest] = True
        near = np.unique(newest[:, None] + around)
        newest = near[open_pixels[near] & ~found[near]]
    return found.reshape(-1, stride)[1:-1, 1:-1]


__all__ = ["Canny", "EdgeMap"]
