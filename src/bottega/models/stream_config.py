"""How a network is told things: noise levels, streams of tokens, vectors, a picture to enlarge."""

from dataclasses import dataclass
from typing import Literal

from bottega.models.attention_config import require


@dataclass(frozen=True, kw_only=True)
class PooledVector:
    """The encoder's own vector of the whole text or picture, ``width`` wide, added to the time embedding (eDiff-I)."""

    width: int


@dataclass(frozen=True, kw_only=True)
class AttentionPool:
    """A vector pooled from the stream's tokens by attention, added to the time embedding (Imagen)."""

    head_width: int = 64


@dataclass(frozen=True, kw_only=True)
class MeanPool:
    """A vector pooled from all tokens, real or not, by attention whose query is their mean (DeepFloyd IF)."""

    heads: int = 64


@dataclass(frozen=True, kw_only=True)
class VectorWithNumbers:
    """The encoder's own vector beside sinusoids of the condition's numbers, added to the time embedding (SDXL).

    ``width`` counts all features together, ``features`` those of one number.
    """

    width: int
    features: int = 256

    def __post_init__(self) -> None:
        require(
            self.features > 0 and self.features % 2 == 0,
            f"pool.features must be even and positive, got {self.features}",
        )
        require(
            self.width > self.features,
            f"pool.width {self.width} leaves no room for a number of {self.features} features",
        )


Pool = PooledVector | AttentionPool | MeanPool | VectorWithNumbers


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """How one encoder's stream enters: its tokens by attention, and perhaps one vector by the time embedding.

    ``norm`` puts a layer norm on the tokens (Imagen found that it helps), ``project`` a linear layer
    to the common width.
    """

    name: str
    width: int
    pool: Pool | None = None
    norm: bool = True
    project: bool = True

    def __post_init__(self) -> None:
        require(self.width > 0, f"streams.{self.name}.width must be positive, got {self.width}")
        if isinstance(self.pool, AttentionPool):
            head_width = self.pool.head_width
            require(
                head_width > 0 and self.width % head_width == 0,
                f"streams.{self.name}.pool.head_width {head_width} must divide {self.width}",
            )
        if isinstance(self.pool, MeanPool):
            require(
                self.pool.heads > 0 and self.width % self.pool.heads == 0,
                f"streams.{self.name}.pool.heads {self.pool.heads} must divide {self.width}",
            )


@dataclass(frozen=True, kw_only=True)
class Sinusoid:
    """Frequencies of the noise embedding, in radians per unit of c_noise, spaced evenly in their logarithm."""

    lowest: float = 0.5
    highest: float = 64.0

    def __post_init__(self) -> None:
        require(
            0 < self.lowest < self.highest,
            f"sinusoid needs 0 < lowest < highest, got {self.lowest} and {self.highest}",
        )


@dataclass(frozen=True, kw_only=True)
class Periods:
    """Frequencies ``longest ** (-k / (n - shift))`` for k = 0 .. n - 1, as the transformer's position code has them.

    The network is then told whole timesteps. ``sines_first`` swaps the halves.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.5; Ho et al. 2020 (arXiv:2006.11239) with ``shift`` 1.
    """

    longest: float = 10_000.0
    shift: float = 0.0
    sines_first: bool = False

    def __post_init__(self) -> None:
        require(self.longest > 1, f"sinusoid.longest must exceed 1, got {self.longest}")


@dataclass(frozen=True, kw_only=True)
class LowRes:
    """The network enlarges a picture ``scale`` times smaller than its own, given in the condition.

    ``level`` is how the network is told how noisy that picture is: by the logarithm of its sigma, or by the number the
    condition carries as it stands (a timestep of DeepFloyd IF).
    """

    scale: int = 4
    channels: int = 3
    level: Literal["log_sigma", "as_given"] = "log_sigma"

    def __post_init__(self) -> None:
        require(self.scale > 0, f"low_res.scale must be positive, got {self.scale}")


__all__ = [
    "AttentionPool",
    "LowRes",
    "MeanPool",
    "Periods",
    "Pool",
    "PooledVector",
    "Sinusoid",
    "StreamPlan",
    "VectorWithNumbers",
]
