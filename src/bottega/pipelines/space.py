"""Where a denoiser works when that is not the pixels, and the way there and back."""

from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bottega.shapes import Images

Latents = Float[Tensor, "batch latent_channels latent_height latent_width"]
"""What a denoiser sees in a space; in pixels, pictures."""


@runtime_checkable
class Space(Protocol):
    """A space of smaller pictures with other channels, such as the latents of an autoencoder."""

    @property
    def channels(self) -> int:
        """Of what a denoiser sees there."""
        ...

    @property
    def factor(self) -> int:
        """How many pixels one position stands for, along each side."""
        ...

    def encode(self, images: Images) -> Latents:
        """Pictures in [-1, 1] as the denoiser sees them; the same picture always becomes the same values."""
        ...

    def decode(self, latents: Latents) -> Images:
        """Back to pictures in [-1, 1], values outside not clipped."""
        ...

    def preview(self, latents: Latents) -> Images:
        """Something to look at while painting, at little cost and of any size."""
        ...


def enlarged(images: Images, height: int, width: int) -> Float[Tensor, "batch channels _ _"]:
    """Pictures at another size, bilinear, with the outermost pixels' centres kept in the corners.

    Source: DeepFloyd IF, as the diffusers library has it; Imagen does not say.
    """
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=True)


__all__ = ["Latents", "Space", "enlarged"]
