"""The block plan of a U-Net: frozen dataclasses that say everything its modules are built from.

Widths count channels; a stride is how many times smaller a level's picture is than the one before it.
"""

from dataclasses import dataclass
from typing import Literal

from bottega.models.attention_config import (
    Attention,
    ChannelsPerGroup,
    CrossOnly,
    ExpertTransformer,
    FeedForward,
    FusedAttention,
    GatedFeedForward,
    NoAttention,
    Norm,
    NumGroups,
    PlainFeedForward,
    SelfAttention,
    SelfThenCross,
    Transformer,
    reads_text,
    require,
)
from bottega.models.stream_config import (
    AttentionPool,
    LowRes,
    MeanPool,
    Periods,
    Pool,
    PooledVector,
    Sinusoid,
    StreamPlan,
    VectorWithNumbers,
)

MAX_BLOCKS = 256
"""More residual blocks in a level are taken for a mistake."""


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
        require(self.width > 0, f"level.width must be positive, got {self.width}")
        require(
            self.down_blocks > 0, f"level.down_blocks must be at least 1, got {self.down_blocks}"
        )
        require(self.up_blocks > 0, f"level.up_blocks must be at least 1, got {self.up_blocks}")
        require(
            max(self.down_blocks, self.up_blocks) <= MAX_BLOCKS,
            f"a level has at most {MAX_BLOCKS} blocks on either way, got {self.down_blocks} and {self.up_blocks}",
        )
        head_width = getattr(self.attention, "head_width", 1)
        for name, width in (("width", self.width), ("up_width", self.width_up)):
            require(
                head_width > 0 and width > 0 and width % head_width == 0,
                f"level.{name} {width} must be a multiple of attention.head_width {head_width}",
            )

    @property
    def width_up(self) -> int:
        """The width of the blocks on the way up."""
        return self.width if self.up_width is None else self.up_width


@dataclass(frozen=True, kw_only=True)
class DividedSum:
    """A residual block gives (shortcut + branch) / divisor."""

    divisor: float = 2**0.5

    def __post_init__(self) -> None:
        require(self.divisor > 0, f"residual.divisor must be positive, got {self.divisor}")


Residual = Literal["plain", "scaled_sum", "scaled_shortcut"] | DividedSum
"""Where the sum of a residual block is scaled; the names stand for 1/sqrt(2)."""


@dataclass(frozen=True, kw_only=True)
class Middle:
    """Residual block, attention, residual block between the way down and the way up.

    ``residual`` is for these two blocks where they differ from the network's others.
    """

    attention: Attention = NoAttention()
    residual: Residual | None = None


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
class UNetConfig:
    """Everything a `UNet` is built from.

    ``patch`` folds squares of pixels into channels before the first convolution. ``context_width`` is the width all
    streams are projected to. ``skips_from`` says whether every block on the way up gets a long skip (ADM) or one per
    level does (Efficient U-Net). ``residual`` says where 1/sqrt(2) stands in a residual block: nowhere, on the sum (IF,
    SR3), or on the shortcut alone (NeMo); or by what the sum is divided. ``time_activation`` is the one inside the
    perceptrons of noise levels. Without ``null_token`` text attention has nothing but the streams to look at, and an
    empty text must be given as the network learned it.
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
    residual: Residual = "plain"
    time: Literal["scale_shift", "add"] = "scale_shift"
    time_width: int = 512
    time_activation: Literal["silu", "gelu"] = "silu"
    sinusoid: Sinusoid | Periods = Sinusoid()
    norm: Norm = ChannelsPerGroup()
    activation: Literal["silu", "gelu"] = "silu"
    dropout: float = 0.0
    streams: tuple[StreamPlan, ...] = ()
    context_width: int = 256
    null_token: bool = True
    low_res: LowRes | None = None

    def __post_init__(self) -> None:
        require(len(self.levels) > 0, "levels must name at least one level")
        for name in ("in_channels", "out_channels", "patch", "time_width", "context_width"):
            value = getattr(self, name)
            require(value > 0, f"{name} must be positive, got {value}")
        require(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}")
        require(self.time_width % 2 == 0, f"time_width must be even, got {self.time_width}")
        widths = {w for level in self.levels for w in (level.width, level.width_up)}
        for width in sorted({self.first_width, *widths}):
            require(
                self.norm.groups(width) > 0,
                f"norm: {self.norm} does not divide a width of {width}; change levels or norm",
            )
        for stream in self.streams:
            require(
                stream.project or stream.width == self.context_width,
                f"streams.{stream.name}.project: without it the width {stream.width} must be "
                f"context_width, {self.context_width}",
            )
        names = [stream.name for stream in self.streams]
        require(len(names) == len(set(names)), f"streams must have distinct names, got {names}")
        for level in self.levels:
            require(
                self.streams != () or not reads_text(level.attention),
                f"levels: {type(level.attention).__name__} reads text, but streams is empty",
            )
        attentions = [level.attention for level in self.levels]
        attentions += [] if self.middle is None else [self.middle.attention]
        for attention in attentions:
            norm = getattr(attention, "text_norm", None)
            require(
                norm is None or norm.groups(self.context_width) > 0,
                f"attention.text_norm: {norm} does not divide context_width {self.context_width}",
            )
        if self.middle is not None:
            head_width = getattr(self.middle.attention, "head_width", 1)
            require(
                head_width > 0 and self.levels[-1].width % head_width == 0,
                f"middle.attention.head_width {head_width} must divide {self.levels[-1].width}",
            )
            require(
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
    def has_experts(self) -> bool:
        """Whether a gate chooses experts anywhere in it."""
        middle = () if self.middle is None else (self.middle.attention,)
        kinds = (*(level.attention for level in self.levels), *middle)
        return any(
            isinstance(kind, ExpertTransformer) and (kind.time, kind.space) != (None, None)
            for kind in kinds
        )

    @property
    def is_convolutional(self) -> bool:
        """Whether no position looks at distant ones, so that what learns on crops can paint whole pictures."""
        middle = () if self.middle is None else (self.middle.attention,)
        kinds = (*(level.attention for level in self.levels), *middle)
        return all(isinstance(kind, NoAttention | CrossOnly) for kind in kinds)

    @property
    def downsampling(self) -> int:
        """A picture's height and width must be multiples of this."""
        total = self.patch
        for level in self.levels:
            total *= level.stride
        return total


__all__ = [
    "AddSkips",
    "Attention",
    "AttentionPool",
    "BlockResample",
    "ChannelsPerGroup",
    "ConcatSkips",
    "ConvResample",
    "CrossOnly",
    "DividedSum",
    "ExpertTransformer",
    "FeedForward",
    "FusedAttention",
    "GatedFeedForward",
    "Level",
    "LowRes",
    "MeanPool",
    "Middle",
    "NoAttention",
    "Norm",
    "NumGroups",
    "PatchResample",
    "Periods",
    "PlainFeedForward",
    "Pool",
    "PooledVector",
    "Resample",
    "Residual",
    "SelfAttention",
    "SelfThenCross",
    "Sinusoid",
    "Skips",
    "StreamPlan",
    "Transformer",
    "UNetConfig",
    "VectorWithNumbers",
    "reads_text",
]
