"""Noise-conditioning augmentation: a super-resolution network is fed a noisy small picture, and told how noisy.

It learns to repair what the stage before it does wrong, and to listen to the text. A *level* in [0, 1] is time on the
variance-preserving cosine schedule; networks and conditions speak of the sigma at that level.
"""

from dataclasses import dataclass

import torch

from bottega.diffusion.denoiser import per_image
from bottega.diffusion.noise import stratified
from bottega.diffusion.schedules import Cosine
from bottega.errors import ConfigError, InputError
from bottega.shapes import Images, Sigmas

_SCHEDULE = Cosine(normalized=True)
_SIGMA_MAX = (
    1000.0  # a picture under this much noise is noise; the schedule itself ends at infinity
)


def augment_low_res(low_res: Images, sigma: Sigmas, eps: Images) -> Images:
    """Noise small pictures, keeping their variance: (low_res + sigma eps) / sqrt(1 + sigma^2).

    At sigma = 0 this gives the picture back exactly.

    Source: Imagen (arXiv:2205.11487), section 2.4 and Appendix A with alpha^2 = 1 / (1 + sigma^2). We add the noise at
    the small size, before enlarging.
    """
    spread = (1 + sigma.square()).sqrt()
    noisy = (low_res + per_image(sigma) * eps) / per_image(spread)
    return noisy.to(low_res.dtype)


@dataclass(frozen=True, kw_only=True)
class AugmentationLevels:
    """How strongly small pictures are noised in training: a level uniform in [0, ``max_level``].

    Source: Imagen (arXiv:2205.11487), section 2.4: uniform on [0, 1] in training, 0.1 to 0.3 at sampling.
    """

    max_level: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_level <= 1:
            raise ConfigError(f"max_level must be in [0, 1], got {self.max_level}")

    def sample(
        self, n: int, generator: torch.Generator, rank: int = 0, world_size: int = 1
    ) -> Sigmas:
        """The sigma for each of ``n`` images, stratified over the batch and the ranks (float32)."""
        share = stratified(n, generator, rank=rank, world_size=world_size)
        return _sigma(share * self.max_level).float()


def level_to_sigma(level: float) -> float:
    """The sigma of an augmentation level: 0 at 0, about 1 at one half, 1000 at 1.

    Raises:
        InputError: Unless the level is in [0, 1].

    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), equation 17 in continuous time, normalised as there so that
    level 0 is exactly no noise; capped where nothing of the picture is left.
    """
    if not 0 <= level <= 1:
        raise InputError(f"an augmentation level is in [0, 1], got {level}")
    return float(_sigma(torch.tensor([level], dtype=torch.float64)))


def _sigma(level: Sigmas) -> Sigmas:
    sigma = _SCHEDULE.sigma(level).clamp(max=_SIGMA_MAX)
    return torch.where(level == 0, torch.zeros_like(sigma), sigma)  # rounding would leave 1e-8


__all__ = ["AugmentationLevels", "augment_low_res", "level_to_sigma"]
