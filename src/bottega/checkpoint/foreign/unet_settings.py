"""What a diffusers U-Net's ``config.json`` says, and the block plan of ours that computes the same.

Their words mislead in places: ``attention_head_dim`` counts heads in Stable Diffusion's blocks and is a head's width in
DeepFloyd IF's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bottega.config import from_json
from bottega.errors import CheckpointError, ConfigError, nearest
from bottega.models import UNetConfig
from bottega.models.unet_config import (
    Attention,
    BlockResample,
    ConvResample,
    CrossOnly,
    DividedSum,
    FusedAttention,
    Level,
    LowRes,
    MeanPool,
    Middle,
    NoAttention,
    NumGroups,
    Periods,
    Pool,
    Residual,
    StreamPlan,
    Transformer,
    VectorWithNumbers,
)

CLASS_NAME = "UNet2DConditionModel"
"""The one class of network that is read."""

_CONV_DOWN = ("DownBlock2D", "CrossAttnDownBlock2D")
_CONV_UP = ("UpBlock2D", "CrossAttnUpBlock2D")
_SIMPLE_DOWN = ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D")
_SIMPLE_UP = ("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D")
_CONV_MIDDLE = "UNetMidBlock2DCrossAttn"
_SIMPLE_MIDDLE = "UNetMidBlock2DSimpleCrossAttn"
_TEXT_GROUPS = 32  # fixed there
_TRANSFORMER_EPS = 1e-6  # fixed there
_MAX_WIDTH = 1 << 17
_MAX_BLOCKS = 64  # per level, and as many levels


@dataclass(frozen=True, kw_only=True)
class UNetSettings:
    """Every setting of diffusers' class under its own name and with its own default."""

    sample_size: int | tuple[int, ...] | None = None
    in_channels: int = 4
    out_channels: int = 4
    center_input_sample: bool = False
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    down_block_types: tuple[str, ...] = (*_CONV_DOWN[1:] * 3, _CONV_DOWN[0])
    mid_block_type: str | None = _CONV_MIDDLE
    up_block_types: tuple[str, ...] = (_CONV_UP[0], *_CONV_UP[1:] * 3)
    only_cross_attention: bool | tuple[bool, ...] = False
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    downsample_padding: int = 1
    mid_block_scale_factor: float = 1.0
    dropout: float = 0.0
    act_fn: str = "silu"
    norm_num_groups: int | None = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int | tuple[int, ...] = 1280
    transformer_layers_per_block: int | tuple[int, ...] = 1
    reverse_transformer_layers_per_block: tuple[int, ...] | None = None
    encoder_hid_dim: int | None = None
    encoder_hid_dim_type: str | None = None
    attention_head_dim: int | tuple[int, ...] = 8
    num_attention_heads: int | tuple[int, ...] | None = None
    dual_cross_attention: bool = False
    use_linear_projection: bool = False
    class_embed_type: str | None = None
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    num_class_embeds: int | None = None
    upcast_attention: bool = False
    resnet_time_scale_shift: str = "default"
    resnet_skip_time_act: bool = False
    resnet_out_scale_factor: float = 1.0
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    time_embedding_act_fn: str | None = None
    timestep_post_act: str | None = None
    time_cond_proj_dim: int | None = None
    conv_in_kernel: int = 3
    conv_out_kernel: int = 3
    projection_class_embeddings_input_dim: int | None = None
    attention_type: str = "default"
    class_embeddings_concat: bool = False
    mid_block_only_cross_attention: bool | None = None
    cross_attention_norm: str | None = None
    addition_embed_type_num_heads: int = 64

    @property
    def is_simple(self) -> bool:
        """Whether it is built from DeepFloyd IF's blocks rather than Stable Diffusion's."""
        return self.mid_block_type == _SIMPLE_MIDDLE

    @property
    def has_attention(self) -> tuple[bool, ...]:
        """Which levels read text."""
        return tuple("CrossAttn" in name for name in self.down_block_types)

    @property
    def stream(self) -> str:
        """The stream of the condition that holds its text."""
        return "clip_text" if self.encoder_hid_dim is None else "t5"

    @property
    def takes_low_res(self) -> bool:
        """Whether half of its input channels are a picture to enlarge."""
        return self.class_embed_type == "timestep"


_ACTIVATIONS = ("silu", "swish", "gelu")
_SUPPORTED: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "center_input_sample": (False,),
        "mid_block_type": (_CONV_MIDDLE, _SIMPLE_MIDDLE),
        "downsample_padding": (1,),
        "act_fn": _ACTIVATIONS,
        "norm_eps": (1e-5,),
        "encoder_hid_dim_type": (None, "text_proj"),
        "num_attention_heads": (None,),
        "dual_cross_attention": (False,),
        "class_embed_type": (None, "timestep"),
        "addition_embed_type": (None, "text", "text_time"),
        "num_class_embeds": (None,),
        "resnet_time_scale_shift": ("default", "scale_shift"),
        "time_embedding_type": ("positional",),
        "timestep_post_act": (None,),
        "time_cond_proj_dim": (None,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "attention_type": ("default",),
        "class_embeddings_concat": (False,),
        "cross_attention_norm": (None, "group_norm"),
    }
)
"""Where only some values are understood."""


def read_settings(config: Mapping[str, Any], *, where: str) -> UNetSettings:
    """The settings in a ``config.json``.

    A key that is not known is let through when it is null or false, which is how newer releases write down that they do
    nothing new.

    Raises:
        CheckpointError: For another class of network, an unknown setting, or a value that would change the result.
    """
    kind = config.get("_class_name", CLASS_NAME)
    if kind != CLASS_NAME:
        raise CheckpointError(f"{where} is of the class {kind}; only {CLASS_NAME} is supported")
    known = UNetSettings.__dataclass_fields__
    plain: dict[str, Any] = {}
    for key, value in config.items():
        if key in known:
            is_false = value is None and known[key].default is False  # as SDXL writes it down
            plain[key] = False if is_false else value
        elif not key.startswith("_") and value is not None and value is not False:
            raise CheckpointError(
                f"{where} has the setting {key}={value!r}, which is not supported here{nearest(key, known)}"
            )
    for key, values in _SUPPORTED.items():
        if key in plain and plain[key] not in values:
            supported = ", ".join(map(repr, values))
            raise CheckpointError(
                f"{where}: {key}={plain[key]!r} is not supported here; expected {supported}"
            )
    try:
        settings = from_json(UNetSettings, plain, where=where)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    _check(settings, where)
    return settings


def plan_of(config: Mapping[str, Any], *, where: str = "config.json") -> UNetConfig:
    """The block plan of ours that computes what a diffusers configuration describes.

    Raises:
        CheckpointError: As `read_settings`, and when the settings contradict one another.
    """
    settings = read_settings(config, where=where)
    try:
        return _plan(settings)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _check(s: UNetSettings, where: str) -> None:
    """Refuse what contradicts itself, or what ours cannot compute."""

    def refuse(fine: bool, message: str) -> None:
        if not fine:
            raise CheckpointError(f"{where}: {message}")

    _check_sizes(s, refuse)
    _check_levels(s, refuse)
    _check_kinds(s, refuse)


def _check_sizes(s: UNetSettings, refuse: Callable[[bool, str], None]) -> None:
    """No number is so large that building what it describes would take the machine."""
    for key in UNetSettings.__dataclass_fields__:
        value = getattr(s, key)
        numbers = [n for n in (value if isinstance(value, tuple) else (value,)) if type(n) is int]
        most = _MAX_BLOCKS if "layers_per_block" in key else _MAX_WIDTH
        refuse(
            len(numbers) <= _MAX_BLOCKS and all(0 <= n <= most for n in numbers),
            f"{key} {value} is no size that a network of this class has; at most {most:,} is read",
        )


def _check_levels(s: UNetSettings, refuse: Callable[[bool, str], None]) -> None:
    """Every list must speak of the same levels."""
    down, up = (_SIMPLE_DOWN, _SIMPLE_UP) if s.is_simple else (_CONV_DOWN, _CONV_UP)
    for kinds, given, key in (
        (down, s.down_block_types, "down_block_types"),
        (up, s.up_block_types, "up_block_types"),
    ):
        odd = sorted(set(given) - set(kinds))
        refuse(not odd, f"{key} {odd[:1]} cannot stand with {s.mid_block_type}; expected {kinds}")
    levels = len(s.block_out_channels)
    mirrored = tuple("CrossAttn" in name for name in reversed(s.up_block_types))
    refuse(
        0 < levels == len(s.down_block_types) and mirrored == s.has_attention,
        "down_block_types, up_block_types and block_out_channels must describe the same levels",
    )
    for key in (
        "only_cross_attention",
        "layers_per_block",
        "cross_attention_dim",
        "transformer_layers_per_block",
        "attention_head_dim",
    ):
        value = getattr(s, key)
        refuse(
            not isinstance(value, tuple) or len(value) == levels,
            f"{key} {value} must name {levels} levels",
        )
    depths = _per_level(s.transformer_layers_per_block, levels)
    refuse(
        s.reverse_transformer_layers_per_block in (None, tuple(reversed(depths))),
        "reverse_transformer_layers_per_block must mirror transformer_layers_per_block",
    )
    refuse(
        len(set(_per_level(s.cross_attention_dim, levels))) == 1,
        f"cross_attention_dim {s.cross_attention_dim} must be one width for all levels",
    )


def _check_kinds(s: UNetSettings, refuse: Callable[[bool, str], None]) -> None:
    """Settings that go together must be given together."""
    refuse(s.norm_num_groups is not None, "norm_num_groups must be a number")
    refuse(s.block_out_channels[0] % 2 == 0, "block_out_channels must begin with an even width")
    acts = (s.resnet_skip_time_act, s.time_embedding_act_fn)
    refuse(
        acts in ((False, None), (True, s.act_fn)),
        "resnet_skip_time_act and time_embedding_act_fn must activate the time embedding once, "
        f"with act_fn; got {acts}",
    )
    if not s.is_simple:
        refuse(
            not any(_per_level(s.only_cross_attention, len(s.block_out_channels)))
            and not s.resnet_skip_time_act
            and s.resnet_out_scale_factor == 1
            and s.cross_attention_norm is None,
            f"only_cross_attention, resnet_skip_time_act, resnet_out_scale_factor and "
            f"cross_attention_norm are not supported with {_CONV_MIDDLE}",
        )
    refuse(
        not s.takes_low_res or s.in_channels % 2 == 0,
        f"class_embed_type 'timestep' needs an even number of in_channels, got {s.in_channels}",
    )
    refuse(
        s.encoder_hid_dim_type is None or s.encoder_hid_dim is not None,
        "encoder_hid_dim_type needs encoder_hid_dim",
    )
    if s.addition_embed_type == "text_time":
        refuse(
            s.addition_time_embed_dim is not None
            and s.projection_class_embeddings_input_dim is not None
            and s.flip_sin_to_cos
            and s.freq_shift == 0,
            "addition_embed_type 'text_time' needs addition_time_embed_dim, "
            "projection_class_embeddings_input_dim, flip_sin_to_cos and freq_shift 0",
        )


def _plan(s: UNetSettings) -> UNetConfig:
    count = len(s.block_out_channels)
    width = s.block_out_channels[0]
    residual = _residual(s.resnet_out_scale_factor)
    mid_residual = _residual(s.mid_block_scale_factor)
    layers = _per_level(s.layers_per_block, count)
    channels = s.in_channels // 2 if s.takes_low_res else s.in_channels
    if isinstance(s.only_cross_attention, bool) and s.mid_block_only_cross_attention is None:
        mid_only = s.only_cross_attention
    else:
        mid_only = bool(s.mid_block_only_cross_attention)
    return UNetConfig(
        in_channels=channels,
        out_channels=s.out_channels,
        levels=tuple(
            Level(
                width=s.block_out_channels[i],
                down_blocks=layers[i],
                up_blocks=layers[i] + 1,
                stride=1 if i == 0 else 2,
                attention=_attention(s, i, _per_level(s.only_cross_attention, count)[i])
                if s.has_attention[i]
                else NoAttention(),
            )
            for i in range(count)
        ),
        middle=Middle(
            attention=_attention(s, count - 1, mid_only),
            residual=None if mid_residual == residual else mid_residual,
        ),
        resample=BlockResample() if s.is_simple else ConvResample(),
        residual=residual,
        time="scale_shift" if s.resnet_time_scale_shift == "scale_shift" else "add",
        time_width=4 * width if s.time_embedding_dim is None else s.time_embedding_dim,
        time_activation="gelu" if s.act_fn == "gelu" else "silu",
        sinusoid=Periods(shift=s.freq_shift, sines_first=not s.flip_sin_to_cos),
        norm=NumGroups(num=0 if s.norm_num_groups is None else s.norm_num_groups),
        activation="gelu" if s.act_fn == "gelu" else "silu",
        dropout=s.dropout,
        streams=(_stream(s),),
        context_width=_text_width(s),
        null_token=False,
        low_res=LowRes(scale=1, channels=channels, level="as_given") if s.takes_low_res else None,
    )


def _attention(s: UNetSettings, level: int, only_text: bool) -> Attention:
    count = len(s.block_out_channels)
    width = s.block_out_channels[level]
    number = _per_level(s.attention_head_dim, count)[level]
    if s.is_simple:
        norm = None if s.cross_attention_norm is None else NumGroups(num=_TEXT_GROUPS)
        kind = CrossOnly if only_text else FusedAttention
        return kind(head_width=number, text_norm=norm)
    if number < 1 or width % number:
        raise ConfigError(f"attention_head_dim: {number} heads do not divide a width of {width}")
    return Transformer(
        depth=_per_level(s.transformer_layers_per_block, count)[level],
        head_width=width // number,
        qkv_bias=False,
        norm_eps=_TRANSFORMER_EPS,
    )


def _stream(s: UNetSettings) -> StreamPlan:
    pool: Pool | None = None
    if s.addition_embed_type == "text":
        pool = MeanPool(heads=s.addition_embed_type_num_heads)
    elif s.addition_time_embed_dim is not None and s.addition_embed_type == "text_time":
        total = s.projection_class_embeddings_input_dim
        pool = VectorWithNumbers(
            width=0 if total is None else total, features=s.addition_time_embed_dim
        )
    return StreamPlan(
        name=s.stream,
        width=_text_width(s) if s.encoder_hid_dim is None else s.encoder_hid_dim,
        pool=pool,
        norm=False,
        project=s.encoder_hid_dim is not None,
    )


def _text_width(s: UNetSettings) -> int:
    return _per_level(s.cross_attention_dim, len(s.block_out_channels))[0]


def _residual(divisor: float) -> Residual:
    return "plain" if divisor == 1 else DividedSum(divisor=divisor)


def _per_level(value: Any, count: int) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) * count


__all__ = ["CLASS_NAME", "UNetSettings", "plan_of", "read_settings"]
