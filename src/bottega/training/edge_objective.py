"""Edge-supervised learning: where the text is looked at must show the picture's edges, while there is little noise."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bottega.data import Batch
from bottega.errors import ConfigError, InputError
from bottega.models.edge_head import (
    EdgeHeadConfig,
    EdgeSupervised,
    Plane,
    Watching,
    last_token,
)
from bottega.shapes import Sigmas
from bottega.training.edge_targets import EdgeBatch, EdgeTargets, WorldEdges
from bottega.training.objective import Loss, Objective

_NEAR = 1e-8
"""Where a power below 1 would have an endless slope."""


@dataclass(frozen=True, kw_only=True)
class EdgeSupervision:
    """A second thing to learn beside removing noise, in pictures with less noise than ``below_sigma``.

    ``weight`` multiplies the edge loss, ``alpha`` and ``gamma`` are the focal loss's.

    Source: RAPHAEL (arXiv:2305.18295), section 3.3: alpha 0.5, gamma 2, both losses with weight 1, and only before
    timestep 500 of 1000. With Stable Diffusion's schedule that is sigma 1.62 for latents of unit spread; pixels, whose
    spread is 0.5, have as much signal left at 0.81, the default.
    """

    head: EdgeHeadConfig = field(default_factory=EdgeHeadConfig)
    targets: EdgeTargets = field(default_factory=WorldEdges)
    below_sigma: float = 0.81
    weight: float = 1.0
    alpha: float = 0.5
    gamma: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.below_sigma < float("inf"):
            raise ConfigError(
                f"edges.below_sigma must be positive and finite, got {self.below_sigma}"
            )
        if self.weight < 0 or self.gamma < 0:
            raise ConfigError(
                f"edges.weight and edges.gamma must not be negative, got {self.weight}, {self.gamma}"
            )
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"edges.alpha must be in [0, 1], got {self.alpha}")


def focal_loss(logits: Plane, targets: Plane, *, alpha: float, gamma: float) -> Float[Tensor, ""]:
    """Cross-entropy in which what is nearly right counts for little; the mean over all positions.

    Source: Lin et al. 2017 (arXiv:1708.02002), equation 5, for targets of 0 and 1. Edges that were made smaller are
    shares, and for these we weigh by |target - p|^gamma, as Li et al. 2020 (arXiv:2006.04388), equation 2, so that the
    least loss, zero, is at the share itself. At 0 and 1 the two agree.
    """
    logits = logits.float()
    away = (targets - logits.sigmoid()).abs().clamp(min=_NEAR)
    entropy = -alpha * targets * F.logsigmoid(logits)
    entropy = entropy - (1 - alpha) * (1 - targets) * F.logsigmoid(-logits)
    return (away.pow(gamma) * entropy).mean()


def edges_at(edges: EdgeBatch, height: int, width: int) -> Float[Tensor, "batch 1 _height _width"]:
    """Edges at the size of an attention map: of each cell the share that is edge."""
    return F.adaptive_avg_pool2d(edges[:, None].float() / 255, (height, width))


@dataclass(frozen=True, kw_only=True)
class EdgeObjective:
    """Another objective's loss, and that of the edges drawn from the attention it caused.

    The network must be an `EdgeSupervised` one, and batches carry ``edges``, see `EdgedSource`. Pictures with
    ``below_sigma`` or more noise, or without their text, are left out: they cause no edge loss and no gradient.
    """

    objective: Objective
    settings: EdgeSupervision = field(default_factory=EdgeSupervision)

    def __call__(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        """The sum of both losses; ``per_image`` is the first one's alone."""
        if not isinstance(network, EdgeSupervised):
            raise InputError(
                f"edges are learned by a network with edge heads, got a {type(network).__name__}"
            )
        watching = Watching(network)
        found = self.objective(watching, batch, generator)
        if found.sigma is None or watching.context is None:
            raise InputError(
                "edges need an objective that prepares its network and tells its sigma"
            )
        token = last_token(watching.context, network.config.stream, len(batch))
        rows = self._rows(found.sigma, token.present)
        edge_loss = found.total.new_zeros(())
        if len(rows) > 0:
            edges = self._edges(batch).index_select(0, rows)
            losses = [
                focal_loss(
                    logits,
                    edges_at(edges, *logits.shape[-2:]),
                    alpha=self.settings.alpha,
                    gamma=self.settings.gamma,
                )
                for _, logits in network.draw(watching.maps, token, rows)
            ]
            # the mean over the whole batch, in which a noisy picture's edge loss is 0
            edge_loss = torch.stack(losses).mean() * (len(rows) / len(batch))
        metrics = {"denoising_loss": found.total, "edge_loss": edge_loss, **found.metrics}
        return Loss(
            total=found.total + self.settings.weight * edge_loss,
            per_image=found.per_image,
            sigma=found.sigma,
            metrics=metrics,
        )

    def _rows(self, sigma: Sigmas, present: Tensor) -> Tensor:
        return ((sigma < self.settings.below_sigma) & present.to(sigma.device)).nonzero()[:, 0]

    def _edges(self, batch: Batch) -> EdgeBatch:
        if batch.edges is None:
            raise InputError("this batch carries no edges; draw it from an EdgedSource")
        return batch.edges


__all__ = [
    "EdgeObjective",
    "EdgeSupervision",
    "edges_at",
    "focal_loss",
]
