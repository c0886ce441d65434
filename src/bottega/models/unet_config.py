"""The block plan of a U-Net: frozen dataclasses that say everything its modules are built from.

Widths count channels; a stride is how many times smaller a level's picture is than the one before it.
"""

from dataclasses import dataclass
from typing import Literal

from bottega.errors import ConfigError


def _require(fine: bool, message: str) -> None:
    if not fine:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class ChannelsPerGroup:
    """Group norm with groups of a fixed width; multiples of 16 are what a CPU normalises fast."""

    channels: int = 16

    def __post_init__(self) -> None:
        _require(self.channels > 0, f"norm.channels must be positive, got {self.channels}")

    def groups(self, width: int) -> int:
        """How many groups ``width`` channels fall into."""
        return width // self.channels if width % self.channels == 0 else 0


@dataclass(frozen=True, kw_only=True)
class NumGroups:
    """Group norm with a fixed number of groups, 32 in ADM and all that followed it."""

    num: int = 32

    def __post_init__(self) -> None:
        _require(self.num > 0, f"norm.num must be positive, got {self.num}")

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
    """Positions and text tokens under one softmax (Imagen's base and 256 px networks)."""

    head_width: int = 64


@dataclass(frozen=True, kw_only=True)
class SelfThenCross:
    """Self-attention, then a cross-attention of its own (eDiff-I)."""

    head_width: int = 64


@dataclass(frozen=True, kw_only=True)
class CrossOnly:
    """Text alone, so that the network stays convolutional in the picture (Imagen and eDiff-I at 1024 px)."""

    head_width: int = 64


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
    """Blocks of self-attention, cross-attention and a feed-forward, as Stable Diffusion has them."""

    depth: int = 1
    head_width: int = 64
    feed_forward: FeedForward = GatedFeedForward()

    def __post_init__(self) -> None:
        _require(self.depth > 0, f"attention.depth must be positive, got {self.depth}")


Attention = NoAttention | SelfAttention | FusedAttention | SelfThenCross | CrossOnly | Transformer


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of the U-Net, on the way down and on the way up.

    ``stride`` shrinks the picture when the level is entered. A stride of 2 on the first level is the Efficient U-Net's
    rule: resample before the convolutions on the way down, after them on the way up. ``up_width`` is the width of the
    blocks on the way up where it is not the same.
    """

    width: int
    up_width: int | None = None
    down_blocks: int = 2
    up_blocks: int = 2
    stride: Literal[1, 2] = 2
    attention: Attention = NoAttention()
    attention_after: Literal["every_block", "last_block"] = "every_block"

    def __post_init__(self) -> None:
        _require(self.width > 0, f"level.width must be positive, got {self.width}")
        _require(
            self.down_blocks > 0, f"level.down_blocks must be at least 1, got {self.down_blocks}"
        )
        _require(self.up_blocks > 0, f"level.up_blocks must be at least 1, got {self.up_blocks}")
        head_width = getattr(self.attention, "head_width", 1)
        for name, width in (("width", self.width), ("up_width", self.width_up)):
            _require(
                head_width > 0 and width > 0 and width % head_width == 0,
                f"level.{name} {width} must be a multiple of attention.head_width {head_width}",
            )

    @property
    def width_up(self) -> int:
        """The width of the blocks on the way up."""
        return self.width if self.up_width is None else self.up_width


@dataclass(frozen=True, kw_only=True)
class Middle:
    """Residual block, attention, residual block between the way down and the way up."""

    attention: Attention = NoAttention()


@dataclass(frozen=True, kw_only=True)
class PatchResample:
    """Patches of 2 x 2 pixels folded into channels and a 1 x 1 product: the cheapest resampling that loses nothing."""


@dataclass(frozen=True, kw_only=True)
class ConvResample:
    """A 3 x 3 convolution of stride 2 down; nearest neighbours and a 3 x 3 convolution up.

    ``widen`` lets the convolutions change the width (Efficient U-Net); otherwise blocks do.
    """

    widen: bool = False


@dataclass(frozen=True, kw_only=True)
class BlockResample:
    """A residual block that resamples in its middle ("biggan" in ADM and Imagen's base)."""


Resample = PatchResample | ConvResample | BlockResample


@dataclass(frozen=True, kw_only=True)
class ConcatSkips:
    """Long skips joined as further channels, each times ``scale``."""

    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class AddSkips:
    """Long skips added, each times ``scale``."""

    scale: float = 1.0


Skips = ConcatSkips | AddSkips


@dataclass(frozen=True, kw_only=True)
class PooledVector:
    """The encoder's own vector of the whole text or picture, ``width`` wide, added to the time embedding (eDiff-I)."""

    width: int


@dataclass(frozen=True, kw_only=True)
class AttentionPool:
    """A vector pooled from the stream's tokens by attention, added to the time embedding (Imagen)."""

    head_width: int = 64


Pool = PooledVector | AttentionPool


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
        _require(self.width > 0, f"streams.{self.name}.width must be positive, got {self.width}")
        if isinstance(self.pool, AttentionPool):
            head_width = self.pool.head_width
            _require(
                head_width > 0 and self.width % head_width == 0,
                f"streams.{self.name}.pool.head_width {head_width} must divide {self.width}",
            )


@dataclass(frozen=True, kw_only=True)
class Sinusoid:
    """Frequencies of the noise embedding, in radians per unit of c_noise, spaced evenly in their logarithm."""

    lowest: float = 0.5
    highest: float = 64.0

    def __post_init__(self) -> None:
        _require(
            0 < self.lowest < self.highest,
            f"sinusoid needs 0 < lowest < highest, got {self.lowest} and {self.highest}",
        )


@dataclass(frozen=True, kw_only=True)
class LowRes:
    """The network enlarges a picture ``scale`` times smaller than its own, given in the condition."""

    scale: int = 4
    channels: int = 3

    def __post_init__(self) -> None:
        _require(self.scale > 0, f"low_res.scale must be positive, got {self.scale}")


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Everything a `UNet` is built from.

    ``patch`` folds squares of pixels into channels before the first convolution. ``context_width`` is the width all
    streams are projected to. ``skips_from`` says whether every block on the way up gets a long skip (ADM) or one per
    level does (Efficient U-Net). ``residual`` says where 1/sqrt(2) stands in a residual block: nowhere, on the sum (IF,
    SR3), or on the shortcut alone (NeMo).
    """

    levels: tuple[Level, ...]
    in_channels: int = 3
    out_channels: int = 3
    patch: int = 1
    stem_width: int | None = None
    middle: Middle | None = Middle()
    resample: Resample = PatchResample()
    skips: Skips = ConcatSkips()
    skips_from: Literal["every_block", "level"] = "every_block"
    residual: Literal["plain", "scaled_sum", "scaled_shortcut"] = "plain"
    time: Literal["scale_shift", "add"] = "scale_shift"
    time_width: int = 512
    sinusoid: Sinusoid = Sinusoid()
    norm: Norm = ChannelsPerGroup()
    activation: Literal["silu", "gelu"] = "silu"
    dropout: float = 0.0
    streams: tuple[StreamPlan, ...] = ()
    context_width: int = 256
    low_res: LowRes | None = None

    def __post_init__(self) -> None:
        _require(len(self.levels) > 0, "levels must name at least one level")
        for name in ("in_channels", "out_channels", "patch", "time_width", "context_width"):
            value = getattr(self, name)
            _require(value > 0, f"{name} must be positive, got {value}")
        _require(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}")
        _require(self.time_width % 2 == 0, f"time_width must be even, got {self.time_width}")
        widths = {w for level in self.levels for w in (level.width, level.width_up)}
        for width in sorted({self.first_width, *widths}):
            _require(
                self.norm.groups(width) > 0,
                f"norm: {self.norm} does not divide a width of {width}; change levels or norm",
            )
        for stream in self.streams:
            _require(
                stream.project or stream.width == self.context_width,
                f"streams.{stream.name}.project: without it the width {stream.width} must be "
                f"context_width, {self.context_width}",
            )
        names = [stream.name for stream in self.streams]
        _require(len(names) == len(set(names)), f"streams must have distinct names, got {names}")
        for level in self.levels:
            _require(
                self.streams != () or not reads_text(level.attention),
                f"levels: {type(level.attention).__name__} reads text, but streams is empty",
            )
        if self.middle is not None:
            head_width = getattr(self.middle.attention, "head_width", 1)
            _require(
                head_width > 0 and self.levels[-1].width % head_width == 0,
                f"middle.attention.head_width {head_width} must divide {self.levels[-1].width}",
            )
            _require(
                self.streams != () or not reads_text(self.middle.attention),
                f"middle: {type(self.middle.attention).__name__} reads text, but streams is empty",
            )

    @property
    def first_width(self) -> int:
        """The width after the first convolution."""
        return self.levels[0].width if self.stem_width is None else self.stem_width

    @property
    def resample_widens(self) -> bool:
        """Whether resampling changes the width too, rather than the block after it."""
        match self.resample:
            case PatchResample():
                return True
            case ConvResample(widen=widen):
                return widen
            case BlockResample():
                return False

    @property
    def downsampling(self) -> int:
        """A picture's height and width must be multiples of this."""
        total = self.patch
        for level in self.levels:
            total *= level.stride
        return total


def reads_text(attention: Attention) -> bool:
    """Whether this kind of attention looks at the streams."""
    return isinstance(attention, FusedAttention | SelfThenCross | CrossOnly | Transformer)


__all__ = [
    "AddSkips",
    "Attention",
    "AttentionPool",
    "BlockResample",
    "ChannelsPerGroup",
    "ConcatSkips",
    "ConvResample",
    "CrossOnly",
    "FeedForward",
    "FusedAttention",
    "GatedFeedForward",
    "Level",
    "LowRes",
    "Middle",
    "NoAttention",
    "Norm",
    "NumGroups",
    "PatchResample",
    "PlainFeedForward",
    "Pool",
    "PooledVector",
    "Resample",
    "SelfAttention",
    "SelfThenCross",
    "Sinusoid",
    "Skips",
    "StreamPlan",
    "Transformer",
    "UNetConfig",
    "reads_text",
]
