"""DPM-Solver++: multistep solvers that are exact where the denoised estimate is linear in ln sigma."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from bottega.diffusion.denoiser import Denoise, Noise, Step
from bottega.diffusion.grids import checked
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


__all__ = ["dpmpp_2m"]
