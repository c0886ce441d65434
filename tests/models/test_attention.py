import pytest
import torch
from tiny_networks import awake, say, some_condition, some_noise, tiny

from bottega.models import attention
from bottega.models.attention import (
    FusedMixer,
    KeysValues,
    Reading,
    SelfMixer,
    attend,
)
from bottega.models.unet_config import CrossOnly, FusedAttention, SelfThenCross

KINDS = [FusedAttention(head_width=16), SelfThenCross(head_width=16), CrossOnly(head_width=16)]


def heads(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, length, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("limit", [0, 2**20])
@pytest.mark.parametrize("masked", [False, True])
def test_every_way_to_attend_is_a_softmax_of_products(monkeypatch, dtype, error, limit, masked):
    monkeypatch.setattr(attention, "LARGEST_WRITTEN_OUT", limit)
    query, keys, values = heads(5), heads(7, 1), heads(7, 2)
    mask = (torch.arange(7) < 4).expand(2, 1, 1, 7) if masked else None
    logits = query @ keys.transpose(-1, -2) / 8**0.5
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    said = attend(query.to(dtype), keys.to(dtype), values.to(dtype), mask)
    torch.testing.assert_close(said.float(), logits.softmax(-1) @ values, rtol=error, atol=error)


def test_fused_attention_without_text_is_self_attention():
    torch.manual_seed(0)
    plain, fused = SelfMixer(32, 16, zero=False), FusedMixer(32, 12, 16)
    fused.qkv.load_state_dict(plain.qkv.state_dict())
    fused.out.load_state_dict(plain.out.state_dict())
    fused.layer = 0
    rows = torch.randn(2, 16, 32)
    no_text = torch.zeros(2, 2, 0, 16)
    no_mask = torch.ones(2, 1, 1, 0, dtype=torch.bool)
    reading = Reading(layers=(KeysValues(no_text, no_text),), mask=no_mask)
    torch.testing.assert_close(fused(rows, 4, 4, reading), plain(rows))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_looking_at_the_maps_changes_nothing(kind):
    network = awake(tiny(attention=kind))
    x, c_noise = some_noise()
    context = network.prepare(some_condition())
    maps = []
    with torch.no_grad():
        said = network(x, c_noise, context, maps=maps)
    torch.testing.assert_close(said, say(network, some_condition()))
    assert sorted(m.layer for m in maps) == list(range(len(context.layers)))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_maps_are_shares_of_attention_and_nothing_goes_to_padding(kind):
    network = awake(tiny(attention=kind))
    x, c_noise = some_noise()
    context = network.prepare(some_condition())
    maps = []
    with torch.no_grad():
        network(x, c_noise, context, maps=maps)
    for seen in maps:
        shares = seen.weights.sum(-1)
        assert seen.weights.shape[2] == seen.height * seen.width
        assert not seen.weights.masked_select(~context.mask).any()
        if isinstance(kind, FusedAttention):
            assert (shares < 1).all()  # the picture's own positions take the rest
        else:
            torch.testing.assert_close(shares, torch.ones_like(shares))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_bias_of_zero_changes_nothing(kind):
    network = awake(tiny(attention=kind))
    x, c_noise = some_noise()
    context = network.prepare(some_condition()).with_bias(lambda logits, height, width: logits)
    with torch.no_grad():
        torch.testing.assert_close(network(x, c_noise, context), say(network, some_condition()))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_bias_turns_heads_towards_a_token(kind):
    network = awake(tiny(attention=kind))
    x, c_noise = some_noise()
    context = network.prepare(some_condition())
    name, start, _ = context.segments[1]

    def towards(logits, height, width):
        assert logits.shape[2] == height * width
        assert logits.dtype == torch.float32
        return logits + 100.0 * (torch.arange(logits.shape[-1]) == start)

    maps = []
    with torch.no_grad():
        network(x, c_noise, context.with_bias(towards), maps=maps)
    assert name == "t5"
    assert all((m.weights[..., start] > 0.9).all() for m in maps)


def test_segments_say_whose_every_key_is():
    context = awake(tiny()).prepare(some_condition())
    assert context.segments == (("null", 0, 1), ("t5", 1, 8), ("clip_text", 8, 13))
    assert context.mask.shape[-1] == 13
