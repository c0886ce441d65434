from dataclasses import replace

import pytest
import torch
from tiny_networks import STREAMS, awake, say, some_condition, some_noise, tiny, tiny_sr

from bottega.condition import Condition, Stream
from bottega.errors import ConfigError, InputError
from bottega.models import UNet
from bottega.models.unet_config import (
    AddSkips,
    AttentionPool,
    BlockResample,
    ConcatSkips,
    ConvResample,
    CrossOnly,
    FusedAttention,
    Level,
    NoAttention,
    PatchResample,
    PlainFeedForward,
    SelfAttention,
    SelfThenCross,
    Sinusoid,
    StreamPlan,
    Transformer,
)

ATTENTIONS = [
    SelfAttention(head_width=16),
    FusedAttention(head_width=16),
    SelfThenCross(head_width=16),
    CrossOnly(head_width=16),
    Transformer(depth=2, head_width=16),
    Transformer(head_width=16, feed_forward=PlainFeedForward(ratio=2.0)),
]
READING = ATTENTIONS[1:]
RESAMPLINGS = [
    PatchResample(),
    ConvResample(widen=False),
    ConvResample(widen=True),
    BlockResample(),
]
VARIANTS = {
    "patch": {"patch": 2},
    "stem_width": {"stem_width": 32},
    "no middle": {"middle": None},
    "scaled concat": {"skips": ConcatSkips(scale=0.5)},
    "added skips": {"skips": AddSkips(scale=0.7)},
    "skips per level": {"skips_from": "level"},
    "scaled sum": {"residual": "scaled_sum"},
    "scaled shortcut": {"residual": "scaled_shortcut"},
    "added time": {"time": "add"},
    "gelu": {"activation": "gelu"},
    "sinusoid": {"sinusoid": Sinusoid(lowest=0.1, highest=8.0)},
    "attention pool": {
        "streams": (replace(STREAMS[0], pool=AttentionPool(head_width=4)), STREAMS[1])
    },
    "unnormed stream": {"streams": (replace(STREAMS[0], norm=False), STREAMS[1])},
    "other resampling": {"resample": ConvResample()},
}


def named(kind):
    return type(kind).__name__


@pytest.mark.parametrize("resample", RESAMPLINGS, ids=str)
@pytest.mark.parametrize("attention", ATTENTIONS, ids=named)
def test_every_parameter_learns(attention, resample):
    network = awake(tiny_sr(attention=attention, resample=resample)).train()
    x, c_noise = some_noise()
    condition = some_condition(low_res=True)
    network(x, c_noise, network.prepare(condition)).square().mean().backward()
    # With self-attention alone nothing reads the tokens; only what is pooled arrives.
    unread = ("reader.null", "t5") if isinstance(attention, SelfAttention) else ()
    unread += ("clip_text.norm", "clip_text.project") if unread else ()
    silent = [
        name
        for name, parameter in network.named_parameters()
        if (parameter.grad is None or not parameter.grad.any())
        and not any(part in name for part in unread)
    ]
    assert silent == []


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_every_setting_changes_the_picture_and_leaves_nothing_dead(change):
    condition = some_condition()
    network = awake(tiny(**change)).train()
    assert not torch.allclose(say(network, condition), say(awake(tiny()), condition))
    x, c_noise = some_noise()
    network(x, c_noise, network.prepare(condition)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_dropout_acts_in_training_alone():
    condition = some_condition()
    network = awake(tiny(dropout=0.5))
    assert torch.equal(say(network, condition), say(awake(tiny()), condition))
    network.train()
    assert not torch.equal(say(network, condition), say(network, condition))


@pytest.mark.parametrize("attention", READING, ids=named)
def test_padding_changes_nothing(attention):
    network = awake(tiny(attention=attention))
    condition = some_condition()
    rubbish = {
        name: replace(s, tokens=torch.where(s.mask[..., None], s.tokens, torch.tensor(7.0)))
        for name, s in condition.streams.items()
    }
    assert torch.equal(say(network, condition), say(network, Condition(streams=rubbish)))


def test_more_padding_changes_nothing():
    network = awake(tiny())
    condition = some_condition()
    longer = {
        name: Stream(
            tokens=torch.nn.functional.pad(s.tokens, (0, 0, 0, 9), value=3.0),
            mask=torch.nn.functional.pad(s.mask, (0, 9)),
            pooled=s.pooled,
        )
        for name, s in condition.streams.items()
    }
    torch.testing.assert_close(say(network, Condition(streams=longer)), say(network, condition))


def test_pooled_tokens_ignore_padding_too():
    streams = (replace(STREAMS[0], pool=AttentionPool(head_width=4)),)
    network = awake(tiny(streams=streams))
    stream = some_condition().streams["t5"]
    other = replace(
        stream, tokens=torch.where(stream.mask[..., None], stream.tokens, torch.tensor(7.0))
    )
    assert torch.equal(
        say(network, Condition(streams={"t5": stream})),
        say(network, Condition(streams={"t5": other})),
    )


@pytest.mark.parametrize("attention", READING, ids=named)
def test_the_null_condition_has_forgotten_the_prompt(attention):
    network = awake(tiny(attention=attention))
    one, other = some_condition(seed=1), some_condition(seed=5)
    assert torch.equal(say(network, one.null()), say(network, other.null()))
    assert not torch.allclose(say(network, one), say(network, one.null()))


def test_saying_nothing_is_the_null_condition():
    network = awake(tiny())
    silent = say(network, some_condition().null())
    torch.testing.assert_close(say(network, Condition()), silent)


def test_a_stream_left_out_is_a_stream_dropped():
    network = awake(tiny())
    condition = some_condition()
    dropped = condition.dropped({"clip_text": torch.ones(2, dtype=torch.bool)})
    only = Condition(streams={"t5": condition.streams["t5"]})
    torch.testing.assert_close(say(network, only), say(network, dropped))


def test_streams_nobody_reads_are_refused_when_no_other_is_there():
    network = awake(tiny())
    condition = Condition(streams={"t5_xxl": some_condition().streams["t5"]})
    with pytest.raises(InputError, match=r"reads \['clip_text', 't5'\].*t5_xxl"):
        network.prepare(condition)


def test_a_stream_of_another_width_is_refused():
    with pytest.raises(InputError, match="t5 is 12 wide, this network was built for 20"):
        awake(tiny(streams=(StreamPlan(name="t5", width=20),))).prepare(some_condition())


def test_a_missing_pooled_vector_is_refused():
    stream = replace(some_condition().streams["clip_text"], pooled=None)
    with pytest.raises(InputError, match="clip_text must carry a pooled vector"):
        awake(tiny()).prepare(Condition(streams={"clip_text": stream}))


def test_the_picture_to_enlarge_and_its_noise_level_matter():
    network = awake(tiny_sr())
    condition = some_condition(low_res=True)
    other = condition.with_low_res(condition.low_res.flip(3), condition.low_res_sigma)
    noisier = condition.with_low_res(condition.low_res, condition.low_res_sigma + 1)
    said = say(network, condition)
    assert not torch.allclose(said, say(network, other))
    assert not torch.allclose(said, say(network, noisier))


def test_an_absent_augmentation_is_a_finite_number():
    network = awake(tiny_sr())
    condition = some_condition(low_res=True)
    clean = condition.with_low_res(condition.low_res, torch.zeros(2))
    assert say(network, clean).isfinite().all()


def test_a_picture_to_enlarge_goes_with_a_network_that_enlarges():
    with pytest.raises(InputError, match="enlarges nothing"):
        awake(tiny()).prepare(some_condition(low_res=True))
    with pytest.raises(InputError, match="give low_res and low_res_sigma"):
        awake(tiny_sr()).prepare(some_condition())


def test_preparing_twice_is_preparing_once():
    network = awake(tiny())
    x, c_noise = some_noise()
    context = network.prepare(some_condition())
    with torch.no_grad():
        first, second = network(x, c_noise, context), network(x, c_noise, context)
    assert torch.equal(first, second)
    assert torch.equal(first, say(network, some_condition()))


@pytest.mark.parametrize("attention", ATTENTIONS, ids=named)
def test_a_picture_does_not_depend_on_its_neighbours(attention):
    network = awake(tiny_sr(attention=attention))
    condition = some_condition(batch=3, low_res=True)
    x, c_noise = some_noise(batch=3)
    with torch.no_grad():
        context = network.prepare(condition)
        together = network(x, c_noise, context)
        for i in range(3):
            alone = network(x[[i]], c_noise[[i]], context.select([i]))
            torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_both_halves_of_guidance_run_as_one_batch():
    network = awake(tiny())
    condition = some_condition()
    x, c_noise = some_noise()
    with torch.no_grad():
        context = network.prepare(Condition.cat([condition, condition.null()]))
        cond, uncond = network(torch.cat([x, x]), c_noise.repeat(2), context).chunk(2)
    torch.testing.assert_close(cond, say(network, condition), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(uncond, say(network, condition.null()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", READING, ids=named)
def test_one_prompt_serves_a_whole_batch(attention):
    network = awake(tiny(attention=attention))
    one = some_condition(batch=1)
    torch.testing.assert_close(say(network, one), say(network, Condition.cat([one, one])))
    assert network.prepare(one).select([0, 0]).mask.shape[0] == 1


def test_a_fresh_network_says_zero_and_keeps_features_of_unit_size():
    torch.manual_seed(0)
    network = UNet(tiny())
    seen = []
    network.norm.register_forward_pre_hook(lambda module, args: seen.append(args[0].std()))
    assert not say(network, some_condition()).any()
    assert 0.1 < seen[0] < 3


def test_any_size_that_the_levels_divide_is_painted():
    network = awake(tiny(attention=CrossOnly(head_width=16), patch=2))
    x = torch.randn(1, 3, 8, 24)
    with torch.no_grad():
        said = network(x, torch.zeros(1), network.prepare(Condition()))
    assert said.shape == x.shape
    with pytest.raises(InputError, match="multiples of 4, got 8 x 22"):
        network(x[..., :22], torch.zeros(1), network.prepare(Condition()))


def test_a_convolutional_network_sees_the_middle_of_a_large_picture_as_it_sees_a_crop():
    # No self-attention and text alone: far from the border only the group norms tell the sizes apart.
    network = awake(tiny(attention=CrossOnly(head_width=16), middle=None))
    tile = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    x_small, x_large = tile.repeat(1, 1, 8, 8), tile.repeat(1, 1, 12, 12)
    with torch.no_grad():
        context = network.prepare(some_condition(batch=1))
        small = network(x_small, torch.zeros(1), context)[..., 24:32, 24:32]
        large = network(x_large, torch.zeros(1), context)[..., 40:48, 40:48]
    torch.testing.assert_close(small, large, rtol=0.1, atol=0.1)


def test_checkpointing_changes_memory_and_not_gradients():
    network = awake(tiny()).train()
    x, c_noise = some_noise()
    gradients = []
    for network.checkpointing in (False, True):
        network.zero_grad()
        network(x, c_noise, network.prepare(some_condition())).square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_a_network_in_bf16_says_nearly_the_same():
    condition = some_condition(low_res=True)
    network = awake(tiny_sr())
    exact = say(network, condition)
    rough = say(network.to(torch.bfloat16), condition)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() / exact.norm() < 0.05


def test_neighbouring_noise_levels_are_told_apart_in_bf16():
    network = awake(tiny()).to(torch.bfloat16)
    near = network.embed_noise(torch.tensor([0.5, 0.51]))
    assert not torch.equal(near[0], near[1])


def test_weights_and_features_are_channels_last():
    network = awake(tiny())
    assert network.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert say(network, some_condition()).is_contiguous(memory_format=torch.channels_last)


WRONG = [
    ({"levels": ()}, "levels must name at least one"),
    ({"patch": 0}, "patch must be positive, got 0"),
    ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
    ({"time_width": 33}, "time_width must be even"),
    ({"streams": (STREAMS[0], STREAMS[0])}, "streams must have distinct names"),
    ({"streams": ()}, "levels: SelfThenCross reads text, but streams is empty"),
    ({"streams": (replace(STREAMS[0], project=False),)}, "streams.t5.project"),
    ({"stem_width": 24}, "norm: .* does not divide a width of 24"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[m for _, m in WRONG])
def test_a_wrong_plan_names_the_setting(change, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**change)


def test_the_middle_is_checked_like_a_level():
    from bottega.models.unet_config import Middle

    with pytest.raises(ConfigError, match=r"middle.attention.head_width 24 must divide 32"):
        tiny(middle=Middle(attention=SelfAttention(head_width=24)))
    with pytest.raises(ConfigError, match="middle: CrossOnly reads text"):
        tiny(attention=NoAttention(), streams=(), middle=Middle(attention=CrossOnly(head_width=16)))


PARTS = [
    (lambda: Level(width=0), "level.width must be positive"),
    (lambda: Level(width=16, down_blocks=0), "level.down_blocks must be at least 1"),
    (lambda: Level(width=16, up_blocks=0), "level.up_blocks must be at least 1"),
    (lambda: Level(width=16, attention=SelfAttention(head_width=5)), "level.width 16 .* 5"),
    (lambda: Transformer(depth=0), "attention.depth"),
    (lambda: Sinusoid(lowest=2.0, highest=1.0), "0 < lowest < highest"),
    (lambda: StreamPlan(name="t5", width=0), "streams.t5.width"),
    (
        lambda: StreamPlan(name="t5", width=24, pool=AttentionPool(head_width=16)),
        "streams.t5.pool.head_width 16 must divide 24",
    ),
]


@pytest.mark.parametrize(("make", "message"), PARTS, ids=[m for _, m in PARTS])
def test_a_wrong_part_names_the_setting(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_added_skips_of_different_widths_are_refused():
    with pytest.raises(ConfigError, match="AddSkips joins equal widths"):
        UNet(tiny(skips=AddSkips(), resample=ConvResample(widen=False)))


def test_the_enlarged_picture_stands_in_the_context_as_it_was_given_and_is_picked_with_the_rest():
    condition = some_condition(batch=3, low_res=True)
    network = awake(tiny_sr()).to(torch.bfloat16)
    context = network.prepare(condition)
    expected = torch.nn.functional.interpolate(
        condition.low_res, scale_factor=4, mode="bilinear", align_corners=False
    )
    assert torch.equal(context.enlarged, expected)
    assert torch.equal(context.select([2, 0]).enlarged, expected[[2, 0]])
