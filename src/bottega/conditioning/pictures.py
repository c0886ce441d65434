"""How a picture is made ready for CLIP's image tower: shortest edge to size, centre crop, its own mean and spread."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bottega.conditioning.pretrained import read_json
from bottega.errors import CheckpointError, InputError
from bottega.shapes import Images

Triple = tuple[float, float, float]
Pixels = Float[Tensor, "batch 3 size size"]
"""Square pictures as an image tower wants them."""


@dataclass(frozen=True, kw_only=True)
class PicturePreparation:
    """Size, mean and standard deviation that an image tower was trained with, in units of [0, 1] pixels."""

    image_size_px: int
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)

    @classmethod
    def read(cls, folder: Path, *, image_size_px: int) -> "PicturePreparation":
        """Take mean and spread from ``preprocessor_config.json``; without one, pixels stay in [-1, 1]."""
        settings = read_json(folder / "preprocessor_config.json")
        return cls(
            image_size_px=image_size_px,
            mean=_triple(settings, "image_mean", folder),
            std=_triple(settings, "image_std", folder),
        )

    def __call__(self, images: Images) -> Pixels:
        """Pictures in [-1, 1] of any size as the tower wants them, in float32.

        Source: CLIP's preprocessing (bicubic, antialiased). It rounds to bytes after resizing; we do not.
        """
        if images.shape[1] != 3:
            raise InputError(f"a picture to encode needs 3 channels, got {images.shape[1]}")
        pixels = self._cropped(images.float())
        mean = torch.tensor(self.mean, device=images.device)[:, None, None]
        std = torch.tensor(self.std, device=images.device)[:, None, None]
        return ((pixels + 1) / 2 - mean) / std

    def _cropped(self, images: Images) -> Pixels:
        size = self.image_size_px
        height, width = images.shape[2:]
        if (height, width) == (size, size):
            return images
        scale = size / min(height, width)
        target = (max(size, round(height * scale)), max(size, round(width * scale)))
        images = F.interpolate(
            images, size=target, mode="bicubic", antialias=True, align_corners=False
        )
        top, left = (target[0] - size) // 2, (target[1] - size) // 2
        return images[:, :, top : top + size, left : left + size].clamp(-1, 1)


def _triple(settings: dict[str, object], key: str, folder: Path) -> Triple:
    values = settings.get(key, (0.5, 0.5, 0.5))
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise CheckpointError(f"{folder}: {key} must be three numbers, got {values!r}")
    red, green, blue = (float(value) for value in values)
    return red, green, blue


__all__ = ["PicturePreparation"]
