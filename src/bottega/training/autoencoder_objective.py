"""What an autoencoder minimises: the picture it gives back, its outlines, and how much its latents tell."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bottega.data import Batch
from bottega.errors import ConfigError
from bottega.shapes import Images
from bottega.training.objective import Loss

PerImage = Float[Tensor, "batch"]


@dataclass(frozen=True, kw_only=True)
class AutoencoderObjective:
    """The absolute error of pixels and of the steps between neighbours, and the divergence of the latents.

    ``edge_weight`` is for the steps: an outline that is drawn half as sharp costs little pixel by pixel, and is what
    one sees. ``kl_weight`` is for the divergence from unit normal latents, in nats per number of the latents. It
    decides how much noise the latents bear, and a denoiser will leave some; the source's is far lower.

    Source: Rombach et al. 2022 (arXiv:2112.10752), section 3.1 and appendix G. We differ: steps between neighbours in
    place of a perceptual network and of a critic. The features of our judge, the only such network at hand, measure
    how good pictures are, and what measures must not be trained on.
    """

    kl_weight: float = 0.01
    edge_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("kl_weight", "edge_weight"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name} must be finite and not negative, got {value}")

    def __call__(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean loss of a batch, and its three parts as metrics."""
        clean = batch.clean()
        module: Any = network
        dtype = next(network.parameters()).dtype
        inputs = clean.to(dtype).contiguous(memory_format=torch.channels_last)
        posterior = module.encode(inputs)
        mean, log_variance = posterior.mean.float(), posterior.log_variance.float()
        eps = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
        latents = mean + (log_variance / 2).exp() * eps
        given = module.decode(latents.to(dtype)).float()
        pixels = (given - clean).abs().flatten(1).mean(1)
        outlines = _steps(given - clean)
        told = divergence(mean, log_variance)
        each = pixels + self.edge_weight * outlines + self.kl_weight * told
        return Loss(
            total=each.mean(),
            per_image=each,
            metrics={"pixels": pixels.mean(), "outlines": outlines.mean(), "kl": told.mean()},
        )


def divergence(
    mean: Float[Tensor, "batch channels height width"],
    log_variance: Float[Tensor, "batch channels height width"],
) -> PerImage:
    """How far each picture's normal latents are from unit normal ones, in nats per number.

    Source: Kingma & Welling 2013 (arXiv:1312.6114), appendix B; there it is the sum.
    """
    terms = mean.square() + log_variance.exp() - 1 - log_variance
    return terms.flatten(1).mean(1) / 2


def _steps(difference: Images) -> PerImage:
    """The mean absolute step between neighbours, across and down."""
    across = difference.diff(dim=3).abs().flatten(1).mean(1)
    down = difference.diff(dim=2).abs().flatten(1).mean(1)
    return (across + down) / 2


__all__ = ["AutoencoderObjective", "divergence"]
