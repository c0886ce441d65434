"""Settings of the two mixture-of-experts layers of RAPHAEL, and of what makes their gates explore and learn."""

import math
from dataclasses import dataclass
from typing import Literal

from bottega.models.require import require

GatePath = Literal["straight_through", "probability", "none"]
"""How a gate learns through a choice that has no gradient; see `bottega.models.moe_gates`."""

Average = Literal["all_tokens", "real_tokens"]
"""Which tokens the space-MoE's average is over."""


@dataclass(frozen=True, kw_only=True)
class GateNoise:
    """Gaussian noise on a gate's logits while it trains, so that no expert is forgotten early.

    ``std`` is that of a draw which is then divided by the number of experts; 0 is no noise. With ``anneal_images``
    it falls linearly to nothing over so many images; 0 keeps it as it is.

    Source: RAPHAEL (arXiv:2305.18295), section 3.1: noise inside the softmax. Its law and scale are not given.
    """

    std: float = 1.0
    anneal_images: int = 0

    def __post_init__(self) -> None:
        require(self.std >= 0, f"noise.std must not be negative, got {self.std}")
        require(
            self.anneal_images >= 0,
            f"noise.anneal_images must not be negative, got {self.anneal_images}",
        )

    def at(self, images_seen: int, num_experts: int) -> float:
        """The noise's standard deviation in logits after so many images."""
        left = 1.0
        if self.anneal_images > 0:
            left = max(0.0, 1 - images_seen / self.anneal_images)
        return left * self.std / num_experts


@dataclass(frozen=True, kw_only=True)
class SpaceMoEConfig:
    """A feed-forward of several experts: every word picks one, which works where the word is looked at.

    Attributes:
        experts: How many there are (the paper's k).
        alpha: A word's place is where its attention reaches this share of its largest.
        average: ``all_tokens`` divides by all tokens and sends padding to experts too, as printed;
            ``real_tokens`` leaves padding out.
        ratio: How much wider than the positions an expert is inside.
        bias: Whether experts have biases. Without, a place that no word claims gets nothing at all.
        gate_width: Inner width of the gate.
        gate_path: How the gate learns.
        noise: What the gate's logits are disturbed by in training.
    """

    experts: int = 6
    alpha: float = 0.2
    average: Average = "all_tokens"
    ratio: float = 4.0
    bias: bool = True
    gate_width: int = 256
    gate_path: GatePath = "straight_through"
    noise: GateNoise = GateNoise()

    def __post_init__(self) -> None:
        _check("space_moe", self.experts, self.ratio, self.gate_width)
        fine = math.isfinite(self.alpha) and self.alpha >= 0
        require(fine, f"space_moe.alpha must be 0 or more, got {self.alpha}")


@dataclass(frozen=True, kw_only=True)
class TimeMoEConfig:
    """A feed-forward of several experts, of which a gate picks one per picture by its noise level.

    The attributes are as in `SpaceMoEConfig`.
    """

    experts: int = 4
    ratio: float = 4.0
    bias: bool = True
    gate_width: int = 256
    gate_path: GatePath = "straight_through"
    noise: GateNoise = GateNoise()

    def __post_init__(self) -> None:
        _check("time_moe", self.experts, self.ratio, self.gate_width)


def _check(name: str, experts: int, ratio: float, gate_width: int) -> None:
    require(experts > 0, f"{name}.experts must be positive, got {experts}")
    require(ratio > 0, f"{name}.ratio must be positive, got {ratio}")
    require(gate_width > 0, f"{name}.gate_width must be positive, got {gate_width}")


__all__ = ["Average", "GateNoise", "GatePath", "SpaceMoEConfig", "TimeMoEConfig"]
