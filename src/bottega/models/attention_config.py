"""Norms and kinds of attention that a block plan chooses from."""

from dataclasses import dataclass, field

from bottega.models.moe_config import SpaceMoEConfig, TimeMoEConfig
from bottega.models.require import require


@dataclass(frozen=True, kw_only=True)
class ChannelsPerGroup:
    """Group norm with groups of a fixed width; multiples of 16 are what a CPU normalises fast."""

    channels: int = 16

    def __post_init__(self) -> None:
        require(self.channels > 0, f"norm.channels must be positive, got {self.channels}")

    def groups(self, width: int) -> int:
        """How many groups ``width`` channels fall into."""
        return width // self.channels if width % self.channels == 0 else 0


@dataclass(frozen=True, kw_only=True)
class NumGroups:
    """Group norm with a fixed number of groups, 32 in ADM and all that followed it."""

    num: int = 32

    def __post_init__(self) -> None:
        require(self.num > 0, f"norm.num must be positive, got {self.num}")

    def groups(self, width: int) -> int:
        """How many groups ``width`` channels fall into."""
        return self.num if width % self.num == 0 else 0


Norm = ChannelsPerGroup | NumGroups


@dataclass(frozen=True, kw_only=True)
class NoAttention:
    """Convolutions alone."""


@dataclass(frozen=True, kw_only=True)
class SelfAttention:
    """Every position looks at every other; no text (ADM)."""

    head_width: int = 64


@dataclass(frozen=True, kw_only=True)
class FusedAttention:
    """Positions and text tokens under one softmax (Imagen's base and 256 px networks).

    ``text_norm`` puts a group norm on the text before its keys and values are made (DeepFloyd IF).
    """

    head_width: int = 64
    text_norm: NumGroups | None = None


@dataclass(frozen=True, kw_only=True)
class SelfThenCross:
    """Self-attention, then a cross-attention of its own (eDiff-I)."""

    head_width: int = 64


@dataclass(frozen=True, kw_only=True)
class CrossOnly:
    """Text alone, so that the network stays convolutional in the picture (Imagen and eDiff-I at 1024 px).

    ``text_norm`` is as in `FusedAttention`.
    """

    head_width: int = 64
    text_norm: NumGroups | None = None


@dataclass(frozen=True, kw_only=True)
class GatedFeedForward:
    """A feed-forward gated by GELU, ``ratio`` times as wide inside (GEGLU, Stable Diffusion)."""

    ratio: float = 4.0


@dataclass(frozen=True, kw_only=True)
class PlainFeedForward:
    """Linear, GELU, linear, ``ratio`` times as wide inside."""

    ratio: float = 4.0


FeedForward = GatedFeedForward | PlainFeedForward


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """Blocks of self-attention, cross-attention and a feed-forward, as Stable Diffusion has them.

    ``qkv_bias`` gives queries, keys and values a bias, which Stable Diffusion's lack; ``norm_eps`` is what its group
    norm adds to the variance.
    """

    depth: int = 1
    head_width: int = 64
    feed_forward: FeedForward = GatedFeedForward()
    qkv_bias: bool = True
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        require(self.depth > 0, f"attention.depth must be positive, got {self.depth}")
        require(self.norm_eps > 0, f"attention.norm_eps must be positive, got {self.norm_eps}")


@dataclass(frozen=True, kw_only=True)
class ExpertTransformer:
    """Blocks of self-attention, cross-attention, time-MoE and space-MoE, as RAPHAEL has them.

    Without ``time`` or ``space`` a block lacks that layer. ``feed_forward`` is an ordinary one before the two, which
    RAPHAEL does not have: alone it is the dense network to compare with. ``qkv_bias`` and ``norm_eps`` are as in
    `Transformer`.

    Source: RAPHAEL (arXiv:2305.18295), section 3. Norms and residuals are not stated; ours are a layer norm before and
    a residual around each of the four.
    """

    depth: int = 1
    head_width: int = 64
    time: TimeMoEConfig | None = field(default_factory=TimeMoEConfig)
    space: SpaceMoEConfig | None = field(default_factory=SpaceMoEConfig)
    feed_forward: FeedForward | None = None
    qkv_bias: bool = False
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        require(self.depth > 0, f"attention.depth must be positive, got {self.depth}")
        require(self.norm_eps > 0, f"attention.norm_eps must be positive, got {self.norm_eps}")
        has_any = not (self.time is None and self.space is None and self.feed_forward is None)
        require(has_any, "attention needs time, space or feed_forward; give at least one of them")


Attention = (
    NoAttention
    | SelfAttention
    | FusedAttention
    | SelfThenCross
    | CrossOnly
    | Transformer
    | ExpertTransformer
)


def reads_text(attention: Attention) -> bool:
    """Whether this kind of attention looks at the streams."""
    return isinstance(
        attention, FusedAttention | SelfThenCross | CrossOnly | Transformer | ExpertTransformer
    )


__all__ = [
    "Attention",
    "ChannelsPerGroup",
    "CrossOnly",
    "ExpertTransformer",
    "FeedForward",
    "FusedAttention",
    "GatedFeedForward",
    "NoAttention",
    "Norm",
    "NumGroups",
    "PlainFeedForward",
    "SelfAttention",
    "SelfThenCross",
    "Transformer",
    "reads_text",
    "require",
]
