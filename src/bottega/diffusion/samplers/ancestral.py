"""Samplers that replace some of the noise at every step by fresh noise.

The variance-preserving steps of DDPM, DDIM and Imagen are written here in sigma alone, which loses nothing: with
``z = x / sqrt(1 + sigma^2)`` and ``abar = 1 / (1 + sigma^2)`` they are the same formulas.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from bottega.diffusion.denoiser import Denoise, Noise, Step
from bottega.diffusion.grids import checked
from bottega.diffusion.samplers.runge_kutta import draw
from bottega.errors import InputError
from bottega.shapes import Images


def euler_ancestral(
    denoise: Denoise,
    x: Images,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    eta: float = 1.0,
) -> Iterator[Step]:
    """Step further down than asked, then add fresh noise back up to the level asked for.

    Args:
        denoise: Called once per step.
        x: Start of the walk, already at noise level ``sigmas[0]``.
        sigmas: Strictly falling noise levels; end on 0 for a clean image.
        noise: Drawn once per step that does not land on 0; never at ``eta`` 0.
        eta: 1 replaces as much noise as DDPM does, 0 none (then this is `euler`).

    Yields:
        The state after each of the ``len(sigmas) - 1`` steps.

    Raises:
        InputError: When ``sigmas`` do not fall, ``eta`` is not in [0, 1], or noise is missing.

    Source: Song et al. 2020 (arXiv:2010.02502), equation 16, which in terms of sigma is the ancestral Euler sampler of
    the k-diffusion library; at eta = 1 both are DDPM with the smaller variance.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta must be in [0, 1], got {eta}")
    for sigma, sigma_next in pairwise(checked(sigmas)):
        denoised = denoise(x, x.new_full((len(x),), sigma))
        ratio = sigma_next / sigma
        fresh = eta * sigma_next * math.sqrt(1 - ratio**2)
        kept = math.sqrt(sigma_next**2 - fresh**2)
        x = denoised + (kept / sigma) * (x - denoised)
        if fresh > 0:
            x = x + fresh * draw(noise, "eta above 0")
        yield Step(sigma_next, x, denoised)


def ddim(
    denoise: Denoise,
    x: Images,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    eta: float = 0.0,
) -> Iterator[Step]:
    """DDIM: `euler_ancestral` under its other name, without fresh noise unless ``eta`` asks for it.

    Source: Song et al. 2020 (arXiv:2010.02502), equations 12 and 16; Imagen (arXiv:2205.11487), equation 5.
    """
    yield from euler_ancestral(denoise, x, sigmas, noise=noise, eta=eta)


def imagen_ancestral(
    denoise: Denoise,
    x: Images,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    gamma: float = 0.3,
) -> Iterator[Step]:
    """DDPM's step with a variance between the smallest and the largest that theory allows.

    Args:
        denoise: Called once per step.
        x: Start of the walk, already at noise level ``sigmas[0]``.
        sigmas: Strictly falling noise levels; end on 0 for a clean image.
        noise: Drawn once per step that does not land on 0.
        gamma: 0 is the smaller variance (then this is `euler_ancestral`), 1 the larger.

    Yields:
        The state after each of the ``len(sigmas) - 1`` steps.

    Raises:
        InputError: When ``sigmas`` do not fall, ``gamma`` is not in [0, 1], or noise is missing.

    Source: Imagen (arXiv:2205.11487), Appendix A, equation 6, which leaves gamma open. As in DDPM, the step that lands
    on 0 adds no noise.
    """
    if not 0 <= gamma <= 1:
        raise InputError(f"gamma must be in [0, 1], got {gamma}")
    for sigma, sigma_next in pairwise(checked(sigmas)):
        denoised = denoise(x, x.new_full((len(x),), sigma))
        keep = (sigma_next / sigma) ** 2  # e^(lambda_t - lambda_s)
        x = denoised + keep * (x - denoised)
        if sigma_next > 0:
            small = (1 - keep) * sigma_next**2
            large = (1 - keep) * sigma**2 * (1 + sigma_next**2) / (1 + sigma**2)
            x = x + math.sqrt(small ** (1 - gamma) * large**gamma) * draw(noise, "this sampler")
        yield Step(sigma_next, x, denoised)


def ddpm(
    denoise: Denoise,
    x: Images,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    spread: Callable[[], Images] | None = None,
) -> Iterator[Step]:
    """DDPM's step with the variance that the network itself gives, value by value.

    Args:
        denoise: Called once per step.
        x: Start of the walk, already at noise level ``sigmas[0]``.
        sigmas: Strictly falling noise levels; end on 0 for a clean image.
        noise: Drawn once per step that does not land on 0.
        spread: What the network said at the call before, see `Spread`; None is the smaller variance throughout, and
            then this is `euler_ancestral`.

    Yields:
        The state after each of the ``len(sigmas) - 1`` steps.

    Raises:
        InputError: When ``sigmas`` do not fall, or noise is missing.

    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), equation 15; DeepFloyd IF's networks learned it. As in DDPM, the
    step that lands on 0 adds no noise.
    """
    for sigma, sigma_next in pairwise(checked(sigmas)):
        denoised = denoise(x, x.new_full((len(x),), sigma))
        keep = (sigma_next / sigma) ** 2
        x = denoised + keep * (x - denoised)
        if sigma_next > 0:
            small = (1 - keep) * sigma_next**2
            if spread is None:
                std = math.sqrt(small)
            else:
                # the larger variance over the smaller one, in ln; both are those of `imagen_ancestral`
                ratio = math.log((1 + 1 / sigma_next**2) / (1 + 1 / sigma**2))
                std = (spread().to(x) * (ratio / 4) + (math.log(small) / 2 + ratio / 4)).exp()
            x = x + std * draw(noise, "this sampler")
        yield Step(sigma_next, x, denoised)


__all__ = ["ddim", "ddpm", "euler_ancestral", "imagen_ancestral"]
