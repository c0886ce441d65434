"""The objective of diffusion: remove noise from pictures, told what they show. For bases and super-resolution nets."""

import dataclasses
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bottega.condition import Condition
from bottega.conditioning import ConditionDropout
from bottega.data import Batch, Degradations
from bottega.diffusion import (
    AugmentationLevels,
    Denoiser,
    EDMPrecond,
    LogNormal,
    augment_low_res,
    edm_loss,
)
from bottega.errors import ConfigError, InputError
from bottega.shapes import Images
from bottega.training.latents import Encode, seen_by_network
from bottega.training.objective import Loss


@dataclass(frozen=True, kw_only=True)
class DenoiserObjective:
    """The EDM loss of a raw network, which is called as ``prepare(condition)`` and ``(x, c_noise, context)``.

    With ``low_res_size`` each picture is also shrunk, noised by ``augmentation`` and given to the network to enlarge;
    ``degradations`` spoil the small pictures before that, each by a seed of its own, and with ``crop_px`` the network
    sees squares of that side at random places, whose corners are whole pixels of the small pictures.
    ``encode`` takes pictures to latents, None for a network of pixels. ``intervals`` confines the noise to intervals
    of its probability, for an expert denoiser. ``rank`` and ``world_size`` spread the noise levels evenly over
    processes.

    Source: Karras et al. 2022 (arXiv:2206.00364), equation 2; Imagen (arXiv:2205.11487), sections 2.4 for ``low_res``
    and 2.5 for crops; eDiff-I (arXiv:2211.01324), section 4.2 for dropout and degradations. We spoil the whole small
    picture and cut it then, so that the edges of a crop are no edges of a picture.
    """

    noise: LogNormal = field(default_factory=LogNormal)
    precond: EDMPrecond = field(default_factory=EDMPrecond)
    dropout: ConditionDropout | None = None
    low_res_size: int | None = None
    augmentation: AugmentationLevels | None = None
    degradations: Degradations | None = None
    crop_px: int | None = None
    encode: Encode | None = None
    intervals: tuple[tuple[float, float], ...] | None = None
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if (self.low_res_size is None) != (self.augmentation is None):
            raise ConfigError(
                "low_res_size and augmentation go together: a super-resolution net needs both, a base neither"
            )
        if self.low_res_size is not None and self.low_res_size < 1:
            raise ConfigError(f"low_res_size must be at least 1, got {self.low_res_size}")
        if self.low_res_size is None and (self.degradations, self.crop_px) != (None, None):
            raise ConfigError("degradations and crop_px are for a super-resolution net")
        if self.low_res_size is not None and self.encode is not None:
            raise ConfigError("a super-resolution net enlarges pixels; it has no use for encode")

    def __call__(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean loss of a batch, with each picture's own loss and noise level."""
        clean, low_res = self._pair(seen_by_network(batch, self.encode), generator)
        sigma = self.noise.sample(
            len(batch),
            generator,
            intervals=self.intervals,
            rank=self.rank,
            world_size=self.world_size,
        ).to(clean.device)
        eps = _noise_like(clean, generator)
        condition = self._condition(batch, low_res, generator)
        denoiser = Denoiser(network, self.precond)
        per_image = edm_loss(denoiser, clean, sigma, eps, denoiser.prepare(condition))
        return Loss(total=per_image.mean(), per_image=per_image, sigma=sigma)

    def _pair(
        self, clean: Images, generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch channels _ _"], Float[Tensor, "batch channels _ _"] | None]:
        """What is to be painted, and for a super-resolution net what it is to enlarge."""
        if self.low_res_size is None:
            return clean, None
        low_res = shrink(clean, self.low_res_size)
        if self.degradations is not None:
            device = generator.device
            seeds = torch.randint(2**62, (len(clean),), generator=generator, device=device)
            low_res = self.degradations(low_res, seeds.tolist())
        if self.crop_px is None:
            return clean, low_res
        return random_crops(clean, low_res, self.crop_px, generator)

    def _condition(
        self,
        batch: Batch,
        low_res: Float[Tensor, "batch channels _ _"] | None,
        generator: torch.Generator,
    ) -> Condition:
        condition = Condition() if batch.condition is None else batch.condition
        if self.dropout is not None and condition.streams:
            condition = self.dropout(condition, generator)
        if low_res is None or self.augmentation is None:
            return condition
        level = self.augmentation.sample(
            len(batch), generator, rank=self.rank, world_size=self.world_size
        ).to(low_res.device)
        noisy = augment_low_res(low_res, level, _noise_like(low_res, generator))
        return condition.with_low_res(noisy, level)


def shrink(images: Images, size: int) -> Float[Tensor, "batch channels size size"]:
    """Square pictures made smaller by averaging the pixels that fall together, so that nothing aliases.

    Raises:
        InputError: If ``size`` does not divide the pictures' own.
    """
    height, width = images.shape[-2:]
    if height != width or height % size:
        raise InputError(
            f"pictures of {height} x {width} cannot be shrunk evenly to {size} x {size}"
        )
    return F.avg_pool2d(images, height // size)


def random_crops(
    images: Images,
    low_res: Float[Tensor, "batch channels _ _"],
    crop_px: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "batch channels _ _"], Float[Tensor, "batch channels _ _"]]:
    """A square of each picture at a random place, and the same place of its small form.

    ``crop_px`` is the side in the large pictures. Places are whole pixels of the small ones, so both crops show exactly
    the same; every place is as likely as any other.

    Raises:
        InputError: If ``crop_px`` is larger than the pictures, or no whole number of small pixels.
    """
    scale = images.shape[-1] // low_res.shape[-1]
    side, rest = divmod(crop_px, scale)
    rows, columns = (extent - side + 1 for extent in low_res.shape[-2:])
    if rest or side < 1 or min(rows, columns) < 1:
        raise InputError(
            f"a crop is a multiple of {scale} pixels, up to {min(images.shape[-2:])}, got {crop_px}"
        )
    ends = torch.tensor([[rows], [columns]], device=generator.device)
    draws = torch.rand(2, len(images), generator=generator, device=generator.device)
    tops, lefts = (draws * ends).long().minimum(ends - 1).tolist()
    large = [
        image[:, top * scale :, left * scale :][:, :crop_px, :crop_px]
        for image, top, left in zip(images, tops, lefts, strict=True)
    ]
    small = [
        image[:, top:, left:][:, :side, :side]
        for image, top, left in zip(low_res, tops, lefts, strict=True)
    ]
    return torch.stack(large), torch.stack(small)


def picture_share(dropout: ConditionDropout) -> tuple[float, ConditionDropout]:
    """Split a dropout between an `EmbeddedSource` and an objective, so that no picture is encoded in vain.

    Returns:
        The share of pictures whose own embedding is kept, for the source, and the dropout that is left to do for the
        objective, which must not drop them a second time.
    """
    return 1 - dropout.clip_image, dataclasses.replace(dropout, clip_image=0.0)


def _noise_like(images: Images, generator: torch.Generator) -> Images:
    """Unit noise, drawn where the generator lives, so that a seed means the same on every device."""
    return torch.randn(images.shape, generator=generator, device=generator.device).to(images.device)


__all__ = ["DenoiserObjective", "picture_share", "random_crops", "shrink"]
