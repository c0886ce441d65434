"""Real pictures made to look painted, so that a judge trained on them is fair to a cascade's pictures.

Images live in [-1, 1]. Every picture is spoilt on its own, by draws from the generator alone.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bottega.errors import ConfigError
from bottega.shapes import Images

_BLOCK = 8


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """How often, and how strongly at most, a picture is spoilt.

    ``*_prob`` is the share of pictures a fault strikes. ``warp_px`` is the largest shift of an outline, ``noise`` a
    standard deviation, ``quantum`` the step its block-wise cosine coefficients are rounded to, and ``colour`` the
    largest change of a channel's gain and level.
    """

    low_res_prob: float = 0.5
    warp_prob: float = 0.5
    warp_px: float = 1.5
    blur_prob: float = 0.5
    colour_prob: float = 0.5
    colour: float = 0.06
    quantise_prob: float = 0.25
    quantum: float = 0.4
    noise_prob: float = 0.5
    noise: float = 0.08

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (name.endswith("_prob") and value > 1):
                raise ConfigError(f"{name} must not be negative nor a chance above 1, got {value}")

    def __call__(self, images: Images, generator: torch.Generator) -> Images:
        """Spoilt copies of ``images``, in the same size and range."""
        # Training runs the objective under autocast, whose short floats would spoil more than was asked for.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self._spoil(images, generator)

    def _spoil(self, images: Images, generator: torch.Generator) -> Images:
        def draw(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=generator.device).to(images)

        def struck(prob: float) -> Tensor:
            return draw(len(images), 1, 1, 1) < prob

        count = len(images)
        x = torch.where(struck(self.low_res_prob), _through_half(images), images)
        shift = (draw(count, 2, 6, 6) * 2 - 1) * self.warp_px
        x = torch.where(struck(self.warp_prob), _warped(x, shift), x)
        softened = torch.lerp(x, _blurred(x), draw(count, 1, 1, 1))
        x = torch.where(struck(self.blur_prob), softened, x)
        gain, level = (draw(2, count, 3, 1, 1) * 2 - 1) * self.colour
        x = torch.where(struck(self.colour_prob), x * (1 + gain) + level, x)
        step = draw(count, 1, 1, 1, 1, 1) * self.quantum + 1e-3
        x = torch.where(struck(self.quantise_prob), _quantised(x, step), x)
        eps = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
        x = torch.where(struck(self.noise_prob), x + draw(count, 1, 1, 1) * self.noise * eps, x)
        return x.clamp(-1, 1)


def resized(images: Images, size: int) -> Float[Tensor, "batch channels new_height new_width"]:
    """Pictures at ``size`` pixels a side: averaged when they shrink, smoothly enlarged when they grow.

    Source: Parmar et al. 2022 (arXiv:2104.11222): a resize without antialiasing changes every score after it.
    """
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(
        images.float(), (size, size), mode="bicubic", align_corners=False, antialias=True
    ).clamp(-1, 1)


def _through_half(images: Images) -> Images:
    size = images.shape[-1]
    return resized(resized(images, size // 2), size)


def _blurred(images: Images) -> Images:
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]).to(images) / 16
    channels = images.shape[1]
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    across = F.conv2d(padded, taps.view(1, 1, 1, 5).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(across, taps.view(1, 1, 5, 1).repeat(channels, 1, 1, 1), groups=channels)


def _warped(images: Images, shift_px: Float[Tensor, "batch 2 rows columns"]) -> Images:
    height, width = images.shape[-2:]
    shift = F.interpolate(shift_px, (height, width), mode="bicubic", align_corners=True)
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    where = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).to(images)
    grid = where + shift.permute(0, 2, 3, 1) * (2 / (width - 1))
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _quantised(images: Images, step: Float[Tensor, "batch 1 1 1 1 1"]) -> Images:
    """Round the cosine coefficients of 8x8 blocks, finely where they are slow and coarsely where they are fast."""
    count, channels, height, width = images.shape
    if height % _BLOCK or width % _BLOCK:
        return images
    basis = _cosines().to(images)
    blocks = images.reshape(count, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    blocks = blocks.permute(0, 1, 2, 4, 3, 5)
    speed = torch.arange(_BLOCK, device=images.device)
    steps = step * (1 + speed[:, None] + speed[None, :]) / 4
    rounded = ((basis @ blocks @ basis.T) / steps).round() * steps
    whole = (basis.T @ rounded @ basis).permute(0, 1, 2, 4, 3, 5)
    return whole.reshape(count, channels, height, width)


def _cosines() -> Float[Tensor, "frequency place"]:
    place = torch.arange(_BLOCK) + 0.5
    basis = torch.cos(torch.arange(_BLOCK)[:, None] * place * (math.pi / _BLOCK))
    basis[0] *= math.sqrt(0.5)
    return basis * math.sqrt(2 / _BLOCK)


__all__ = ["Degradation", "resized"]
