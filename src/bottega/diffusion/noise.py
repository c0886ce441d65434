"""How strong the noise is in training: a log-normal distribution, cut and stratified by probability.

Everything is computed in float64; draws are given out in float32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bottega.errors import ConfigError, InputError
from bottega.shapes import Sigmas

MARGIN = 1e-7
"""Draws keep this far from probability 0 and 1, where the quantile is 0 and infinite."""


@dataclass(frozen=True, kw_only=True)
class LogNormal:
    """Noise levels whose logarithm is Gaussian (EDM's P_mean and P_std).

    Source: Karras et al. 2022 (arXiv:2206.00364), Table 1; the quantiles cut it into eDiff-I's expert intervals
    (arXiv:2211.01324, section 4.1).
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise ConfigError(f"mean must be finite, got {self.mean}")
        if not 0 < self.std < math.inf:
            raise ConfigError(f"std must be positive and finite, got {self.std}")

    @overload
    def quantile(self, u: float) -> float: ...
    @overload
    def quantile(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]: ...
    def quantile(self, u: float | Float[Tensor, "*any"]) -> float | Float[Tensor, "*any"]:
        """The sigma below which a share ``u`` of all training noise lies; 0 at u = 0, infinite at u = 1."""
        if not isinstance(u, Tensor):
            return float(self.quantile(torch.tensor(u, dtype=torch.float64)))
        return torch.exp(self.mean + self.std * torch.special.ndtri(u.double()))

    @overload
    def cdf(self, sigma: float) -> float: ...
    @overload
    def cdf(self, sigma: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]: ...
    def cdf(self, sigma: float | Float[Tensor, "*any"]) -> float | Float[Tensor, "*any"]:
        """The share of all training noise that is weaker than ``sigma``."""
        if not isinstance(sigma, Tensor):
            return float(self.cdf(torch.tensor(sigma, dtype=torch.float64)))
        return torch.special.ndtr((sigma.double().log() - self.mean) / self.std)

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        intervals: Sequence[tuple[float, float]] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> Sigmas:
        """Draw noise levels for ``n`` images, one from each of ``n * world_size`` slices of equal probability.

        Args:
            n: How many images this rank has.
            generator: Gives the place within each slice and the order; each rank has its own. Draws are on its device.
            intervals: Disjoint probability intervals ``(low, high)`` to stay in; None is all of (0, 1). A draw never
                leaves ``[quantile(low), quantile(high))``, not even by rounding to float32.
            rank: Which of the interleaved slices are this rank's: together the ranks cover every slice once.
            world_size: How many ranks there are.

        Raises:
            InputError: When ``n``, ``rank`` or an interval makes no sense.
        """
        pieces = _checked_intervals(intervals)
        device = generator.device
        share = stratified(n, generator, rank=rank, world_size=world_size)
        low, high = torch.tensor(pieces, dtype=torch.float64, device=device).unbind(1)
        mass = high - low
        ends = mass.cumsum(0)
        place = share * ends[-1]
        index = torch.searchsorted(ends, place, right=True).clamp(max=len(pieces) - 1)
        u = low[index] + (place - (ends - mass)[index])
        sigma = self.quantile(u).float()
        return self._kept_inside(sigma, index, pieces)

    def _kept_inside(
        self, sigma: Sigmas, index: Int[Tensor, "batch"], pieces: list[tuple[float, float]]
    ) -> Sigmas:
        """Undo a rounding to float32 that crossed the end of an interval."""
        lows = torch.tensor([float32_from(self.quantile(low)) for low, _ in pieces])
        highs = torch.tensor([_float32_below(self.quantile(high)) for _, high in pieces])
        return sigma.clamp(lows.to(sigma)[index], highs.to(sigma)[index])


def stratified(
    n: int, generator: torch.Generator, *, rank: int = 0, world_size: int = 1
) -> Float[Tensor, "batch"]:
    """Numbers in [0, 1), one from each of this rank's slices, in random order (float64)."""
    if n < 1:
        raise InputError(f"the number of draws must be at least 1, got {n}")
    if not 0 <= rank < world_size:
        raise InputError(f"rank must be in 0..{world_size - 1}, got {rank}")
    device = generator.device
    jitter = torch.rand(n, generator=generator, dtype=torch.float64, device=device)
    slices = torch.randperm(n, generator=generator, device=device) * world_size + rank
    return (slices + jitter) / (n * world_size)


def _checked_intervals(
    intervals: Sequence[tuple[float, float]] | None,
) -> list[tuple[float, float]]:
    """The intervals in order, cut to where quantiles are finite."""
    given = [(0.0, 1.0)] if intervals is None else sorted(intervals)
    if not given:
        raise InputError("intervals must hold at least one (low, high) pair; None means all noise")
    pieces: list[tuple[float, float]] = []
    end = 0.0
    for low, high in given:
        if not 0 <= low < high <= 1:
            raise InputError(f"an interval needs 0 <= low < high <= 1, got ({low}, {high})")
        if low < end:
            raise InputError(f"intervals must not overlap, got {given}")
        end = high
        inside = (max(low, MARGIN), min(high, 1 - MARGIN))
        if inside[0] >= inside[1]:
            raise InputError(f"the interval ({low}, {high}) is too near 0 or 1 to draw from")
        pieces.append(inside)
    return pieces


def float32_from(value: float) -> float:
    """The smallest float32 that is not below ``value``."""
    rounded = torch.tensor(value, dtype=torch.float32)
    if float(rounded) < value:
        rounded = torch.nextafter(rounded, torch.tensor(math.inf))
    return float(rounded)


def _float32_below(value: float) -> float:
    """The largest float32 below ``value``."""
    rounded = torch.tensor(value, dtype=torch.float32)
    if float(rounded) >= value:
        rounded = torch.nextafter(rounded, torch.tensor(-math.inf))
    return float(rounded)


__all__ = ["MARGIN", "LogNormal", "float32_from", "stratified"]
