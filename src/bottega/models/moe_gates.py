"""Gates of mixture-of-experts layers, and the routes they give: plain data, computed before the layer runs.

Choosing the likeliest expert has no gradient, and the paper names no way around that. Ours, by `GatePath`:

- ``straight_through``: an expert's output is multiplied by 1 + p - detach(p). That is 1, so that the layer computes
  what is printed, and the gate gets the gradient that a factor p would give it.
- ``probability``: it is multiplied by the gate's probability p of the expert (as in the Switch Transformer).
- ``none``: as printed. The gate gets no gradient but that of a balance loss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bottega.models.moe_config import Average, GateNoise, GatePath
from bottega.shapes import TokenMask, Tokens

Vectors = Float[Tensor, "*rows features"]
"""What a gate looks at: tokens, or embeddings of noise levels."""

Scores = Float[Tensor, "*rows experts"]
"""One number per expert, for each of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Exploring:
    """What gates are told while they train: how far training is, and where their noise comes from.

    Painting tells them nothing, and then there is no noise.
    """

    images_seen: int
    generator: torch.Generator | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SpaceRoute:
    """Which expert every token of a prompt goes to, in one layer.

    Attributes:
        expert: The expert each token goes to.
        probabilities: What the gate gave each expert, noise included; float32 or wider.
        real: Which tokens are no padding.
        weights: What a token adds to each expert's weight where it is looked at; most are 0. A token's row holds its
            share of the average, times the factor through which the gate learns.
        used: The experts that some token goes to, which are all that need be in memory.
    """

    expert: Int[Tensor, "batch tokens"]
    probabilities: Float[Tensor, "batch tokens experts"]
    real: TokenMask
    weights: Float[Tensor, "batch tokens experts"]
    used: tuple[int, ...]

    @property
    def probability(self) -> Float[Tensor, "batch tokens"]:
        """What the gate gave the expert that was chosen."""
        return self.probabilities.gather(-1, self.expert[..., None])[..., 0]

    def select(self, indices: Sequence[int] | Int[Tensor, "picked"]) -> "SpaceRoute":
        """The route of some of the prompts, in the order asked for; one for all stays one for all."""
        if len(self.expert) == 1:
            return self
        picked = torch.as_tensor(indices, dtype=torch.long, device=self.expert.device)
        weights = self.weights[picked]
        return replace(
            self,
            expert=self.expert[picked],
            probabilities=self.probabilities[picked],
            real=self.real[picked],
            weights=weights,
            used=_used(weights),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeRoute:
    """Which expert every picture goes to by its noise level, in one layer.

    ``factor`` multiplies the expert's output; through it the gate learns. ``used`` are the experts that some picture
    goes to.
    """

    expert: Int[Tensor, "batch"]
    probabilities: Float[Tensor, "batch experts"]
    factor: Float[Tensor, "batch"]
    used: tuple[int, ...]

    def select(self, indices: Sequence[int] | Int[Tensor, "picked"]) -> "TimeRoute":
        """The route of some of the pictures, in the order asked for; one for all stays one for all."""
        if len(self.expert) == 1:
            return self
        picked = torch.as_tensor(indices, dtype=torch.long, device=self.expert.device)
        expert = self.expert[picked]
        return replace(
            self,
            expert=expert,
            probabilities=self.probabilities[picked],
            factor=self.factor[picked],
            used=_listed(expert, self.probabilities.shape[-1]),
        )


_SPREAD = 4.8
"""For features of unit variance and the inner layer's own beginning; see `Gate`."""


class Gate(nn.Module):
    """Linear, GELU, linear: a score per expert.

    Scores are taken further in float32 at least, whatever the network's precision. They begin about one apart, so that
    a token keeps its expert from the first step on. Where they begin alike, noise and the optimiser's own steps choose,
    every expert is shown everything, and what they learn is the same.
    """

    def __init__(self, width: int, gate_width: int, num_experts: int, noise: GateNoise) -> None:
        super().__init__()
        self.noise = noise
        self.num_experts = num_experts
        self.inner = nn.Linear(width, gate_width)
        self.scores = nn.Linear(gate_width, num_experts)
        nn.init.normal_(self.scores.weight, std=_SPREAD / math.sqrt(gate_width))
        nn.init.zeros_(self.scores.bias)
        with torch.no_grad():  # what all features have in common shall favour no expert
            self.scores.weight -= self.scores.weight.mean(dim=1, keepdim=True)

    def forward(self, features: Vectors, exploring: Exploring | None = None) -> Scores:
        """Probabilities of the experts; with noise on the logits while exploring."""
        hidden = F.gelu(self.inner(features.to(self.inner.weight.dtype)))
        logits = self.scores(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if exploring is not None:
            std = self.noise.at(exploring.images_seen, self.num_experts)
            if std > 0:
                logits = logits + std * _draw(logits, exploring.generator)
        return logits.softmax(dim=-1)


def route_tokens(
    gate: Gate,
    tokens: Tokens,
    mask: TokenMask,
    *,
    average: Average,
    path: GatePath,
    exploring: Exploring | None = None,
) -> SpaceRoute:
    """Send every token to its likeliest expert.

    Source: RAPHAEL (arXiv:2305.18295), section 3.1, route(y_i) = argmax(softmax(G(E(y_i)) + noise)). It says nothing
    of padding: ``real_tokens`` is ours.
    """
    probabilities = gate(tokens, exploring)
    expert = probabilities.argmax(dim=-1)
    factor = _factor(probabilities, expert, path)
    if average == "real_tokens":
        counted = mask.to(factor.dtype)
        factor = factor * counted / counted.sum(dim=1, keepdim=True).clamp(min=1)
    else:
        factor = factor / tokens.shape[1]
    weights = F.one_hot(expert, gate.num_experts).to(factor.dtype) * factor[..., None]
    return SpaceRoute(
        expert=expert,
        probabilities=probabilities,
        real=mask,
        weights=weights,
        used=_used(weights),
    )


def route_times(
    gate: Gate, features: Vectors, *, path: GatePath, exploring: Exploring | None = None
) -> TimeRoute:
    """Send every picture to its likeliest expert.

    Source: RAPHAEL (arXiv:2305.18295), section 3.2, t_router(t) = argmax(softmax(G'(E'(t)) + noise)).
    """
    probabilities = gate(features, exploring)
    expert = probabilities.argmax(dim=-1)
    return TimeRoute(
        expert=expert,
        probabilities=probabilities,
        factor=_factor(probabilities, expert, path),
        used=_listed(expert, gate.num_experts),
    )


def _factor(
    probabilities: Scores, expert: Int[Tensor, "*rows"], path: GatePath
) -> Float[Tensor, "*rows"]:
    chosen = probabilities.gather(-1, expert[..., None])[..., 0]
    if path == "probability":
        return chosen
    if path == "straight_through":
        return 1 + (chosen - chosen.detach())
    return torch.ones_like(chosen)


def _draw(like: Scores, generator: torch.Generator | None) -> Scores:
    """Unit Gaussian noise, drawn where the generator lives."""
    device = like.device if generator is None else generator.device
    draw = torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype)
    return draw.to(like.device)


def _used(weights: Float[Tensor, "batch tokens experts"]) -> tuple[int, ...]:
    if weights.is_meta:
        return tuple(range(weights.shape[-1]))
    present = (weights.detach() > 0).flatten(0, 1).any(dim=0)
    return tuple(present.nonzero()[:, 0].tolist())


def _listed(expert: Int[Tensor, "batch"], num_experts: int) -> tuple[int, ...]:
    if expert.is_meta:
        return tuple(range(num_experts))
    return tuple(sorted(set(expert.tolist())))


__all__ = ["Exploring", "Gate", "SpaceRoute", "TimeRoute", "route_times", "route_tokens"]
