"""Samplers: generators that walk a picture from noise to nothing but picture, one `Step` at a time.

All are called alike, ``sampler(denoise, x, sigmas, noise=...)``, and set no gradient mode: whoever paints does.
"""

from collections.abc import Callable, Iterator

from bottega.diffusion.denoiser import Step
from bottega.diffusion.samplers.ancestral import ddim as ddim
from bottega.diffusion.samplers.ancestral import ddpm as ddpm
from bottega.diffusion.samplers.ancestral import euler_ancestral as euler_ancestral
from bottega.diffusion.samplers.ancestral import imagen_ancestral as imagen_ancestral
from bottega.diffusion.samplers.dpm_solver import dpmpp_2m as dpmpp_2m
from bottega.diffusion.samplers.dpm_solver import dpmpp_2m_sde as dpmpp_2m_sde
from bottega.diffusion.samplers.rho_space import deis as deis
from bottega.diffusion.samplers.rho_space import deis_kutta as deis_kutta
from bottega.diffusion.samplers.runge_kutta import euler as euler
from bottega.diffusion.samplers.runge_kutta import heun as heun
from bottega.errors import ConfigError, nearest

Sampler = Callable[..., Iterator[Step]]
"""``(denoise, x, sigmas, *, noise=None, **own options)``."""

SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "deis": deis,
    "deis_kutta": deis_kutta,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "imagen_ancestral": imagen_ancestral,
}
"""Every sampler that can be asked for by name."""


def find_sampler(name: str) -> Sampler:
    """The sampler of that name.

    Raises:
        ConfigError: Naming the nearest one.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"sampler {name!r} is not known{nearest(name, SAMPLERS)}")
    return SAMPLERS[name]


__all__ = [
    "SAMPLERS",
    "Sampler",
    "ddim",
    "ddpm",
    "deis",
    "deis_kutta",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "euler",
    "euler_ancestral",
    "find_sampler",
    "heun",
    "imagen_ancestral",
]
