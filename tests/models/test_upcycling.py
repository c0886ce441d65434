"""A dense network that is given experts computes what it did, and from there they go their own ways."""

from dataclasses import replace

import pytest
import torch
from tiny_networks import awake, some_condition, some_noise, tiny

from bottega.errors import CheckpointError, ConfigError
from bottega.models import PLANS, UNet, UNetConfig
from bottega.models.moe_config import SpaceMoEConfig, TimeMoEConfig
from bottega.models.unet_config import (
    ExpertTransformer,
    GatedFeedForward,
    PlainFeedForward,
    SelfThenCross,
    Transformer,
)
from bottega.models.upcycling import Upcycling, upcycled_plan, upcycled_weights

PLAIN = Transformer(head_width=16, depth=2, feed_forward=PlainFeedForward(ratio=2.0))
DENSE = {
    "plain": PLAIN,
    "gated": Transformer(head_width=16, feed_forward=GatedFeedForward(ratio=2.0), qkv_bias=False),
    "dense arm": ExpertTransformer(
        head_width=16, space=None, time=None, feed_forward=PlainFeedForward(ratio=1.0)
    ),
}
SPACE = SpaceMoEConfig(experts=3, gate_width=8)
TIME = TimeMoEConfig(experts=2, gate_width=8)
WANTED = {
    "both": Upcycling(space=SPACE, time=TIME),
    "space alone": Upcycling(space=SPACE, time=None),
    "time alone": Upcycling(space=None, time=TIME),
}


def grown(dense: UNet, wanted: Upcycling) -> UNet:
    plan = upcycled_plan(dense.config, wanted)
    network = UNet(plan).to(dense.dtype)
    network.load_state_dict(upcycled_weights(dense.config, dense.state_dict(), plan))
    return network.eval()


def said(network: UNet) -> torch.Tensor:
    x, c_noise = some_noise()
    with torch.no_grad():
        return network(x.to(network.dtype), c_noise, network.prepare(some_condition()))


@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
@pytest.mark.parametrize("dense", DENSE.values(), ids=DENSE)
def test_the_function_is_unchanged_to_rounding(dense, wanted):
    network = awake(tiny(dense)).double()
    torch.testing.assert_close(said(grown(network, wanted)), said(network), rtol=0, atol=1e-6)


def test_in_float64_but_for_the_softmax_nothing_is_lost():
    network = awake(tiny(PLAIN)).double()
    difference = (said(grown(network, WANTED["both"])) - said(network)).abs().max()
    assert difference < 1e-6 * said(network).abs().max()


def test_every_expert_learns_from_what_comes_to_it():
    network = grown(awake(tiny(PLAIN)), WANTED["both"]).train()
    x, c_noise = some_noise()
    context = network.prepare(some_condition())
    network(x, c_noise, context).square().mean().backward()
    block = network.expert_blocks[0]
    assert block.space is not None
    route = context.routes[0]
    assert route is not None
    for k in route.used:
        gradient = block.space.experts[k].down.weight.grad
        assert gradient is not None
        assert gradient.abs().sum() > 0


def test_a_plain_feed_forward_becomes_the_time_experts_and_is_gone():
    plan = upcycled_plan(tiny(PLAIN), WANTED["both"])
    attention = plan.levels[1].attention
    assert isinstance(attention, ExpertTransformer)
    assert attention.feed_forward is None
    assert attention.time is not None
    assert attention.time.ratio == 2.0


def test_a_gated_feed_forward_stays():
    plan = upcycled_plan(tiny(DENSE["gated"]), WANTED["both"])
    attention = plan.levels[1].attention
    assert isinstance(attention, ExpertTransformer)
    assert attention.feed_forward == GatedFeedForward(ratio=2.0)


def test_weights_keep_their_precision():
    network = awake(tiny(PLAIN)).to(torch.bfloat16)
    plan = upcycled_plan(network.config, WANTED["both"])
    weights = upcycled_weights(network.config, network.state_dict(), plan)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_the_gates_are_those_of_the_seed():
    network = awake(tiny(PLAIN))
    plan = upcycled_plan(network.config, WANTED["both"])

    def gates(seed: int) -> torch.Tensor:
        weights = upcycled_weights(network.config, network.state_dict(), plan, seed=seed)
        return next(tensor for name, tensor in weights.items() if ".gate." in name)

    assert torch.equal(gates(1), gates(1))
    assert not torch.equal(gates(1), gates(2))


def test_nothing_given_is_changed():
    network = awake(tiny(PLAIN))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    grown(network, WANTED["both"])
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_stable_diffusion_s_plan_can_be_given_experts():
    plan = upcycled_plan(PLANS["sd15"](), Upcycling())
    assert plan.has_experts


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (tiny(SelfThenCross(head_width=16)), "only transformer blocks"),
        (tiny(ExpertTransformer(head_width=16)), "already"),
    ],
    ids=["no transformer", "experts"],
)
def test_what_cannot_be_given_experts_is_refused(config: UNetConfig, message: str):
    with pytest.raises(ConfigError, match=message):
        upcycled_plan(config, Upcycling())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": None, "time": None}, "give one"),
        ({"time": replace(TIME, gate_path="probability")}, "straight_through"),
        ({"time": replace(TIME, bias=False)}, "bias"),
    ],
    ids=["nothing", "probability", "no bias"],
)
def test_settings_that_would_change_the_function_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Upcycling(**settings)


def test_weights_of_another_network_are_refused():
    network = awake(tiny(PLAIN))
    plan = upcycled_plan(network.config, WANTED["both"])
    other = awake(tiny(DENSE["gated"]))
    with pytest.raises(CheckpointError, match="not the weights"):
        upcycled_weights(network.config, other.state_dict(), plan)
