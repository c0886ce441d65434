"""How a stage is sampled, as it stands in model folders and in pictures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bottega.diffusion import (
    GRIDS,
    SPACINGS,
    Dynamic,
    Static,
    TrainingNoise,
    find_sampler,
)
from bottega.ensemble import Part, grid_with_steps_per_expert
from bottega.errors import ConfigError, InputError, nearest
from bottega.models.regions import LargestLogit, RegionWeight
from bottega.pipelines import given

_FLOATS = ("guidance_scale", "sigma_min", "sigma_max", "rho", "low_res_sigma", "region_strength")
MAX_STEPS = 10_000
"""More steps than this are taken for a mistake."""


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """How a stage is sampled.

    ``guidance_scale`` 1 is off; ``guidance_interval`` are the noise levels (low, high] in which it acts, None all of
    them. ``rho`` bends the noise levels between ``sigma_min`` and ``sigma_max`` towards the low ones. ``low_res_sigma``
    is the noise put on the picture of the stage before, where there is one. ``grid`` is karras (the only one that reads
    ``rho``), exponential or log_snr, or for a network trained with timesteps leading, linspace or trailing, which are
    whole timesteps of its own and read neither ``sigma_min`` nor ``sigma_max``. ``region_weight`` makes weights of the
    strengths of regions, which ``region_strength`` multiplies. ``steps_per_expert`` divides the ``steps`` of an
    ensemble among its expert denoisers by name; they add up to it, and the levels inside each one's noise go by
    ``rho``.

    Source: the grid is Karras et al. 2022 (arXiv:2206.00364), equation 5; ``low_res_sigma`` is Imagen's augmentation at
    sampling (arXiv:2205.11487, section 2.4), as a sigma instead of a level.
    """

    steps: int = 24
    sampler: str = "dpmpp_2m"
    guidance_scale: float = 3.0
    guidance_interval: tuple[float, float] | None = None
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    thresholding: Static | Dynamic | None = field(default_factory=Dynamic)
    low_res_sigma: float = 0.0
    grid: str = "karras"
    region_weight: RegionWeight = field(default_factory=LargestLogit)
    region_strength: float = 1.0
    steps_per_expert: Mapping[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        self._make_plain()
        find_sampler(self.sampler)
        if self.grid not in (*GRIDS, *SPACINGS):
            raise ConfigError(
                f"grid {self.grid!r} is not known{nearest(self.grid, (*GRIDS, *SPACINGS))}"
            )
        if not 1 <= self.steps <= MAX_STEPS:
            raise ConfigError(f"steps must be between 1 and {MAX_STEPS}, got {self.steps}")
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise ConfigError(
                f"guidance_scale must be a finite number of 0 or more (1 is off), got {self.guidance_scale}"
            )
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ConfigError(
                "the noise levels need 0 < sigma_min < sigma_max, both finite, got "
                f"{self.sigma_min} and {self.sigma_max}"
            )
        if not 0 < self.rho < math.inf:
            raise ConfigError(f"rho must be positive and finite, got {self.rho}")
        if not (math.isfinite(self.low_res_sigma) and self.low_res_sigma >= 0):
            raise ConfigError(
                f"low_res_sigma must be a finite number of 0 or more, got {self.low_res_sigma}"
            )
        if not (math.isfinite(self.region_strength) and self.region_strength >= 0):
            raise ConfigError(
                f"region_strength must be a finite number of 0 or more, got {self.region_strength}"
            )
        interval = self.guidance_interval
        if interval is not None and not 0 <= interval[0] < interval[1] < math.inf:
            raise ConfigError(
                f"guidance_interval needs 0 <= low < high, both finite, got {interval}"
            )

    def _make_plain(self) -> None:
        """Whole numbers where numbers are meant become floats, so that a description reads back as written."""
        try:
            for name in _FLOATS:
                object.__setattr__(self, name, given.number(getattr(self, name), name))
            object.__setattr__(self, "steps", given.whole(self.steps, "steps"))
            if self.guidance_interval is not None:
                ends = given.listed(self.guidance_interval, "the ends of guidance_interval")
                if len(ends) != 2:
                    raise InputError(f"guidance_interval has two ends, got {len(ends)}")
                low, high = (given.number(end, "an end of guidance_interval") for end in ends)
                object.__setattr__(self, "guidance_interval", (low, high))
        except InputError as error:
            raise ConfigError(str(error)) from None


def by_name(settings: Any) -> Mapping[str, StageSettings]:
    """Settings by the name of their stage.

    Raises:
        ConfigError: When they are something else.
    """
    if isinstance(settings, Mapping) and all(
        isinstance(value, StageSettings) for value in settings.values()
    ):
        return settings
    raise ConfigError(f"settings are StageSettings by stage, got {given.shown(settings)}")


def divided_sigmas(
    settings: StageSettings, parts: Mapping[str, Part], noise: TrainingNoise
) -> list[float]:
    """The noise levels of an ensemble's walk with ``settings.steps_per_expert``.

    Raises:
        ConfigError: When they do not add up to ``settings.steps``, or another grid than karras is asked for.
        InputError: When an expert denoiser is missing, unknown, or cannot have so many.
    """
    total = sum(settings.steps_per_expert.values())
    if total != settings.steps:
        raise ConfigError(
            f"steps_per_expert add up to {total}, and steps are {settings.steps}; set steps to {total}"
        )
    if settings.grid != "karras":
        raise ConfigError(f"steps_per_expert go by the grid karras, got {settings.grid}")
    return grid_with_steps_per_expert(
        parts,
        noise,
        settings.steps_per_expert,
        sigma_min=settings.sigma_min,
        sigma_max=settings.sigma_max,
        rho=settings.rho,
    )


__all__ = ["MAX_STEPS", "StageSettings", "by_name", "divided_sigmas"]
