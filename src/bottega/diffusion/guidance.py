"""Guidance: pushing a denoiser away from what it would paint otherwise.

One convention everywhere, Imagen's: the guided estimate is ``uncond + scale * (cond - uncond)``, so that scale 1 is
off, 0 paints unconditionally, and eDiff-I's and GLIDE's "0 = off" is our 1.
"""

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from bottega.diffusion.denoiser import Denoise, per_image
from bottega.errors import InputError
from bottega.shapes import Images, Sigmas

Interval = tuple[float, float]
"""The noise levels in which guidance acts: low < sigma <= high."""


def guided(
    cond: Denoise, uncond: Denoise, scale: float, interval: Interval | None = None
) -> Denoise:
    """Classifier-free guidance from two denoisers.

    Args:
        cond: Told the prompt.
        uncond: Told nothing, or told a negative prompt to keep away from.
        scale: 1 is off: ``uncond`` is then never called. 0 is ``uncond`` alone.
        interval: Noise levels in which to guide; outside, ``cond`` alone is called.

    Raises:
        InputError: When ``scale`` is not finite, or the interval is empty.

    Source: Ho & Salimans 2022 (arXiv:2207.12598) in the form of Imagen (arXiv:2205.11487, equation 2), here on the
    denoised estimate, which is the same since it is linear in eps; the interval is Kynkaanniemi et al. 2024
    (arXiv:2404.07724).
    """
    _check(scale, interval)
    if scale == 1:
        return cond

    def denoise(x: Images, sigma: Sigmas) -> Images:
        inside = _inside(sigma, interval)
        if not inside.any():
            return cond(x, sigma)
        if scale == 0 and inside.all():
            return uncond(x, sigma)
        return _mixed(cond(x, sigma), uncond(x, sigma), scale, inside)

    return denoise


def guided_jointly(
    both: Denoise, cond: Denoise, scale: float, interval: Interval | None = None
) -> Denoise:
    """The same as `guided`, with one network call of twice the batch where it guides.

    Args:
        both: Called with the pictures twice, ``[x; x]``: the first half is told the prompt, the second is not.
        cond: Told the prompt; called where guidance is off.
        scale: 1 is off.
        interval: Noise levels in which to guide.

    Raises:
        InputError: When ``scale`` is not finite, or the interval is empty.
    """
    _check(scale, interval)
    if scale == 1:
        return cond

    def denoise(x: Images, sigma: Sigmas) -> Images:
        inside = _inside(sigma, interval)
        if not inside.any():
            return cond(x, sigma)
        with_prompt, without = both(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
        return _mixed(with_prompt, without, scale, inside)

    return denoise


def autoguided(
    denoise: Denoise, weak: Denoise, scale: float, interval: Interval | None = None
) -> Denoise:
    """Guide a denoiser away from a weaker version of itself (smaller, or trained less), with the same prompt.

    ``denoise`` may itself be guided: the wrappers nest.

    Raises:
        InputError: When ``scale`` is not finite, or the interval is empty.

    Source: Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself" (arXiv:2406.02507), equation 3.
    """
    return guided(denoise, weak, scale, interval)


def _mixed(cond: Images, uncond: Images, scale: float, inside: Bool[Tensor, "batch"]) -> Images:
    mixed = uncond + scale * (cond - uncond)
    return torch.where(per_image(inside), mixed, cond)


def _inside(sigma: Sigmas, interval: Interval | None) -> Bool[Tensor, "batch"]:
    if interval is None:
        return torch.ones_like(sigma, dtype=torch.bool)
    low, high = interval
    return (sigma > low) & (sigma <= high)


def _check(scale: float, interval: Interval | None) -> None:
    if not math.isfinite(scale):
        raise InputError(f"guidance_scale must be finite, got {scale}; 1 turns guidance off")
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise InputError(f"a guidance interval needs 0 <= low < high, got {interval}")


__all__ = ["Interval", "autoguided", "guided", "guided_jointly"]
