"""Noise levels to visit when painting: lists of floats that fall strictly and end in exactly 0.

``steps`` counts steps, so a grid has ``steps + 1`` levels: ``steps`` from ``sigma_max`` to ``sigma_min``, then 0.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from bottega.errors import ConfigError, InputError, nearest

Grid = Callable[[int, float, float], list[float]]
"""``(steps, sigma_min, sigma_max)`` to noise levels."""


def karras(
    steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> list[float]:
    """Levels evenly spaced in sigma^(1/rho): the larger ``rho``, the more of them at low noise.

    Raises:
        InputError: For ``steps < 1``, unless 0 < sigma_min < sigma_max, or for ``rho`` not positive.

    Source: Karras et al. 2022 (arXiv:2206.00364), equation 5. One step starts at sigma_max.
    """
    if not 0 < rho < math.inf:
        raise InputError(f"rho must be positive and finite, got {rho}")
    return _between(
        steps, sigma_min, sigma_max, lambda sigma: sigma ** (1 / rho), lambda place: place**rho
    )


def exponential(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> list[float]:
    """Levels with a constant ratio: equal steps of ln sigma, that is, of the log signal-to-noise ratio.

    Raises:
        InputError: For ``steps < 1``, or unless 0 < sigma_min < sigma_max.
    """
    return _between(steps, sigma_min, sigma_max, math.log, math.exp)


def log_snr(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> list[float]:
    """Equal steps of time along the cosine log-SNR schedule -2 ln tan(pi t / 2), cut at both ends.

    This is where an Imagen sampler with evenly spaced time stands: few levels at the ends, many in the middle.

    Raises:
        InputError: For ``steps < 1``, or unless 0 < sigma_min < sigma_max.

    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672) as Imagen (arXiv:2205.11487, section 2.2) uses it in continuous
    time; we leave out the small offset s, since the grid is cut at sigma_min anyway.
    """
    return _between(steps, sigma_min, sigma_max, math.atan, math.tan)


def explicit(sigmas: Sequence[float]) -> list[float]:
    """Levels as given, with the closing 0 added where it is missing.

    Raises:
        InputError: Unless they are finite, not negative and strictly falling.
    """
    levels = [float(sigma) for sigma in sigmas]
    if levels and levels[-1] != 0:
        levels.append(0.0)
    return checked(levels)


def checked(sigmas: Sequence[float]) -> list[float]:
    """The levels as a list of floats, or an error if a sampler could not walk along them.

    Raises:
        InputError: Unless there are at least two, all finite, none negative, each below the one before.
    """
    levels = [float(sigma) for sigma in sigmas]
    if len(levels) < 2:
        raise InputError(f"a grid needs at least two noise levels, got {levels}")
    if not all(math.isfinite(sigma) and sigma >= 0 for sigma in levels):
        raise InputError(f"noise levels must be finite and not negative, got {levels}")
    for place, (sigma, after) in enumerate(pairwise(levels)):
        if after >= sigma:
            raise InputError(
                f"noise levels must fall strictly, got {sigma} then {after} at place {place}"
            )
    return levels


def find_grid(name: str) -> Grid:
    """The grid of that name.

    Raises:
        ConfigError: Naming the nearest one.
    """
    if name not in GRIDS:
        raise ConfigError(f"grid {name!r} is not known{nearest(name, GRIDS)}")
    return GRIDS[name]


def _between(
    steps: int,
    sigma_min: float,
    sigma_max: float,
    place_of: Callable[[float], float],
    sigma_of: Callable[[float], float],
) -> list[float]:
    """Levels evenly spaced in ``place_of(sigma)``, both ends exact."""
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise InputError(f"a grid needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    first, last = place_of(sigma_max), place_of(sigma_min)
    inner = [sigma_of(first + k / (steps - 1) * (last - first)) for k in range(1, steps - 1)]
    ends = [sigma_min] if steps > 1 else []
    return checked([sigma_max, *inner, *ends, 0.0])


GRIDS: dict[str, Grid] = {"karras": karras, "exponential": exponential, "log_snr": log_snr}
"""Every grid that can be asked for by name."""

__all__ = ["GRIDS", "Grid", "checked", "explicit", "exponential", "find_grid", "karras", "log_snr"]
