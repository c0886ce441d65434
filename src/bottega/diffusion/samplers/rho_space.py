"""DEIS in rho, the solvers of eDiff-I: the ODE dx/dsigma = eps(x, sigma) with eps = (x - D) / sigma kept as it is.

In a variance-exploding walk, DEIS's rho is sigma itself.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from bottega.diffusion.denoiser import Denoise, Noise, Step
from bottega.diffusion.grids import checked
from bottega.errors import InputError
from bottega.shapes import Images

Slope = tuple[float, Images]
"""A noise level, and the slope eps found there."""


def deis(
    denoise: Denoise,
    x: Images,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    order: int = 3,
) -> Iterator[Step]:
    """Extend the slope by a polynomial through the last ones: up to third order from one call per step.

    Args:
        denoise: Called once per step.
        x: Start of the walk, already at noise level ``sigmas[0]``.
        sigmas: Strictly falling noise levels; end on 0 for a clean image.
        noise: Never drawn, since nothing here is random; every sampler is called alike.
        order: How many slopes to use, 1 to 3; 1 is `euler`.

    Yields:
        The state after each of the ``len(sigmas) - 1`` steps.

    Raises:
        InputError: When ``sigmas`` do not fall, or ``order`` is not 1, 2 or 3.

    Source: Zhang & Chen 2022 (arXiv:2204.13902), rhoAB-DEIS. eDiff-I (arXiv:2211.01324, Table 7) names DEIS with
    3-kutta and an order; how they combine is not said. The first steps have fewer slopes to go by, which costs nothing
    measurable when starting from strong noise, where the slope hardly changes. The step onto 0 is first order.
    """
    if order not in (1, 2, 3):
        raise InputError(f"order must be 1, 2 or 3, got {order}")
    slopes: list[Slope] = []
    for sigma, sigma_next in pairwise(checked(sigmas)):
        denoised = denoise(x, x.new_full((len(x),), sigma))
        if sigma_next == 0:
            yield Step(sigma_next, denoised, denoised)
            return
        slopes = [*slopes, (sigma, (x - denoised) / sigma)][-order:]
        weights = _adams_weights([level for level, _ in slopes], sigma, sigma_next)
        for weight, (_, slope) in zip(weights, slopes, strict=True):
            x = x + weight * slope
        yield Step(sigma_next, x, denoised)


def deis_kutta(
    denoise: Denoise, x: Images, sigmas: Sequence[float], *, noise: Noise | None = None
) -> Iterator[Step]:
    """Kutta's third-order method in rho: three calls per step, no memory.

    Args:
        denoise: Called three times per step, once on a step that lands on sigma = 0.
        x: Start of the walk, already at noise level ``sigmas[0]``.
        sigmas: Strictly falling noise levels; end on 0 for a clean image.
        noise: Never drawn, since nothing here is random; every sampler is called alike.

    Yields:
        The state after each of the ``len(sigmas) - 1`` steps.

    Raises:
        InputError: When ``sigmas`` do not fall.

    Source: Zhang & Chen 2022 (arXiv:2204.13902), rhoRK-DEIS with Kutta's weights.
    """
    for sigma, sigma_next in pairwise(checked(sigmas)):
        denoised = denoise(x, x.new_full((len(x),), sigma))
        if sigma_next == 0:
            yield Step(sigma_next, denoised, denoised)
            return
        step = sigma_next - sigma
        middle = sigma + step / 2
        slope = (x - denoised) / sigma
        halfway = x + step / 2 * slope
        denoised = denoise(halfway, x.new_full((len(x),), middle))
        slope_middle = (halfway - denoised) / middle
        ahead = x + step * (2 * slope_middle - slope)
        denoised = denoise(ahead, x.new_full((len(x),), sigma_next))
        slope_ahead = (ahead - denoised) / sigma_next
        x = x + step / 6 * (slope + 4 * slope_middle + slope_ahead)
        yield Step(sigma_next, x, denoised)


def _adams_weights(levels: list[float], start: float, end: float) -> list[float]:
    """Integrals from ``start`` to ``end`` of the Lagrange polynomials through ``levels``."""
    half, centre = (end - start) / 2, (end + start) / 2
    points = [centre - half / math.sqrt(3), centre + half / math.sqrt(3)]  # Gauss: exact to cubics
    return [
        half * sum(_lagrange(levels, which, point) for point in points)
        for which in range(len(levels))
    ]


def _lagrange(levels: list[float], which: int, point: float) -> float:
    """The polynomial that is 1 at ``levels[which]`` and 0 at the others, at ``point``."""
    factors = [
        (point - level) / (levels[which] - level)
        for other, level in enumerate(levels)
        if other != which
    ]
    return math.prod(factors, start=1.0)


__all__ = ["deis", "deis_kutta"]
