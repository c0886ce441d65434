"""The training loss of a denoiser."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from bottega.diffusion.denoiser import Denoiser, per_image
from bottega.shapes import Images, Sigmas


def edm_loss(
    denoiser: Denoiser, clean: Images, sigma: Sigmas, eps: Images, context: Any = None
) -> Float[Tensor, "batch"]:
    """How far the denoiser misses each clean picture, weighted so that every noise level counts alike.

    Args:
        denoiser: Its own preconditioning gives the weight.
        clean: Pictures in [-1, 1].
        sigma: The noise level of each; positive.
        eps: Unit Gaussian noise.
        context: What ``denoiser.prepare`` gave for these pictures.

    Returns:
        lambda(sigma) times the mean squared error of each image; near 1 for an untrained network.

    Source: Karras et al. 2022 (arXiv:2206.00364), equation 2 with lambda of Table 1. We take the mean over pixels where
    EDM takes the sum, so that losses at different sizes can be compared.
    """
    denoised = denoiser(clean + per_image(sigma) * eps, sigma, context)
    error = (denoised - clean).square().flatten(1).mean(1)
    return denoiser.precond.weight(sigma).to(error.dtype) * error


__all__ = ["edm_loss"]
