"""How evenly experts are used: counts, entropy, forgotten experts, and the loss that evens them out.

All of it is a function of routes, which are data: nothing is gathered on modules or in globals.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bottega.errors import InputError
from bottega.models.moe_gates import SpaceRoute, TimeRoute

Route = SpaceRoute | TimeRoute
"""What a gate decided for one layer and one batch."""

COLLAPSED = 0.25
"""An entropy below this share of its largest value is a collapse."""


class CollapseWarning(UserWarning):
    """A gate sends nearly everything to one expert."""


@dataclass(frozen=True, kw_only=True)
class ExpertLoad:
    """How many tokens (space-MoE, padding left out) or pictures (time-MoE) went to each expert of one layer.

    Loads add up over batches, processes and layers: ``a + b``.
    """

    counts: tuple[int, ...]

    def __add__(self, other: "ExpertLoad") -> "ExpertLoad":
        if len(self.counts) != len(other.counts):
            raise InputError(
                f"loads of {len(self.counts)} and {len(other.counts)} experts cannot be added"
            )
        return ExpertLoad(
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        )

    @property
    def total(self) -> int:
        """How many choices were made."""
        return sum(self.counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """Each expert's share of the choices; all 0 before the first."""
        return tuple(count / max(self.total, 1) for count in self.counts)

    @property
    def entropy(self) -> float:
        """How even the load is: 1 where all experts have the same, 0 where one has everything."""
        if len(self.counts) == 1 or self.total == 0:
            return 1.0
        nats = -sum(share * math.log(share) for share in self.shares if share > 0)
        return nats / math.log(len(self.counts))

    @property
    def dead(self) -> tuple[int, ...]:
        """The experts that nothing went to."""
        return tuple(k for k, count in enumerate(self.counts) if count == 0)

    @property
    def has_collapsed(self) -> bool:
        """Whether one expert gets nearly everything, of enough choices to tell (ten per expert)."""
        return self.total >= 10 * len(self.counts) and self.entropy < COLLAPSED


def load_of(route: Route) -> ExpertLoad:
    """What one route loads each expert with."""
    chosen = _choices(route)[0]
    return ExpertLoad(counts=tuple(chosen.sum(dim=0).round().int().tolist()))


def warn_of_collapse(loads: Mapping[str, ExpertLoad]) -> None:
    """Warn of every layer whose load has collapsed; the names are the layers'."""
    for name, load in loads.items():
        if load.has_collapsed:
            top = max(range(len(load.counts)), key=load.counts.__getitem__)
            warnings.warn(
                f"{name}: expert {top} of {len(load.counts)} gets {load.shares[top]:.0%} of all "
                f"choices (entropy {load.entropy:.2f}); raise the gate's noise.std or the weight "
                "of the balance loss",
                CollapseWarning,
                stacklevel=2,
            )


def balance_loss(routes: Sequence[Route]) -> Float[Tensor, ""]:
    """How unevenly gates choose, averaged over layers: 1 where all experts are equally loaded, more otherwise.

    The batch is looked at as a whole, because one short prompt need not use every expert, and a time-MoE has one
    choice per picture. It is a loss only: what a picture becomes never depends on its neighbours.

    Source: Fedus et al. 2021 (arXiv:2101.03961), equation 4 without its weight: k sum_k f_k P_k, with f_k the share of
    choices and P_k the gate's mean probability; the gradient comes from P. The space-MoE's padding is left out.
    """
    if not routes:
        raise InputError("a balance loss needs at least one route, got none")
    return torch.stack([_balance(route) for route in routes]).mean()


def _balance(route: Route) -> Float[Tensor, ""]:
    chosen, probabilities = _choices(route)
    num_experts = probabilities.shape[-1]
    count = chosen.sum().clamp(min=1)
    return num_experts * (chosen.sum(dim=0) / count * (probabilities.sum(dim=0) / count)).sum()


def _choices(
    route: Route,
) -> tuple[Float[Tensor, "choices experts"], Float[Tensor, "choices experts"]]:
    """Choices as one-hot rows and the probabilities they were made by; rows of padding are 0 in both."""
    probabilities = route.probabilities.flatten(0, -2)
    chosen = F.one_hot(route.expert.flatten(), probabilities.shape[-1]).to(probabilities.dtype)
    if isinstance(route, SpaceRoute):
        real = route.real.flatten()[:, None].to(probabilities.dtype)
        return chosen * real, probabilities * real
    return chosen, probabilities


def active_share(weights: Float[Tensor, "batch positions experts"]) -> float:
    """The share of (expert, position) pairs that a space-MoE computes, given what `SpaceMoE.cover` gives."""
    return (weights > 0).float().mean().item()


__all__ = [
    "CollapseWarning",
    "ExpertLoad",
    "Route",
    "active_share",
    "balance_loss",
    "load_of",
    "warn_of_collapse",
]
