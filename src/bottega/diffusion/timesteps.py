"""What a network trained with timesteps was told about noise: its betas, what its output means, where its steps lie."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import nn

from bottega.diffusion.grids import explicit
from bottega.diffusion.noise import LogNormal
from bottega.diffusion.parameterization import Prediction, TimestepDenoiser
from bottega.diffusion.schedules import (
    Discrete,
    linear_betas,
    scaled_linear_betas,
    squared_cosine_capped,
)
from bottega.errors import ConfigError, InputError, nearest

Betas = Literal["linear", "scaled_linear", "squared_cosine"]
"""How the variance that a step adds grows."""

Spacing = Literal["leading", "linspace", "trailing"]
"""Which whole timesteps a walk visits: evenly from 0 up, evenly with both ends, or evenly from the last down."""

SPACINGS: tuple[str, ...] = get_args(Spacing)


@dataclass(frozen=True, kw_only=True)
class TimestepPlan:
    """Everything that turns a raw network of the timestep tradition into a ``Denoise``.

    ``table`` holds the betas themselves where no formula gives them, and the other three are then not read.
    ``steps_offset`` shifts the timesteps of the leading spacing up, so that a walk ends above timestep 0. With
    ``learned_variance`` the network gives as many channels again, which say how much noise each step takes away.

    Its training drew whole timesteps evenly, which makes it a distribution of noise like `LogNormal`: `quantile` and
    `cdf` cut it into the parts of expert denoisers, between two timesteps, so that each timestep is in one part.

    Source: the settings of the schedulers of the diffusers library, by their meaning; the spacings are Table 2 of Lin
    et al. 2023 (arXiv:2305.08891).
    """

    betas: Betas = "linear"
    num_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    table: tuple[float, ...] | None = None
    prediction: Prediction = "eps"
    zero_terminal_snr: bool = False
    steps_offset: int = 0
    learned_variance: bool = False

    def __post_init__(self) -> None:
        if self.prediction == "eps" and self.zero_terminal_snr:
            raise ConfigError(
                "an eps network says nothing about the picture where no signal is left: "
                "zero_terminal_snr needs the prediction v or x0"
            )
        if not 0 <= self.steps_offset < self.num_timesteps:
            raise ConfigError(
                f"steps_offset must be in 0..{self.num_timesteps - 1}, got {self.steps_offset}"
            )

    @cached_property
    def schedule(self) -> Discrete:
        """The noise level at every timestep.

        Raises:
            ConfigError: When the betas make no schedule.
        """
        schedule = self._plain()
        return schedule.zero_terminal_snr() if self.zero_terminal_snr else schedule

    def _plain(self) -> Discrete:
        if self.table is not None:
            return Discrete.from_betas(self.table)
        match self.betas:
            case "linear":
                return linear_betas(self.num_timesteps, self.beta_start, self.beta_end)
            case "scaled_linear":
                return scaled_linear_betas(self.num_timesteps, self.beta_start, self.beta_end)
            case "squared_cosine":
                return squared_cosine_capped(self.num_timesteps)

    def denoiser(self, network: nn.Module) -> TimestepDenoiser:
        """The network as a ``Denoise``."""
        return TimestepDenoiser(network, self.schedule, self.prediction)

    def quantile(self, u: float) -> float:
        """The sigma below which the share of timesteps nearest to ``u`` lies; 0 and infinite at the ends.

        In ln sigma it is halfway between two timesteps.
        """
        count = len(self.schedule.alphas_bar)
        first = self._first_timestep(u)
        if first in (0, count):
            return 0.0 if first == 0 else math.inf
        return math.sqrt(self.schedule.sigma(first - 1) * self.schedule.sigma(first))

    def cdf(self, sigma: float) -> float:
        """The share of timesteps whose noise, as float32, is weaker than ``sigma``."""
        return bisect_left(self._float32_sigmas, sigma) / len(self._float32_sigmas)

    def timesteps_within(self, intervals: Sequence[tuple[float, float]]) -> list[int]:
        """The whole timesteps of shares of the noise, as a network called at their noise levels would be routed."""
        cuts = [(self._first_timestep(low), self._first_timestep(high)) for low, high in intervals]
        return [timestep for low, high in cuts for timestep in range(low, high)]

    def _first_timestep(self, u: float) -> int:
        """The first timestep above the share ``u``; halves are rounded up, whoever asks."""
        return math.floor(u * len(self.schedule.alphas_bar) + 0.5)

    @cached_property
    def _float32_sigmas(self) -> list[float]:
        count = len(self.schedule.alphas_bar)
        exact = torch.tensor([self.schedule.sigma(t) for t in range(count)], dtype=torch.float64)
        return exact.float().tolist()

    def whole_timesteps(self, steps: int, spacing: str) -> list[int]:
        """The whole timesteps of a walk, falling.

        Raises:
            InputError: For more steps than there are timesteps.
            ConfigError: For an unknown spacing.
        """
        count = len(self.schedule.alphas_bar)
        if not 1 <= steps <= count:
            raise InputError(f"steps must be in 1..{count} along whole timesteps, got {steps}")
        match spacing:
            case "trailing":
                return [round(count - k * count / steps) - 1 for k in range(steps)]
            case "leading":
                found = [k * (count // steps) + self.steps_offset for k in reversed(range(steps))]
                if found[0] >= count:
                    raise InputError(
                        f"{steps} steps shifted by {self.steps_offset} leave the {count} timesteps; take fewer"
                    )
                return found
            case "linspace":
                last = max(steps - 1, 1)
                return [round((count - 1) * k / last) for k in reversed(range(steps))]
            case _:
                raise ConfigError(f"spacing {spacing!r} is not known{nearest(spacing, SPACINGS)}")

    def sigmas(self, steps: int, spacing: str) -> list[float]:
        """The noise levels of `whole_timesteps`, then 0."""
        return explicit([self.schedule.sigma(t) for t in self.whole_timesteps(steps, spacing)])


TrainingNoise = LogNormal | TimestepPlan
"""The noise that a network was trained on, as a distribution that can be cut by probability."""

__all__ = ["SPACINGS", "Betas", "Spacing", "TimestepPlan", "TrainingNoise"]
