"""LoRA beside any network's layers: silent at first, chosen by name, and all that learns."""

import pytest
import torch
from tiny_networks import awake, say, some_condition, some_noise, tiny

from bottega.errors import ConfigError
from bottega.models.attention import SelfMixer, TextReader
from bottega.models.lora import (
    LoraPlan,
    add_lora,
    lora_parameters,
    share_lora,
    target_names,
)
from bottega.models.moe import SpaceMoE, TimeMoE
from bottega.models.moe_config import SpaceMoEConfig, TimeMoEConfig
from bottega.models.unet_config import ExpertTransformer, FusedAttention, Transformer

RAPHAEL = ExpertTransformer(
    head_width=16,
    time=TimeMoEConfig(experts=2, ratio=1.0, gate_width=8),
    space=SpaceMoEConfig(experts=3, ratio=1.0, gate_width=8),
)

PLANS = {
    "ours": tiny(),
    "fused": tiny(FusedAttention(head_width=16)),
    "transformer": tiny(Transformer(head_width=16)),
    "raphael": tiny(RAPHAEL),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_fresh_lora_leaves_every_bit_as_it_is(name: str):
    network = awake(PLANS[name])
    before = say(network, some_condition())
    add_lora(network, LoraPlan(rank=2))
    assert torch.equal(say(network, some_condition()), before)


@pytest.mark.parametrize("name", PLANS)
def test_attention_names_every_projection_of_every_attention(name: str):
    network = awake(PLANS[name])
    inside = {
        f"{owner}.{inner}"
        for owner, module in network.named_modules()
        if isinstance(module, SelfMixer | TextReader)
        for inner, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    assert inside
    assert set(target_names(network, ["attention"])) == inside


def test_layers_are_chosen_by_the_end_of_a_name_and_by_patterns():
    network = awake(tiny())
    everywhere = target_names(network, ["text_kv"])
    assert everywhere
    assert all(name.endswith(".text_kv") for name in everywhere)
    on_the_way_up = target_names(network, ["up.*.text_kv"])
    assert on_the_way_up == [name for name in everywhere if name.startswith("up.")]
    both = target_names(network, ["up.*.text_kv", "conv_in"])
    assert set(both) > set(on_the_way_up)


def test_gates_and_experts_of_a_mixture_are_chosen_by_name():
    layers = torch.nn.ModuleDict(
        {
            "space": SpaceMoE(16, 8, SpaceMoEConfig(experts=2)),
            "time": TimeMoE(16, 8, TimeMoEConfig(experts=2)),
        }
    )
    gates, experts = (target_names(layers, [group]) for group in ("gates", "experts"))
    assert {name.split(".")[1] for name in gates} == {"gate"}
    assert {name.split(".")[1] for name in experts} == {"experts"}
    assert {name.split(".")[0] for name in gates} == {"space", "time"}
    assert target_names(layers, ["space.experts.1.*"]) == [
        "space.experts.1.up",
        "space.experts.1.down",
    ]


def test_an_expert_with_a_lora_learns():
    layer = SpaceMoE(16, 8, SpaceMoEConfig(experts=2, bias=False))
    torch.manual_seed(0)
    tokens, rows = torch.randn(1, 5, 8), torch.randn(1, 9, 16)
    attention = torch.rand(1, 9, 5)
    route = layer.route(tokens, torch.ones(1, 5, dtype=torch.bool))
    before = layer(rows, attention, route)
    add_lora(layer, LoraPlan(rank=2, targets=("experts",)))
    assert torch.equal(layer(rows, attention, route), before)
    layer(rows, attention, route).square().sum().backward()
    used = {f".experts.{k}." for k in route.used}
    for name, matrix in lora_parameters(layer).items():
        if name.endswith("lora_B.weight") and any(part in f".{name}" for part in used):
            assert matrix.grad is not None
            assert matrix.grad.abs().sum() > 0


def test_a_lora_beside_gates_and_experts_of_a_whole_network_learns():
    network = awake(tiny(RAPHAEL))
    before = say(network, some_condition())
    names = add_lora(network, LoraPlan(rank=2, targets=("gates", "experts")))
    assert {part for name in names for part in ("space", "time") if f".{part}." in name} == {
        "space",
        "time",
    }
    torch.testing.assert_close(say(network, some_condition()), before)  # experts' fused GELU rounds
    x, c_noise = some_noise()
    network(x, c_noise, network.prepare(some_condition())).square().mean().backward()
    learned = {
        kind
        for kind in ("gate", "experts")
        for name, matrix in lora_parameters(network).items()
        if f".{kind}." in name and matrix.grad is not None and matrix.grad.abs().sum() > 0
    }
    assert learned == {"gate", "experts"}


def test_only_the_lora_learns():
    network = awake(tiny()).requires_grad_(True)
    add_lora(network, LoraPlan(rank=2, dropout=0.1))
    network.train()
    x, c_noise = some_noise()
    network(x, c_noise, network.prepare(some_condition())).square().mean().backward()
    own = {id(parameter) for parameter in lora_parameters(network).values()}
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert {id(parameter) for parameter in learning} == own
    slopes = [p.grad for n, p in lora_parameters(network).items() if n.endswith("lora_B.weight")]
    assert all(slope is not None and slope.abs().sum() > 0 for slope in slopes)


def test_two_networks_can_share_one_lora():
    first, second = awake(tiny(), seed=0), awake(tiny(), seed=1)
    for network in (first, second):
        add_lora(network, LoraPlan(rank=2))
    before = say(second, some_condition())
    share_lora(first, second)
    for parameter in lora_parameters(first).values():
        parameter.data.normal_()
    own, shared = lora_parameters(first), lora_parameters(second)
    assert all(own[name] is shared[name] for name in own)
    assert not torch.equal(say(second, some_condition()), before)


def test_a_target_that_names_nothing_is_refused_with_the_nearest():
    network = awake(tiny())
    with pytest.raises(ConfigError, match="'atention'; did you mean attention"):
        target_names(network, ["atention"])
    with pytest.raises(ConfigError, match="no layer of this network is a 'experts'"):
        target_names(network, ["experts"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 0}, "rank must be positive"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"targets": ()}, "must name at least one"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change, words: str):
    with pytest.raises(ConfigError, match=words):
        LoraPlan(**change)
