"""Keeping the estimate of the clean picture within [-1, 1], which strong guidance would leave.

Applied to the guided estimate, at every step, to each image by itself, in float32.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bottega.diffusion.denoiser import Denoise, per_image
from bottega.errors import ConfigError
from bottega.shapes import Images, Sigmas


@dataclass(frozen=True, kw_only=True)
class Static:
    """Clip to [-1, 1].

    Source: Imagen (arXiv:2205.11487), section 2.3.
    """

    def __call__(self, denoised: Images) -> Images:
        """Clip every value."""
        return denoised.clamp(-1, 1)


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """Where an image leaves [-1, 1], clip it at a high percentile of its own values and scale that back to 1.

    ``percentile`` is a share in (0, 1]. ``cap`` is the most that a picture is scaled down by: values beyond it are
    clipped instead, which keeps contrast; None is no limit.

    Source: Imagen (arXiv:2205.11487), section 2.3 and Figure A.10 (p = 99.5, no cap); DeepFloyd IF uses p = 0.95 and a
    cap of 1.5. A cap of 1 would be `Static` under another name, and is refused.
    """

    percentile: float = 0.995
    cap: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 1:
            raise ConfigError(f"percentile is a share in (0, 1], got {self.percentile}")
        if self.cap is not None and not 1 < self.cap < math.inf:
            raise ConfigError(
                f"cap must be above 1, got {self.cap}; for clipping to [-1, 1] choose Static, for no limit None"
            )

    def __call__(self, denoised: Images) -> Images:
        """Threshold every image by itself."""
        limit = _quantile(denoised.float().abs().flatten(1), self.percentile)
        limit = per_image(limit.clamp(min=1, max=self.cap))
        return (denoised.float().clamp(-limit, limit) / limit).to(denoised.dtype)


Threshold = Static | Dynamic


def thresholded(denoise: Denoise, threshold: Threshold) -> Denoise:
    """A ``Denoise`` whose estimate stays within [-1, 1]; wrap the guided one."""

    def inside(x: Images, sigma: Sigmas) -> Images:
        return threshold(denoise(x, sigma))

    return inside


def _quantile(values: Float[Tensor, "batch n"], share: float) -> Float[Tensor, "batch"]:
    """torch.quantile along the second axis without sorting what lies below, nor its limit on size."""
    n = values.shape[1]
    place = share * (n - 1)
    below = math.floor(place)
    top = values.topk(n - below, dim=1).values  # falling, ends on the order statistic below `place`
    if place == below:
        return top[:, -1]
    return torch.lerp(top[:, -1], top[:, -2], place - below)


__all__ = ["Dynamic", "Static", "Threshold", "thresholded"]
