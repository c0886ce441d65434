"""Edge heads see the right token's map, draw at every layer, and leave the network as it is."""

import pytest
import torch
from tiny_networks import awake, some_condition, some_noise, tiny

from bottega.condition import Condition
from bottega.errors import ConfigError, InputError
from bottega.models import UNet
from bottega.models.attention import AttentionMap, KeysValues
from bottega.models.context import Context
from bottega.models.edge_head import (
    NUM_CONVS,
    EdgeHead,
    EdgeHeadConfig,
    EdgeSupervised,
    Watching,
    last_token,
    map_of,
    without_heads,
)
from bottega.models.unet_config import FusedAttention, Level, NoAttention, UNetConfig


def supervised(**changes):
    return EdgeSupervised(awake(tiny(**changes)), EdgeHeadConfig(width=4))


def watched(network, condition, batch=2):
    watching = Watching(network)
    x, c_noise = some_noise(batch)
    said = watching(x, c_noise, watching.prepare(condition))
    return watching, said


def test_a_head_has_the_papers_five_convolutions():
    head = EdgeHead(6)
    convs = [m for m in head.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convs) == NUM_CONVS == 5
    assert head(torch.rand(2, 1, 8, 12)).shape == (2, 1, 8, 12)


def test_a_head_sees_eleven_by_eleven_positions_and_no_further():
    torch.manual_seed(0)
    head, plane = EdgeHead(4), torch.rand(1, 1, 21, 21, requires_grad=True)
    head(plane)[0, 0, 10, 10].backward()
    rows = plane.grad[0, 0].abs().sum(1).nonzero()[:, 0]
    assert (rows.min(), rows.max()) == (5, 15)


@pytest.mark.parametrize("attention", [None, FusedAttention(head_width=16)], ids=["cross", "fused"])
def test_there_is_a_head_for_every_layer_that_reads_text_and_each_draws_at_its_own_size(attention):
    network = supervised() if attention is None else supervised(attention=attention)
    watching, _ = watched(network, some_condition())
    assert len(network.edge_heads) == len(watching.maps)
    token = last_token(watching.context, "clip_text", 2)
    drawn = network.draw(watching.maps, token, torch.tensor([1, 0]))
    assert [tuple(logits.shape) for _, logits in drawn] == [
        (2, 1, seen.height, seen.width) for seen in watching.maps
    ]


def test_the_network_says_the_same_with_heads_as_without():
    network, condition = supervised(), some_condition()
    _, said = watched(network, condition)
    x, c_noise = some_noise()
    bare = network.network
    assert torch.allclose(said, bare(x, c_noise, bare.prepare(condition)), atol=1e-5)
    assert torch.equal(
        network(x, c_noise, network.prepare(condition)), bare(x, c_noise, bare.prepare(condition))
    )


def test_the_watched_token_is_the_last_real_one_of_its_stream():
    network, condition = supervised(), some_condition(batch=5)
    context = network.prepare(condition)
    token = last_token(context, "clip_text", 5)
    # keys are the null token, 7 tokens of t5, then clip_text
    expected = 1 + 7 + condition.streams["clip_text"].mask.sum(dim=1) - 1
    assert torch.equal(token.key, expected)
    assert token.present.all()


def test_a_dropped_text_has_no_watched_token_and_a_stream_that_is_not_there_has_none_either():
    network, condition = supervised(), some_condition()
    dropped = condition.dropped({"clip_text": torch.tensor([True, False])})
    assert last_token(network.prepare(dropped), "clip_text", 2).present.tolist() == [False, True]
    alone = Condition(streams={"t5": condition.streams["t5"]})
    assert not last_token(network.prepare(alone), "clip_text", 2).present.any()


def test_a_context_of_one_prompt_serves_a_batch():
    network = supervised()
    context = network.prepare(some_condition(batch=1))
    token = last_token(context, "clip_text", 3)
    assert token.key.shape == token.present.shape == (3,)
    assert len(set(token.key.tolist())) == 1


def test_without_a_mask_every_token_is_real():
    heads = torch.zeros(1, 2, 6, 4)
    context = Context(
        layers=(KeysValues(heads, heads),), segments=(("t5", 0, 4), ("clip_text", 4, 6))
    )
    assert last_token(context, "t5", 1).key.tolist() == [3]
    assert last_token(context, "clip_text", 1).key.tolist() == [5]


def test_a_map_is_the_mean_over_heads_as_a_share_of_the_largest():
    weights = torch.rand(2, 3, 6, 5)
    seen = AttentionMap(layer=0, height=2, width=3, weights=weights)
    plane = map_of(seen, torch.tensor([4, 0]))
    for row, key in enumerate((4, 0)):
        mean = weights[row, :, :, key].mean(0)
        assert torch.allclose(plane[row, 0].flatten(), mean / mean.max())


def test_a_map_does_not_change_when_a_token_is_looked_at_twice_as_much_everywhere():
    weights = torch.rand(1, 2, 6, 5)
    key = torch.tensor([2])
    once = map_of(AttentionMap(layer=0, height=3, width=2, weights=weights), key)
    twice = map_of(AttentionMap(layer=0, height=3, width=2, weights=2 * weights), key)
    assert torch.allclose(once, twice)


def test_a_token_nobody_looks_at_gives_zeros_and_no_nan():
    plane = map_of(
        AttentionMap(layer=0, height=2, width=2, weights=torch.zeros(1, 1, 4, 3)), torch.tensor([1])
    )
    assert torch.equal(plane, torch.zeros(1, 1, 2, 2))


def test_edges_teach_the_queries_and_keys_of_the_network():
    network = supervised()
    watching, _ = watched(network, some_condition())
    token = last_token(watching.context, "clip_text", 2)
    drawn = network.draw(watching.maps, token, torch.tensor([0, 1]))
    sum(logits.sum() for _, logits in drawn).backward()
    readers = [m for m in network.network.modules() if type(m).__name__ == "CrossMixer"]
    assert readers
    assert all(m.query.weight.grad.abs().sum() > 0 for m in readers)
    assert all(m.text_kv.weight.grad.abs().sum() > 0 for m in readers)


def test_a_stream_the_network_does_not_read_is_refused():
    with pytest.raises(ConfigError, match=r"head.stream is nose.*clip_text"):
        EdgeSupervised(UNet(tiny()), EdgeHeadConfig(stream="nose"))


def test_a_network_that_reads_no_text_has_no_token_to_watch():
    config = UNetConfig(
        levels=(Level(width=16, stride=1, attention=NoAttention()),), middle=None, time_width=32
    )
    context = UNet(config).prepare(Condition())
    with pytest.raises(InputError, match="reads none"):
        last_token(context, "clip_text", 1)


def test_a_head_needs_a_width():
    with pytest.raises(ConfigError, match=r"head.width"):
        EdgeHeadConfig(width=0)


def test_without_its_heads_a_network_has_its_own_weights_by_its_own_names():
    network = supervised()
    bare = without_heads(network.state_dict())
    own = network.network.state_dict()
    assert bare.keys() == own.keys()
    assert all(torch.equal(bare[name], own[name]) for name in own)
    assert without_heads(own).keys() == own.keys()


def test_blocks_that_are_computed_again_tell_of_their_maps_once_and_learn_the_same():
    def learned(checkpointing):
        network = supervised().train()
        network.network.checkpointing = checkpointing
        watching, said = watched(network, some_condition())
        token = last_token(watching.context, "clip_text", 2)
        drawn = network.draw(watching.maps, token, torch.tensor([0, 1]))
        total = said.square().mean() + sum(logits.square().mean() for _, logits in drawn)
        total.backward()
        layers = [seen.layer for seen in watching.maps]
        return layers, {
            name: p.grad for name, p in network.named_parameters() if p.grad is not None
        }

    layers, plain = learned(checkpointing=False)
    again, found = learned(checkpointing=True)
    assert layers == again
    assert len(set(layers)) == len(layers)
    assert plain.keys() == found.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, msg=name)
