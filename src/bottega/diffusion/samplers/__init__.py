"""Samplers: generators that walk a picture from noise to nothing but picture, one `Step` at a time.

All are called alike, ``sampler(denoise, x, sigmas, noise=...)``, and set no gradient mode: whoever paints does.
"""

from collections.abc import Callable, Iterator

from bottega.diffusion.denoiser import Step
from bottega.diffusion.samplers.dpm_solver import dpmpp_2m as dpmpp_2m
from bottega.diffusion.samplers.runge_kutta import euler as euler
from bottega.diffusion.samplers.runge_kutta import heun as heun
from bottega.errors import ConfigError, nearest

Sampler = Callable[..., Iterator[Step]]
"""``(denoise, x, sigmas, *, noise=None, **own options)``."""

SAMPLERS: dict[str, Sampler] = {"dpmpp_2m": dpmpp_2m, "euler": euler, "heun": heun}
"""Every sampler that can be asked for by name."""


def find_sampler(name: str) -> Sampler:
    """The sampler of that name.

    Raises:
        ConfigError: Naming the nearest one.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"sampler {name!r} is not known{nearest(name, SAMPLERS)}")
    return SAMPLERS[name]


__all__ = ["SAMPLERS", "Sampler", "dpmpp_2m", "euler", "find_sampler", "heun"]
