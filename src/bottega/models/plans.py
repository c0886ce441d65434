"""Block plans: what each published network, and each of ours, is built from.

Every function returns a fresh `UNetConfig`; vary one with ``dataclasses.replace``.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from bottega.models.raphael_plans import (
    piccolo_raphael,
    piccolo_raphael_pixels,
    raphael,
)
from bottega.models.unet_config import (
    AddSkips,
    Attention,
    AttentionPool,
    BlockResample,
    ConvResample,
    CrossOnly,
    FusedAttention,
    Level,
    LowRes,
    Middle,
    NoAttention,
    NumGroups,
    PatchResample,
    PooledVector,
    SelfAttention,
    SelfThenCross,
    StreamPlan,
    Transformer,
    UNetConfig,
)

T5_XXL_WIDTH = 4096
CLIP_L_WIDTH = 768


def ediffi_streams(t5_width: int, clip_width: int) -> tuple[StreamPlan, ...]:
    """eDiff-I's three encoders: all tokens by attention, and the vectors of CLIP alone by the time embedding.

    Source: eDiff-I (arXiv:2211.01324), appendix A. No pooled T5, because CLIP's text vector is aligned with pictures.
    """
    return (
        StreamPlan(name="t5", width=t5_width),
        StreamPlan(name="clip_text", width=clip_width, pool=PooledVector(width=clip_width)),
        StreamPlan(name="clip_image", width=clip_width, pool=PooledVector(width=clip_width)),
    )


def piccolo_base() -> UNetConfig:
    """The 32 px network of piccolo: eDiff-I's form, small enough to learn something on two CPU cores in minutes."""
    return UNetConfig(
        patch=2,
        levels=(
            Level(width=64, stride=1, down_blocks=1, up_blocks=1),
            _last_block_level(192, 1, 2, SelfThenCross()),
            _last_block_level(192, 1, 1, SelfThenCross()),
        ),
        middle=None,
        resample=PatchResample(),
        skips=AddSkips(),
        residual="scaled_sum",
        time_width=192,
        streams=ediffi_streams(256, 256),
        context_width=192,
    )


def piccolo_sr() -> UNetConfig:
    """The network of piccolo that enlarges 32 px to 128 px: the Efficient U-Net's form, most blocks low down."""
    return UNetConfig(
        patch=4,
        levels=(
            Level(width=64, stride=1, down_blocks=1, up_blocks=2),
            Level(width=128, down_blocks=1, up_blocks=2),
            _last_block_level(128, 1, 2, CrossOnly()),
        ),
        middle=None,
        resample=PatchResample(),
        skips=AddSkips(),
        residual="scaled_sum",
        time_width=192,
        streams=ediffi_streams(256, 256),
        context_width=128,
        low_res=LowRes(scale=4),
    )


def sd_like() -> UNetConfig:
    """A small U-Net in Stable Diffusion's form, the common ground on which speed is compared."""
    return UNetConfig(
        in_channels=4,
        out_channels=4,
        levels=_adm_levels((128, 256, 512), 2, Transformer(head_width=64)),
        middle=Middle(attention=Transformer(head_width=64)),
        resample=ConvResample(),
        time="add",
        time_width=512,
        norm=NumGroups(),
        streams=(StreamPlan(name="clip_text", width=256, norm=False, project=False),),
        context_width=256,
    )


def sd15() -> UNetConfig:
    """Stable Diffusion 1.5's U-Net: a latent of 64 x 64 x 4, transformers at all levels but the deepest."""
    return UNetConfig(
        in_channels=4,
        out_channels=4,
        levels=(
            Level(
                width=320,
                down_blocks=2,
                up_blocks=3,
                stride=1,
                attention=Transformer(head_width=40),
            ),
            Level(width=640, down_blocks=2, up_blocks=3, attention=Transformer(head_width=80)),
            Level(width=1280, down_blocks=2, up_blocks=3, attention=Transformer(head_width=160)),
            Level(width=1280, down_blocks=2, up_blocks=3),
        ),
        middle=Middle(attention=Transformer(head_width=160)),
        resample=ConvResample(),
        time="add",
        time_width=1280,
        norm=NumGroups(),
        streams=(StreamPlan(name="clip_text", width=768, norm=False, project=False),),
        context_width=768,
    )


def adm64() -> UNetConfig:
    """ADM at 64 px without its class label, the root of every network here.

    Source: Dhariwal and Nichol 2021 (arXiv:2105.05233), the ImageNet-64 model; six channels out, as
    it learns variances.
    """
    return UNetConfig(
        out_channels=6,
        levels=_adm_levels((192, 384, 576, 768), 3, SelfAttention(), first=NoAttention()),
        middle=Middle(attention=SelfAttention()),
        resample=BlockResample(),
        time_width=768,
        norm=NumGroups(),
    )


def imagen_base64() -> UNetConfig:
    """Imagen's base network.

    Source: Imagen (arXiv:2205.11487), appendix F.1. The paper does not say at what width text enters attention; ours is
    projected to 1024 first.
    """
    return UNetConfig(
        levels=_adm_levels((512, 1024, 1536, 2048), 3, FusedAttention(), first=NoAttention()),
        middle=Middle(attention=FusedAttention()),
        resample=BlockResample(),
        time_width=2048,
        norm=NumGroups(),
        streams=_imagen_streams(),
        context_width=1024,
    )


def imagen_sr256() -> UNetConfig:
    """Imagen's network from 64 to 256 px, with the five levels its stated size asks for.

    Source: Imagen (arXiv:2205.11487), appendices B.1 and F.2. The listed configuration has four
    levels and comes to less than the 600M stated (see `imagen_sr256_listed`); this one follows
    NVIDIA's reading: five levels, attention at the last two, skips added, each level's blocks on the
    way up as wide as the level above.
    """
    widths = (128, 256, 512, 1024, 1024)
    blocks = (2, 4, 8, 8, 8)
    attention = FusedAttention(head_width=64)
    levels = tuple(
        Level(
            width=width,
            up_width=widths[max(i - 1, 0)],
            down_blocks=blocks[i],
            up_blocks=blocks[i],
            stride=1 if i == 4 else 2,
            attention=attention if i >= 3 else NoAttention(),
            attention_after="last_block",
        )
        for i, width in enumerate(widths)
    )
    return replace(_efficient(levels, _imagen_streams(), 512), skips=AddSkips())


def imagen_sr256_listed() -> UNetConfig:
    """Imagen's network from 64 to 256 px with the four levels that appendix F.2 lists."""
    attention = FusedAttention(head_width=128)
    return _imagen_sr((128, 256, 512, 1024), (2, 4, 8, 8), (2, 2, 2, 2), attention)


def imagen_sr1024() -> UNetConfig:
    """Imagen's network from 256 to 1024 px: text by cross-attention alone, so that it runs at any size.

    Source: Imagen (arXiv:2205.11487), appendix F.3.
    """
    attention = CrossOnly(head_width=128)
    return _imagen_sr((128, 256, 512, 1024), (2, 4, 8, 8), (2, 2, 2, 2), attention)


def ediffi_base64() -> UNetConfig:
    """eDiff-I's base network: ADM with a cross-attention after each self-attention.

    Source: eDiff-I (arXiv:2211.01324), Table 2 and appendix A. The common width of the three streams is not given; ours
    is 1024.
    """
    return UNetConfig(
        levels=_adm_levels((256, 512, 1024, 1024), 3, SelfThenCross(), first=NoAttention()),
        middle=Middle(attention=SelfThenCross()),
        resample=BlockResample(),
        time_width=1024,
        norm=NumGroups(),
        streams=ediffi_streams(T5_XXL_WIDTH, CLIP_L_WIDTH),
        context_width=1024,
    )


def ediffi_sr256() -> UNetConfig:
    """eDiff-I's network from 64 to 256 px.

    Source: eDiff-I (arXiv:2211.01324), Table 3. Attention at 32 px with four levels leaves three halvings; as in other
    Efficient U-Nets each is taken before a level's convolutions, so that the deepest level has none.
    """
    return _ediffi_sr((128, 256, 512, 1024), SelfThenCross())


def ediffi_sr1024() -> UNetConfig:
    """eDiff-I's network from 256 to 1024 px, trained on patches of 256: no self-attention.

    Source: eDiff-I (arXiv:2211.01324), Table 4.
    """
    return _ediffi_sr((128, 256, 512, 512), CrossOnly())


def _last_block_level(width: int, down: int, up: int, attention: Attention) -> Level:
    return Level(
        width=width,
        down_blocks=down,
        up_blocks=up,
        attention=attention,
        attention_after="last_block",
    )


def _adm_levels(
    widths: tuple[int, ...], blocks: int, attention: Attention, first: Attention | None = None
) -> tuple[Level, ...]:
    """ADM's rule: one block more on the way up, attention after every block."""
    return tuple(
        Level(
            width=width,
            down_blocks=blocks,
            up_blocks=blocks + 1,
            stride=1 if i == 0 else 2,
            attention=first if i == 0 and first is not None else attention,
        )
        for i, width in enumerate(widths)
    )


def _efficient(
    levels: tuple[Level, ...], streams: tuple[StreamPlan, ...], time_width: int
) -> UNetConfig:
    """The Efficient U-Net: resampling first on the way down and last on the way up, scaled residuals, no middle."""
    return UNetConfig(
        levels=levels,
        stem_width=128,
        middle=None,
        resample=ConvResample(widen=True),
        skips_from="level",
        residual="scaled_sum",
        time_width=time_width,
        norm=NumGroups(),
        streams=streams,
        context_width=1024,
        low_res=LowRes(scale=4),
    )


def _efficient_levels(
    widths: tuple[int, ...], blocks: tuple[int, ...], strides: tuple[int, ...], attention: Attention
) -> tuple[Level, ...]:
    last = len(widths) - 1
    return tuple(
        Level(
            width=width,
            down_blocks=num,
            up_blocks=num,
            stride=1 if stride == 1 else 2,
            attention=attention if i == last else NoAttention(),
            attention_after="last_block",
        )
        for i, (width, num, stride) in enumerate(zip(widths, blocks, strides, strict=True))
    )


def _imagen_sr(
    widths: tuple[int, ...], blocks: tuple[int, ...], strides: tuple[int, ...], attention: Attention
) -> UNetConfig:
    levels = _efficient_levels(widths, blocks, strides, attention)
    return _efficient(levels, _imagen_streams(), 512)


def _imagen_streams() -> tuple[StreamPlan, ...]:
    return (StreamPlan(name="t5", width=T5_XXL_WIDTH, pool=AttentionPool()),)


def _ediffi_sr(widths: tuple[int, ...], attention: Attention) -> UNetConfig:
    levels = _efficient_levels(widths, (2, 4, 8, 8), (2, 2, 2, 1), attention)
    return _efficient(levels, ediffi_streams(T5_XXL_WIDTH, CLIP_L_WIDTH), 512)


PLANS: Mapping[str, Callable[[], UNetConfig]] = MappingProxyType(
    {
        plan.__name__: plan
        for plan in (
            piccolo_base,
            piccolo_sr,
            sd_like,
            sd15,
            adm64,
            imagen_base64,
            imagen_sr256,
            imagen_sr256_listed,
            imagen_sr1024,
            ediffi_base64,
            ediffi_sr256,
            ediffi_sr1024,
            raphael,
            piccolo_raphael,
            piccolo_raphael_pixels,
        )
    }
)
"""Every plan by its name."""

__all__ = [
    "PLANS",
    "adm64",
    "ediffi_base64",
    "ediffi_sr256",
    "ediffi_sr1024",
    "ediffi_streams",
    "imagen_base64",
    "imagen_sr256",
    "imagen_sr256_listed",
    "imagen_sr1024",
    "piccolo_base",
    "piccolo_raphael",
    "piccolo_raphael_pixels",
    "piccolo_sr",
    "raphael",
    "sd15",
    "sd_like",
]
