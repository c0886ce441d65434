"""What networks of other houses have that ours had not: each kind acts, learns, and refuses what it cannot do."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import STREAMS, awake, say, some_condition, some_noise, tiny

from bottega.condition import Condition, Stream
from bottega.errors import ConfigError, InputError
from bottega.models import UNet
from bottega.models.layers import waves
from bottega.models.unet_config import (
    CrossOnly,
    DividedSum,
    FusedAttention,
    LowRes,
    MeanPool,
    Middle,
    NumGroups,
    Periods,
    SelfThenCross,
    Transformer,
    VectorWithNumbers,
)

NUMBERS = torch.tensor([[64.0, 48.0], [32.0, 96.0]])
VARIANTS = {
    "divided sum": {"residual": DividedSum(divisor=1.7)},
    "a middle of its own": {
        "middle": Middle(attention=SelfThenCross(head_width=16), residual="scaled_sum")
    },
    "time activation": {"time_activation": "gelu"},
    "periods": {"sinusoid": Periods()},
    "shifted periods": {"sinusoid": Periods(shift=1.0)},
    "sines first": {"sinusoid": Periods(sines_first=True)},
    "longer periods": {"sinusoid": Periods(longest=100.0)},
    "no null token": {"null_token": False},
    "mean pool": {"streams": (replace(STREAMS[0], pool=MeanPool(heads=3)), STREAMS[1])},
    "numbers": {
        "streams": (
            replace(STREAMS[0], pool=None),
            replace(STREAMS[1], pool=VectorWithNumbers(width=8 + 2 * 4, features=4)),
        )
    },
}
TEXT_NORMED = [
    FusedAttention(head_width=16, text_norm=NumGroups(num=4)),
    CrossOnly(head_width=16, text_norm=NumGroups(num=4)),
]


def told_numbers():
    return replace(some_condition(), numbers=NUMBERS)


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_every_kind_changes_the_picture_and_leaves_nothing_dead(change):
    network = awake(tiny(**change)).train()
    condition = told_numbers()
    assert not torch.allclose(say(network, condition), say(awake(tiny()), condition))
    x, c_noise = some_noise()
    network(x, c_noise, network.prepare(condition)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_the_middle_keeps_the_networks_residual_unless_it_has_its_own():
    same = replace(tiny(), residual="scaled_sum")
    spelled = replace(
        same, middle=Middle(attention=SelfThenCross(head_width=16), residual="scaled_sum")
    )
    condition = some_condition()
    assert torch.equal(say(awake(same), condition), say(awake(spelled), condition))


def test_a_divided_sum_by_the_root_of_two_is_the_scaled_sum():
    condition = some_condition()
    torch.testing.assert_close(
        say(awake(tiny(residual=DividedSum())), condition),
        say(awake(tiny(residual="scaled_sum")), condition),
    )


@pytest.mark.parametrize("attention", TEXT_NORMED, ids=lambda a: type(a).__name__)
def test_a_text_norm_takes_away_scale_and_shift_of_the_text(attention):
    streams = tuple(replace(s, norm=False, project=False, width=16, pool=None) for s in STREAMS[:1])
    network = awake(tiny(attention=attention, streams=streams, null_token=False))
    tokens = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(2, 7, dtype=torch.bool)
    plain, louder = (
        say(network, Condition(streams={"t5": Stream(tokens=t, mask=mask)}))
        for t in (tokens, 3 * tokens + 1)
    )
    torch.testing.assert_close(plain, louder, rtol=1e-3, atol=1e-4)
    without = awake(
        tiny(attention=replace(attention, text_norm=None), streams=streams, null_token=False)
    )
    said = [
        say(without, Condition(streams={"t5": Stream(tokens=t, mask=mask)}))
        for t in (tokens, 3 * tokens + 1)
    ]
    assert not torch.allclose(said[0], said[1], rtol=1e-3, atol=1e-4)


def test_a_transformer_without_biases_on_queries_keys_and_values_has_none():
    attention = Transformer(head_width=16, qkv_bias=False, norm_eps=1e-2)
    network = awake(tiny(attention=attention))
    names = {name for name, _ in network.named_parameters()}
    assert not any(name.endswith(("qkv.bias", "query.bias", "text_kv.bias")) for name in names)
    other = awake(tiny(attention=replace(attention, norm_eps=1e-5)))
    condition = some_condition()
    assert not torch.allclose(say(network, condition), say(other, condition))


def test_periods_are_the_position_code_of_the_transformer():
    values = torch.tensor([0.0, 1.0, 37.0, 999.0], dtype=torch.float64)
    frequencies = 10_000.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    angles = values[:, None] * frequencies
    expected = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    torch.testing.assert_close(waves(Periods(), values.float(), 4), expected, rtol=0, atol=1e-4)


def test_a_full_mask_is_no_mask_and_an_empty_one_is_refused():
    network = awake(tiny(null_token=False))
    condition = some_condition()
    full = {name: replace(s, mask=torch.ones_like(s.mask)) for name, s in condition.streams.items()}
    context = network.prepare(Condition(streams=full))
    assert context.mask is None
    assert context.segments[0] == ("t5", 0, 7)
    with pytest.raises(InputError, match="encoding of an empty text"):
        network.prepare(condition.null())
    with pytest.raises(InputError, match="must be given a text"):
        network.prepare(Condition())


def test_padding_changes_nothing_without_a_null_token_either():
    network = awake(tiny(null_token=False))
    condition = some_condition()
    rubbish = {
        name: replace(s, tokens=torch.where(s.mask[..., None], s.tokens, torch.tensor(7.0)))
        for name, s in condition.streams.items()
    }
    assert torch.equal(say(network, condition), say(network, Condition(streams=rubbish)))


def test_a_mean_pool_counts_padding_as_the_network_learned_it():
    streams = (replace(STREAMS[0], pool=MeanPool(heads=3)),)
    network = awake(tiny(streams=streams))
    stream = some_condition().streams["t5"]
    other = replace(stream, mask=torch.ones_like(stream.mask))
    pooled = [network.prepare(Condition(streams={"t5": one})).vector for one in (stream, other)]
    assert torch.equal(pooled[0], pooled[1])
    padded = replace(
        stream, tokens=F.pad(stream.tokens, (0, 0, 0, 4)), mask=F.pad(stream.mask, (0, 4))
    )
    assert not torch.allclose(network.prepare(Condition(streams={"t5": padded})).vector, pooled[0])


def test_every_number_is_heard():
    network = awake(tiny(**VARIANTS["numbers"]))
    said = say(network, told_numbers())
    for place in range(2):
        changed = NUMBERS.clone()
        changed[:, place] += 5
        assert not torch.allclose(said, say(network, replace(some_condition(), numbers=changed)))


def test_numbers_that_are_missing_or_too_many_are_refused():
    network = awake(tiny(**VARIANTS["numbers"]))
    with pytest.raises(InputError, match="is told numbers"):
        network.prepare(some_condition())
    with pytest.raises(InputError, match="takes 2 numbers, the condition carries 3"):
        network.prepare(replace(some_condition(), numbers=torch.ones(2, 3)))
    silent = {n: replace(s, pooled=None) for n, s in some_condition().streams.items()}
    with pytest.raises(InputError, match="must carry a pooled vector"):
        network.prepare(Condition(streams=silent, numbers=NUMBERS))


def test_a_level_as_given_is_embedded_like_a_timestep():
    config = tiny(low_res=LowRes(scale=1, level="as_given"), sinusoid=Periods())
    network = awake(config)
    with torch.no_grad():
        network.embed_low_res.load_state_dict(network.embed_noise.state_dict())
    x, _ = some_noise()
    level = torch.tensor([250.0, 7.0])
    context = network.prepare(some_condition().with_low_res(x, level))
    silent = awake(tiny(sinusoid=Periods())).prepare(some_condition())
    assert context.low_res.shape[2:] == x.shape[2:]
    assert context.vector.shape == silent.vector.shape
    other = network.prepare(some_condition().with_low_res(x, level + 1))
    shift = network.embed_noise(level + 1) - network.embed_noise(level)
    torch.testing.assert_close(other.vector - context.vector, shift, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: DividedSum(divisor=0.0), "residual.divisor"),
        (lambda: Periods(longest=1.0), "sinusoid.longest"),
        (lambda: VectorWithNumbers(width=8, features=3), "pool.features"),
        (lambda: VectorWithNumbers(width=4, features=4), "pool.width"),
        (lambda: replace(STREAMS[0], pool=MeanPool(heads=5)), "pool.heads 5 must divide 12"),
        (lambda: Transformer(norm_eps=0.0), "norm_eps"),
        (lambda: tiny(attention=CrossOnly(head_width=16, text_norm=NumGroups(num=5))), "text_norm"),
    ],
)
def test_plans_that_make_no_sense_are_refused(build, said):
    with pytest.raises(ConfigError, match=said):
        build()


def test_numbers_go_along_with_a_condition():
    condition = told_numbers()
    assert Condition(numbers=NUMBERS).batch_size == 2
    both = Condition.cat([condition, condition])
    assert torch.equal(both.numbers, torch.cat([NUMBERS, NUMBERS]))
    assert torch.equal(condition.to(device="cpu", dtype=torch.bfloat16).numbers, NUMBERS)
    assert torch.equal(condition.null().numbers, NUMBERS)
    with pytest.raises(InputError, match="all or none"):
        Condition.cat([condition, some_condition()])
    with pytest.raises(InputError, match="one batch size"):
        replace(some_condition(), numbers=torch.ones(3, 2))


def test_a_network_of_every_foreign_kind_can_be_built_on_the_meta_device():
    config = tiny(**VARIANTS["no null token"])
    with torch.device("meta"):
        network = UNet(config)
    streams = {
        name: Stream(tokens=s.tokens.to("meta"), mask=s.mask.to("meta"), pooled=s.pooled.to("meta"))
        for name, s in some_condition().streams.items()
    }
    context = network.prepare(Condition(streams=streams))
    x, c_noise = some_noise()
    assert network(x.to("meta"), c_noise.to("meta"), context).shape == x.shape
