"""DPM-Solver++: multistep solvers that are exact where the denoised estimate is linear in ln sigma."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from bottega.diffusion.denoiser import Denoise, Noise, Step
from bottega.diffusion.grids import checked
from bottega.diffusion.samplers.runge_kutta import draw
from bottega.errors import InputError
from bottega.shapes import Images


def dpmpp_2m(
    denoise: Denoise, x: Images, sigmas: Sequence[float], *, noise: Noise | None = None
) -> Iterator[Step]:
    """Second order from one call per step, by remembering the estimate before: the default.

    Args:
        denoise: Called once per step.
        x: Start of the walk, already at noise level ``sigmas[0]``.
        sigmas: Strictly falling noise levels; end on 0 for a clean image.
        noise: Never drawn, since nothing here is random; every sampler is called alike.

    Yields:
        The state after each of the ``len(sigmas) - 1`` steps.

    Raises:
        InputError: When ``sigmas`` do not fall.

    Source: Lu et al. 2022 (arXiv:2211.01095), Algorithm 2 with alpha = 1; the first step and one that lands on 0 are
    first order.
    """
    before: Images | None = None
    step_before = 0.0
    for sigma, sigma_next in pairwise(checked(sigmas)):
        denoised = denoise(x, x.new_full((len(x),), sigma))
        if sigma_next == 0:
            yield Step(sigma_next, denoised, denoised)
            return
        step = math.log(sigma / sigma_next)
        target = denoised
        if before is not None:
            target = denoised + step / (2 * step_before) * (denoised - before)
        x = target + (sigma_next / sigma) * (x - target)
        before, step_before = denoised, step
        yield Step(sigma_next, x, denoised)


def dpmpp_2m_sde(
    denoise: Denoise,
    x: Images,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    eta: float = 1.0,
) -> Iterator[Step]:
    """The same memory for the stochastic equation: fresh noise at every step forgives a network its errors.

    Args:
        denoise: Called once per step.
        x: Start of the walk, already at noise level ``sigmas[0]``.
        sigmas: Strictly falling noise levels; end on 0 for a clean image.
        noise: Drawn once per step that does not land on 0; never at ``eta`` 0.
        eta: 1 is the reverse SDE, 0 the probability-flow ODE (then this is `dpmpp_2m`).

    Yields:
        The state after each of the ``len(sigmas) - 1`` steps.

    Raises:
        InputError: When ``sigmas`` do not fall, ``eta`` is negative, or noise is missing.

    Source: Lu et al. 2022 (arXiv:2211.01095), SDE-DPM-Solver++(2M) with alpha = 1, in the midpoint form; eta as in the
    k-diffusion library.
    """
    if not 0 <= eta < math.inf:
        raise InputError(f"eta must be finite and not negative, got {eta}")
    before: Images | None = None
    step_before = 0.0
    for sigma, sigma_next in pairwise(checked(sigmas)):
        denoised = denoise(x, x.new_full((len(x),), sigma))
        if sigma_next == 0:
            yield Step(sigma_next, denoised, denoised)
            return
        step = math.log(sigma / sigma_next)
        target = denoised
        if before is not None:
            target = denoised + step / (2 * step_before) * (denoised - before)
        x = target + math.exp(-(1 + eta) * step) * (x - target)
        if eta > 0:
            fresh = sigma_next * math.sqrt(-math.expm1(-2 * eta * step))
            x = x + fresh * draw(noise, "eta above 0")
        before, step_before = denoised, step
        yield Step(sigma_next, x, denoised)


__all__ = ["dpmpp_2m", "dpmpp_2m_sde"]
