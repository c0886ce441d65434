"""Block plans: what each published network, and each of ours, is built from."""

from bottega.models.unet_config import (
    AddSkips,
    Level,
    PatchResample,
    PooledVector,
    SelfThenCross,
    StreamPlan,
    UNetConfig,
)


def piccolo_streams(width: int = 256) -> tuple[StreamPlan, ...]:
    """The three encoders of piccolo, as eDiff-I reads them: all tokens, and the vectors of CLIP alone."""
    return (
        StreamPlan(name="t5", width=width),
        StreamPlan(name="clip_text", width=width, pool=PooledVector(width=width)),
        StreamPlan(name="clip_image", width=width, pool=PooledVector(width=width)),
    )


def piccolo_base(width: int = 256) -> UNetConfig:
    """The 32 px network of piccolo in eDiff-I's form, small enough to train on two CPU cores."""
    return UNetConfig(
        patch=2,
        levels=(
            Level(width=128, stride=1, down_blocks=1, up_blocks=2),
            Level(width=256, attention=SelfThenCross(), attention_after="last_block"),
            Level(
                width=256,
                down_blocks=1,
                attention=SelfThenCross(),
                attention_after="last_block",
            ),
        ),
        middle=None,
        resample=PatchResample(),
        skips=AddSkips(),
        time_width=256,
        streams=piccolo_streams(width),
        context_width=256,
    )
