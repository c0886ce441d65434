"""Variance-preserving noise schedules: which sigma a timestep of the other tradition means, and back.

A schedule gives abar, the share of signal in the variance, at each timestep; sigma = sqrt((1 - abar) / abar).
Everything is computed in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor

from bottega.diffusion.grids import explicit
from bottega.errors import ConfigError, InputError
from bottega.shapes import Sigmas

LEAST_SIGNAL = 2.0**-24
"""Where a schedule that ends without any signal ends instead, so that its last sigma is finite (4096)."""

MAX_TIMESTEPS = 100_000
"""More timesteps than this are taken for a mistake."""


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """The cosine schedule in continuous time: abar(t) = cos^2(pi/2 (t + s) / (1 + s)), t in [0, 1].

    ``t_max`` keeps away from t = 1, where abar is 0. ``normalized`` divides by abar(0), so that t = 0 has no noise at
    all; without it sigma(0) is 0.0125.

    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), equation 17, which normalizes; Imagen (arXiv:2205.11487) names
    this schedule, and its public re-implementations do not normalize.
    """

    s: float = 0.008
    t_max: float = 0.999
    normalized: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.s < math.inf:
            raise ConfigError(f"s must be finite and not negative, got {self.s}")
        if not 0 < self.t_max < 1:
            raise ConfigError(f"t_max must be between 0 and 1, got {self.t_max}")

    @property
    def sigma_min(self) -> float:
        """The noise level at t = 0."""
        return self.sigma(0.0)

    @property
    def sigma_max(self) -> float:
        """The noise level at ``t_max``."""
        return self.sigma(self.t_max)

    @overload
    def sigma(self, t: float) -> float: ...
    @overload
    def sigma(self, t: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]: ...
    def sigma(self, t: float | Float[Tensor, "*any"]) -> float | Float[Tensor, "*any"]:
        """The noise level at time ``t``, also beyond ``t_max``."""
        if not isinstance(t, Tensor):
            return float(self.sigma(torch.tensor(t, dtype=torch.float64)))
        angle = math.pi / 2 * (t.double() + self.s) / (1 + self.s)
        return (self._start / angle.cos().square() - 1).clamp(min=0).sqrt()

    def timestep(self, sigma: Sigmas) -> Sigmas:
        """The time at which the schedule has this noise level, within [0, t_max]."""
        share = self._start / (1 + sigma.double().square())
        t = share.sqrt().acos() * (2 / math.pi) * (1 + self.s) - self.s
        return t.clamp(0, self.t_max).float()

    def sigmas(self, steps: int) -> list[float]:
        """A grid evenly spaced in time, as Imagen's samplers use."""
        return explicit([self.sigma(t) for t in _times(steps, self.t_max)])

    @property
    def _start(self) -> float:
        if not self.normalized:
            return 1.0
        return (
            float(torch.tensor(math.pi / 2 * self.s / (1 + self.s), dtype=torch.float64).cos()) ** 2
        )


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Linearly rising betas in continuous time: abar(t) = exp(-(b0 t + (b1 - b0) t^2 / 2)), t in [0, 1].

    Source: the integral of the 1000-step schedule from 1e-4 to 0.02 (Ho et al. 2020, arXiv:2006.11239), which Imagen
    uses for its 1024-pixel stage; its public re-implementations write exp(-(1e-4 + 10 t^2)), which differs little.
    """

    beta_start: float = 0.1
    beta_end: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_start < self.beta_end < math.inf:
            raise ConfigError(
                f"betas need 0 < beta_start < beta_end, got {self.beta_start} and {self.beta_end}"
            )

    @property
    def sigma_min(self) -> float:
        """The noise level at t = 0: none."""
        return 0.0

    @property
    def sigma_max(self) -> float:
        """The noise level at t = 1."""
        return self.sigma(1.0)

    def sigma(self, t: float) -> float:
        """The noise level at time ``t``."""
        return math.sqrt(
            math.expm1(self.beta_start * t + (self.beta_end - self.beta_start) * t * t / 2)
        )

    def timestep(self, sigma: Sigmas) -> Sigmas:
        """The time at which the schedule has this noise level, within [0, 1]."""
        spent = sigma.double().square().log1p()
        rise = self.beta_end - self.beta_start
        # the root of rise/2 t^2 + b0 t = spent, written so that nothing cancels near t = 0
        t = 2 * spent / (self.beta_start + (self.beta_start**2 + 2 * rise * spent).sqrt())
        return t.clamp(0, 1).float()

    def sigmas(self, steps: int) -> list[float]:
        """A grid evenly spaced in time, as Imagen's samplers use."""
        return explicit([self.sigma(t) for t in _times(steps, 1.0)])


@dataclass(frozen=True, eq=False)
class Discrete:
    """A table of abar for timesteps 0, 1, 2, ...; between them ln sigma is linear in the timestep.

    A last abar of 0 becomes `LEAST_SIGNAL`.

    Raises:
        ConfigError: Unless abar falls strictly, from below 1 to 0 or more.
    """

    alphas_bar: tuple[float, ...]

    def __post_init__(self) -> None:
        table = self.alphas_bar
        if len(table) < 2:
            raise ConfigError(f"a schedule needs at least two timesteps, got {len(table)}")
        floored = (*table[:-1], table[-1] if table[-1] != 0 else LEAST_SIGNAL)
        falls = all(after < before for before, after in pairwise(floored))
        if not (falls and floored[-1] > 0 and floored[0] < 1):
            raise ConfigError("alphas_bar must fall strictly, from below 1 to 0 or more")
        object.__setattr__(self, "alphas_bar", floored)

    @classmethod
    def from_betas(cls, betas: Sequence[float]) -> "Discrete":
        """The schedule whose step ``t`` adds a variance of ``betas[t]``."""
        steps = 1 - torch.tensor(betas, dtype=torch.float64)
        return cls(tuple(steps.cumprod(0).tolist()))

    @property
    def sigma_min(self) -> float:
        """The noise level at timestep 0."""
        return self.sigma(0)

    @property
    def sigma_max(self) -> float:
        """The noise level at the last timestep."""
        return self.sigma(len(self.alphas_bar) - 1)

    def sigma(self, timestep: int) -> float:
        """The noise level at a whole timestep."""
        share = self.alphas_bar[timestep]
        return math.sqrt((1 - share) / share)

    def timestep(self, sigma: Sigmas) -> Sigmas:
        """The timestep of each noise level, between whole ones where need be."""
        table = self._log_sigmas.to(sigma.device)
        wanted = sigma.double().log().clamp(table[0], table[-1])
        above = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        return (above - 1 + (wanted - low) / (high - low)).float()

    def sigmas(self, steps: int) -> list[float]:
        """A grid evenly spaced in whole timesteps, from the last one down (diffusers' "trailing" spacing)."""
        count = len(self.alphas_bar)
        if not 1 <= steps <= count:
            raise InputError(f"steps must be in 1..{count}, got {steps}")
        return explicit([self.sigma(round(count - k * count / steps) - 1) for k in range(steps)])

    def zero_terminal_snr(self) -> "Discrete":
        """The same schedule stretched so that its last timestep holds no signal.

        Source: Lin et al. 2023 (arXiv:2305.08891), Algorithm 1; the last abar is then `LEAST_SIGNAL` instead of 0, so
        that its sigma is finite.
        """
        root = torch.tensor(self.alphas_bar, dtype=torch.float64).sqrt()
        stretched = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        return Discrete(tuple(stretched.square().tolist()))

    @property
    def ends_without_signal(self) -> bool:
        """Whether the last timestep is noise alone, of which an eps network says nothing."""
        return self.alphas_bar[-1] == LEAST_SIGNAL

    @cached_property
    def _log_sigmas(self) -> Float[Tensor, "timesteps"]:
        share = torch.tensor(self.alphas_bar, dtype=torch.float64)
        return ((1 - share).log() - share.log()) / 2


Schedule = Cosine | Linear | Discrete
"""How a network's timesteps and noise levels correspond.

Each has ``sigma_min``, ``sigma_max``, ``timestep(sigma)`` in float32, and ``sigmas(steps)``, an even grid down to 0.
"""


def linear_betas(timesteps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Discrete:
    """DDPM's schedule: betas rise linearly.

    Source: Ho et al. 2020 (arXiv:2006.11239), section 4.
    """
    return Discrete.from_betas(_ramp(start, end, timesteps))


def scaled_linear_betas(
    timesteps: int = 1000, start: float = 0.00085, end: float = 0.012
) -> Discrete:
    """Latent diffusion's schedule: the square roots of the betas rise linearly.

    Source: Rombach et al. 2022 (arXiv:2112.10752), as their code and diffusers' ``scaled_linear`` have it.
    """
    _check_betas(start, end)
    return Discrete.from_betas([root**2 for root in _ramp(start**0.5, end**0.5, timesteps)])


def squared_cosine_capped(timesteps: int = 1000, max_beta: float = 0.999) -> Discrete:
    """The cosine schedule in whole steps, with betas capped: DeepFloyd IF's and diffusers' ``squaredcos_cap_v2``.

    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), section 3.2.
    """
    _check_table(timesteps)
    cosine = [
        math.cos((k / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(timesteps + 1)
    ]
    betas = [min(1 - cosine[k + 1] / cosine[k], max_beta) for k in range(timesteps)]
    return Discrete.from_betas(betas)


def _ramp(start: float, end: float, count: int) -> list[float]:
    _check_table(count)
    _check_betas(start, end)
    return [start + (end - start) * k / (count - 1) for k in range(count)]


def _check_betas(start: float, end: float) -> None:
    if not 0 < start <= end < 1:
        raise ConfigError(f"betas need 0 < start <= end < 1, got {start} and {end}")


def _check_table(timesteps: int) -> None:
    if not 2 <= timesteps <= MAX_TIMESTEPS:
        raise ConfigError(
            f"a schedule needs at least two timesteps, and at most {MAX_TIMESTEPS:,}, got {timesteps}"
        )


def _times(steps: int, end: float) -> list[float]:
    """``steps`` evenly spaced times that start at ``end``; the next one would be 0."""
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    return [end * (1 - k / steps) for k in range(steps)]


__all__ = [
    "LEAST_SIGNAL",
    "Cosine",
    "Discrete",
    "Linear",
    "Schedule",
    "linear_betas",
    "scaled_linear_betas",
    "squared_cosine_capped",
]
