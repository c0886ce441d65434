"""Small pictures spoilt at random, so that a super-resolution net learns to repair what the stage before it does wrong.

Pictures are in [-1, 1]; noise is meant in units of 255 levels. Every picture is spoilt by its own generator, so it is
spoilt alike in any batch.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bottega.errors import ConfigError, InputError
from bottega.seeding import generator
from bottega.shapes import Images

Picture = Float[Tensor, "1 channels height width"]
Range = tuple[float, float]

_LEVELS = 127.5
_FILTERS = ("area", "bilinear", "bicubic")


@dataclass(frozen=True, kw_only=True)
class DegradationRound:
    """Blur, resize, noise and JPEG, once, in this order. ``*_prob`` is the share of pictures that are struck.

    ``blur_sigma`` is in pixels, ``resize_factor`` is how much is made of the side before it goes back to what it was,
    ``gaussian_levels`` a standard deviation in levels of 255, ``poisson_scale`` how much stronger than one photon per
    level the shot noise is, and ``jpeg_quality`` Pillow's. Each is drawn evenly from its range.

    Source: Wang et al. 2021 (arXiv:2107.10833), section 3. We differ: blurs are Gaussian (isotropic or not) without the
    generalised and plateau kernels and the sinc filter, noise is never grey, and values are mild: the chances, the
    resize factors and the Gaussian noise are those of NVIDIA NeMo's sr256-600m-edm, shot noise is weaker than its.
    """

    blur_prob: float = 0.2
    blur_sigma: Range = (0.2, 1.0)
    resize_prob: float = 0.4
    resize_factor: Range = (0.8, 1.2)
    gaussian_prob: float = 0.5
    gaussian_levels: Range = (0.0, 3.0)
    poisson_prob: float = 0.5
    poisson_scale: Range = (0.005, 0.4)
    jpeg_prob: float = 0.2
    jpeg_quality: Range = (75.0, 95.0)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_prob"):
                if not 0 <= value <= 1:
                    raise ConfigError(f"{name} is a chance from 0 to 1, got {value}")
                continue
            low, high = value
            if not (0 <= low <= high and high < float("inf")):
                raise ConfigError(f"{name} needs 0 <= low <= high, both finite, got {value}")
        if self.resize_factor[0] <= 0 or self.resize_factor[1] > 4:
            raise ConfigError(f"resize_factor lies above 0 and up to 4, got {self.resize_factor}")
        if not 1 <= self.jpeg_quality[0] <= self.jpeg_quality[1] <= 100:
            raise ConfigError(f"jpeg_quality lies in 1 to 100, got {self.jpeg_quality}")


@dataclass(frozen=True, kw_only=True)
class Degradations:
    """Rounds of spoiling, one after the other; Real-ESRGAN has two, the second a little milder.

    ``clean_prob`` is the share of pictures that stay as they are, so that a clean picture is known too.

    Source: Wang et al. 2021 (arXiv:2107.10833), section 3.2, second-order degradation; eDiff-I (arXiv:2211.01324),
    section 4.2, uses it on the low-resolution pictures of super-resolution training.
    """

    rounds: tuple[DegradationRound, ...] = field(
        default_factory=lambda: (
            DegradationRound(),
            DegradationRound(gaussian_levels=(0.0, 2.5), poisson_scale=(0.005, 0.3)),
        )
    )
    clean_prob: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.clean_prob <= 1:
            raise ConfigError(f"clean_prob is a chance from 0 to 1, got {self.clean_prob}")

    def __call__(self, images: Images, seeds: Sequence[int]) -> Images:
        """Spoilt copies, in the same size and range; picture i is a function of itself and seed i alone.

        Raises:
            InputError: When there is not one seed per picture.
        """
        if len(seeds) != len(images):
            raise InputError(f"expected {len(images)} seeds, one per picture, got {len(seeds)}")
        if not len(images):
            return images.clone()
        # Training runs under autocast, whose short floats would spoil more than was asked for.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            spoilt = [
                self._spoil(image[None].float().cpu(), seed)
                for image, seed in zip(images, seeds, strict=True)
            ]
        return torch.cat(spoilt).to(images)

    def _spoil(self, image: Picture, seed: int) -> Picture:
        draws = generator(seed, "degradations")
        if _unit(draws) < self.clean_prob:
            return image
        for one in self.rounds:
            image = _one_round(image, one, draws)
        return image


def _one_round(image: Picture, plan: DegradationRound, draws: torch.Generator) -> Picture:
    # Every number is drawn whether it is used or not, so that one chance changes nothing of the others.
    struck = {
        name: _unit(draws) < getattr(plan, f"{name}_prob")
        for name in ("blur", "resize", "gaussian", "poisson", "jpeg")
    }
    across, down = _between(plan.blur_sigma, draws), _between(plan.blur_sigma, draws)
    if _unit(draws) < 0.5:
        down = across
    factor = _between(plan.resize_factor, draws)
    first, second = (_FILTERS[int(_unit(draws) * len(_FILTERS))] for _ in range(2))
    levels = _between(plan.gaussian_levels, draws)
    photons = _between(plan.poisson_scale, draws)
    quality = round(_between(plan.jpeg_quality, draws))
    eps = torch.randn(image.shape, generator=draws)
    if struck["blur"]:
        image = blurred(image, down, across)
    if struck["resize"]:
        image = resized_and_back(image, factor, first, second)
    if struck["gaussian"]:
        image = image + eps * (levels / _LEVELS)
    if struck["poisson"]:
        image = with_shot_noise(image, photons, draws)
    image = image.clamp(-1, 1)
    return through_jpeg(image, quality) if struck["jpeg"] else image


def blurred(image: Picture, sigma_down: float, sigma_across: float) -> Picture:
    """Gaussian blur with its own width, in pixels, along each axis; flat pictures stay as they are."""
    channels = image.shape[1]
    for axis, sigma in ((2, sigma_down), (3, sigma_across)):
        reach = min(int(3 * sigma + 1), image.shape[axis] - 1)
        if sigma <= 0 or reach < 1:
            continue
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
        taps = taps / taps.sum()
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        pad = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        kernel = taps.view(shape).repeat(channels, 1, 1, 1)
        image = F.conv2d(F.pad(image, pad, mode="reflect"), kernel, groups=channels)
    return image


def resized_and_back(image: Picture, factor: float, there: str, back: str) -> Picture:
    """To ``factor`` times the side and back, each by area, bilinear or bicubic interpolation.

    Raises:
        InputError: For another filter.
    """
    height, width = image.shape[-2:]
    between = (max(1, round(height * factor)), max(1, round(width * factor)))
    return _resized(_resized(image, between, there), (height, width), back).clamp(-1, 1)


def with_shot_noise(image: Picture, scale: float, draws: torch.Generator) -> Picture:
    """Poisson noise: the variance of each value grows with its brightness.

    ``scale`` 1 is the noise of as many photons as there are levels, 255 for white; 0 is none.

    Source: Wang et al. 2021 (arXiv:2107.10833); BasicSR takes the number of photons from the picture's distinct values,
    we take 256 for every picture.
    """
    rates = (image.clamp(-1, 1) + 1) * _LEVELS
    noise = torch.poisson(rates, generator=draws) - rates
    return image + noise * (scale / _LEVELS)


def through_jpeg(image: Picture, quality: int) -> Picture:
    """What is left of a picture after JPEG."""
    from PIL import Image

    if image.shape[1] != 3:
        raise InputError(f"JPEG is for pictures of 3 channels, got {image.shape[1]}")
    levels = ((image[0] + 1) * _LEVELS).round().clamp(0, 255).byte().permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels.numpy())).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as opened:
        pixels = torch.from_numpy(np.array(opened.convert("RGB")))
    return pixels.permute(2, 0, 1)[None].float() / _LEVELS - 1


def _resized(
    image: Float[Tensor, "1 channels _ _"], size: tuple[int, int], filter_name: str
) -> Float[Tensor, "1 channels _ _"]:
    if filter_name == "area":
        return F.interpolate(image, size, mode="area")
    if filter_name not in _FILTERS:
        raise InputError(f"a filter is one of {', '.join(_FILTERS)}, got {filter_name!r}")
    return F.interpolate(image, size, mode=filter_name, align_corners=False, antialias=True)


def _unit(draws: torch.Generator) -> float:
    return float(torch.rand((), generator=draws))


def _between(ends: Range, draws: torch.Generator) -> float:
    return ends[0] + (ends[1] - ends[0]) * _unit(draws)


__all__ = [
    "DegradationRound",
    "Degradations",
    "blurred",
    "resized_and_back",
    "through_jpeg",
    "with_shot_noise",
]
