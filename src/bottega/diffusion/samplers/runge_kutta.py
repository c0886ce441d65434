"""One-step solvers of the probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from bottega.diffusion.denoiser import Denoise, Noise, Step
from bottega.diffusion.grids import checked
from bottega.errors import InputError
from bottega.shapes import Images


def euler(
    denoise: Denoise, x: Images, sigmas: Sequence[float], *, noise: Noise | None = None
) -> Iterator[Step]:
    """Walk straight along the slope: first order, one call per step.

    Args:
        denoise: Called once per step.
        x: Start of the walk, already at noise level ``sigmas[0]``.
        sigmas: Strictly falling noise levels; end on 0 for a clean image.
        noise: Never drawn, since nothing here is random; every sampler is called alike.

    Yields:
        The state after each of the ``len(sigmas) - 1`` steps.

    Raises:
        InputError: When ``sigmas`` do not fall.

    Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 1 without its correction.
    """
    for sigma, sigma_next in pairwise(checked(sigmas)):
        denoised = denoise(x, x.new_full((len(x),), sigma))
        x = denoised + (sigma_next / sigma) * (x - denoised)
        yield Step(sigma_next, x, denoised)


def heun(
    denoise: Denoise,
    x: Images,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    churn: float = 0.0,
    churn_sigma_min: float = 0.0,
    churn_sigma_max: float = math.inf,
    churn_noise: float = 1.0,
) -> Iterator[Step]:
    """Walk along the slope, look at the slope there, and take the mean of both: second order.

    Args:
        denoise: Called twice per step, once on a step that lands on sigma = 0.
        x: Start of the walk, already at noise level ``sigmas[0]``.
        sigmas: Strictly falling noise levels; end on 0 for a clean image.
        noise: Drawn once per step that churns; needed only when ``churn`` is not 0.
        churn: How much fresh noise to add over the whole walk before stepping (EDM's S_churn).
        churn_sigma_min: Churn only from this noise level ...
        churn_sigma_max: ... to this one (EDM's S_tmin and S_tmax).
        churn_noise: Standard deviation of the fresh noise (EDM's S_noise).

    Yields:
        The state after each of the ``len(sigmas) - 1`` steps.

    Raises:
        InputError: When ``sigmas`` do not fall, a churn setting makes no sense, or churn is asked for without noise.

    Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 2, and Algorithm 1 at churn 0.
    """
    levels = checked(sigmas)
    if not 0 <= churn < math.inf:
        raise InputError(f"churn must be finite and not negative, got {churn}")
    if not 0 <= churn_noise < math.inf:
        raise InputError(f"churn_noise must be finite and not negative, got {churn_noise}")
    if not 0 <= churn_sigma_min <= churn_sigma_max:
        raise InputError(
            "churn needs 0 <= churn_sigma_min <= churn_sigma_max, got "
            f"{churn_sigma_min} and {churn_sigma_max}"
        )
    gain = min(churn / (len(levels) - 1), math.sqrt(2) - 1)
    for sigma, sigma_next in pairwise(levels):
        if gain > 0 and churn_sigma_min <= sigma <= churn_sigma_max:
            raised = sigma * (1 + gain)
            x = x + math.sqrt(raised**2 - sigma**2) * churn_noise * draw(noise, "churn")
            sigma = raised
        denoised = denoise(x, x.new_full((len(x),), sigma))
        if sigma_next == 0:  # the slope is 0/0 there, so the last step stays first order
            yield Step(sigma_next, denoised, denoised)
            return
        slope = (x - denoised) / sigma
        ahead = x + (sigma_next - sigma) * slope
        denoised = denoise(ahead, x.new_full((len(x),), sigma_next))
        slope = (slope + (ahead - denoised) / sigma_next) / 2
        x = x + (sigma_next - sigma) * slope
        yield Step(sigma_next, x, denoised)


def draw(noise: Noise | None, why: str) -> Images:
    """The next draw, or an error that says what needs it."""
    if noise is None:
        raise InputError(f"{why} needs noise: pass noise=, a function that draws it")
    return noise()


__all__ = ["draw", "euler", "heun"]
