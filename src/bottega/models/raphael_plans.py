"""Block plans with experts inside: RAPHAEL's, and ours for the drawn world."""

from dataclasses import replace

from bottega.models.moe_config import GateNoise, SpaceMoEConfig, TimeMoEConfig
from bottega.models.unet_config import (
    AddSkips,
    Attention,
    ConvResample,
    ExpertTransformer,
    Level,
    Middle,
    NumGroups,
    PatchResample,
    Periods,
    PlainFeedForward,
    StreamPlan,
    UNetConfig,
)

OPENCLIP_G_WIDTH = 1024
"""How wide RAPHAEL says that OpenCLIP g/14's tokens are; there are 77."""

_WIDTHS = (416, 832, 1664)
_HEADS = 8

_EXPLORING = GateNoise(anneal_images=10_000)
_EXPLORING_LONG = GateNoise(anneal_images=40_000_000)


def raphael() -> UNetConfig:
    """RAPHAEL's network: latents of four channels, 16 transformer blocks of six space experts and four time experts.

    Source: RAPHAEL (arXiv:2305.18295), section 3 and Table 2: 16 blocks, 6 and 4 experts, mask threshold 0.2, 77 tokens
    of width 1024, GELU, three billion parameters. Where the blocks sit, how wide they are, how many heads they have
    and what is convolved between them is shown in Figure 8 alone. Ours sit where Stable Diffusion's 16 do (six on the
    way down, one in the middle, nine on the way up, none at the deepest level), with its eight heads, and are widened
    until the whole comes to that size; an expert is four times as wide inside. A null token of ours stands before the
    77, so that a dropped prompt has something to be read and an expert to go to. The network is told whole timesteps.
    The printed average is over all 77 tokens; our encoders hide padding from attention, and what nobody looks at would
    then act everywhere and outweigh a short prompt by far, so that it is left out here. The law of the noise on the
    gates is not given: ours fades over forty million pictures, twenty thousand steps of the paper's batch.
    """
    levels = [
        Level(
            width=width,
            down_blocks=2,
            up_blocks=3,
            stride=1 if i == 0 else 2,
            attention=_full_size(width),
        )
        for i, width in enumerate(_WIDTHS)
    ]
    deepest = Level(width=_WIDTHS[-1], down_blocks=2, up_blocks=3)
    return UNetConfig(
        in_channels=4,
        out_channels=4,
        levels=(*levels, deepest),
        middle=Middle(attention=_full_size(_WIDTHS[-1])),
        resample=ConvResample(),
        time="add",
        time_width=4 * _WIDTHS[0],
        sinusoid=Periods(),
        norm=NumGroups(),
        streams=(StreamPlan(name="clip_text", width=OPENCLIP_G_WIDTH, norm=False, project=False),),
        context_width=OPENCLIP_G_WIDTH,
    )


def piccolo_raphael() -> UNetConfig:
    """RAPHAEL's network in small, for latents of 16 x 16 with four channels: 16 blocks, ten of them at 8 x 8.

    Six space experts and four time experts a block, as in the large one; padding is left out of the average, because
    most of our captions are short. Words come from piccolo's T5 and CLIP, through attention and experts alone: a vector
    of the whole caption beside the time embedding is learned sooner, and then experts and attention are not needed.
    """
    return _small(in_channels=4, patch=1)


def piccolo_raphael_pixels() -> UNetConfig:
    """The same network for pictures of 32 x 32 pixels, which it sees as patches of four."""
    return _small(in_channels=3, patch=2)


def raphael_arms(*, active: float = 3.0) -> dict[str, UNetConfig]:
    """The small network for 32 x 32 pixels with and without its experts, to see what each kind adds.

    ``both`` is `piccolo_raphael_pixels`; ``time`` and ``space`` have one kind. ``dense`` has an ordinary feed-forward
    instead, as wide as the experts that work at one position are together: one time expert, and ``active`` space
    experts, which is about what captions of the drawn world come to.
    """
    both = small_experts()
    assert both.time is not None  # none was left out
    dense = replace(
        both,
        time=None,
        space=None,
        feed_forward=PlainFeedForward(ratio=(1 + active) * both.time.ratio),
    )
    arms = {
        "both": both,
        "time": small_experts(space=None),
        "space": small_experts(time=None),
        "dense": dense,
    }
    return {name: _small(3, 2, attention) for name, attention in arms.items()}


def small_experts(
    *, space: int | None = 6, time: int | None = 4, ratio: float = 0.625
) -> ExpertTransformer:
    """Two small blocks of attention and experts; None leaves one of the two layers out.

    ``ratio`` is how wide an expert is inside, as a multiple of the width outside. Gates explore for ten thousand
    pictures and no longer: noise that stays chooses for a gate whose logits are small, and its experts stay alike.
    """
    noise = _EXPLORING
    space_config = None
    if space is not None:
        space_config = SpaceMoEConfig(
            experts=space, ratio=ratio, average="real_tokens", gate_width=64, noise=noise
        )
    time_config = None
    if time is not None:
        time_config = TimeMoEConfig(experts=time, ratio=ratio, gate_width=64, noise=noise)
    return ExpertTransformer(depth=2, head_width=32, space=space_config, time=time_config)


def with_space_experts(plan: UNetConfig, count: int) -> UNetConfig:
    """The plan with so many space experts in each block that has some."""

    def changed(kind: Attention) -> Attention:
        if not isinstance(kind, ExpertTransformer) or kind.space is None:
            return kind
        return replace(kind, space=replace(kind.space, experts=count))

    levels = tuple(replace(level, attention=changed(level.attention)) for level in plan.levels)
    middle = plan.middle
    if middle is not None:
        middle = replace(middle, attention=changed(middle.attention))
    return replace(plan, levels=levels, middle=middle)


def _full_size(width: int) -> ExpertTransformer:
    return ExpertTransformer(
        head_width=width // _HEADS,
        space=SpaceMoEConfig(
            average="real_tokens", gate_width=OPENCLIP_G_WIDTH, noise=_EXPLORING_LONG
        ),
        time=TimeMoEConfig(gate_width=OPENCLIP_G_WIDTH, noise=_EXPLORING_LONG),
    )


def _small(in_channels: int, patch: int, attention: ExpertTransformer | None = None) -> UNetConfig:
    attention = small_experts() if attention is None else attention
    return UNetConfig(
        in_channels=in_channels,
        out_channels=in_channels,
        patch=patch,
        levels=(
            Level(width=64, stride=1, down_blocks=1, up_blocks=2),
            Level(width=128, down_blocks=2, up_blocks=3, attention=attention),
            Level(width=128, down_blocks=1, up_blocks=1, attention=attention),
        ),
        middle=Middle(attention=attention),
        resample=PatchResample(),
        skips=AddSkips(),
        residual="scaled_sum",
        time_width=192,
        streams=(
            StreamPlan(name="t5", width=256),
            StreamPlan(name="clip_text", width=256),
        ),
        context_width=192,
    )


__all__ = [
    "OPENCLIP_G_WIDTH",
    "piccolo_raphael",
    "piccolo_raphael_pixels",
    "raphael",
    "raphael_arms",
    "small_experts",
    "with_space_experts",
]
