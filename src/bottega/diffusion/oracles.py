"""Data whose ideal denoiser and whose exact walk are known: what samplers are measured against.

Every pixel is drawn alike and by itself, so the walk of one pixel is the walk of a picture. Compute in float64.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bottega.shapes import Images, Sigmas


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Pixels from one Gaussian."""

    mean: float = 0.2
    std: float = 0.5

    def denoise(self, x: Images, sigma: Sigmas) -> Images:
        """The ideal denoiser, E[clean | x]."""
        share = self.std**2 / (self.std**2 + sigma.square())
        return self.mean + share[:, None, None, None] * (x - self.mean)

    def walk(self, x: Images, sigma: float, sigma_next: float) -> Images:
        """Where the probability-flow ODE takes ``x`` from one noise level to another."""
        ratio = (self.std**2 + sigma_next**2) / (self.std**2 + sigma**2)
        return self.mean + math.sqrt(ratio) * (x - self.mean)


@dataclass(frozen=True, kw_only=True)
class TwoGaussians:
    """Pixels from one of two Gaussians of the same spread; ``share`` is how often it is the first."""

    means: tuple[float, float] = (-0.6, 0.4)
    std: float = 0.2
    share: float = 0.35

    def denoise(self, x: Images, sigma: Sigmas) -> Images:
        """The ideal denoiser, E[clean | x]."""
        spread = (self.std**2 + sigma.square())[:, None, None, None]
        offsets = [x - mean for mean in self.means]
        first = -offsets[0].square() / (2 * spread) + math.log(self.share)
        second = -offsets[1].square() / (2 * spread) + math.log1p(-self.share)
        weight = torch.sigmoid(first - second)
        mean = weight * self.means[0] + (1 - weight) * self.means[1]
        return mean + self.std**2 / spread * (x - mean)

    def walk(self, x: Images, sigma: float, sigma_next: float) -> Images:
        """Where the probability-flow ODE takes ``x``: in one dimension it keeps the rank of every point."""
        rank = self.cdf(x, sigma)
        width = 12 * math.sqrt(self.std**2 + sigma_next**2) + max(map(abs, self.means))
        low, high = torch.full_like(x, -width), torch.full_like(x, width)
        for _ in range(100):  # bisection, to the last bit
            middle = (low + high) / 2
            below = self.cdf(middle, sigma_next) < rank
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def cdf(self, x: Float[Tensor, "*any"], sigma: float) -> Float[Tensor, "*any"]:
        """The share of noisy pixels below ``x``."""
        spread = math.sqrt(self.std**2 + sigma**2)
        first, second = (torch.special.ndtr((x - mean) / spread) for mean in self.means)
        return self.share * first + (1 - self.share) * second


__all__ = ["Gaussian", "TwoGaussians"]
