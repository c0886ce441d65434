from dataclasses import replace

import pytest
import torch
from tiny_networks import awake, some_condition, some_noise, tiny

from bottega.condition import Condition
from bottega.errors import ConfigError, InputError
from bottega.models import UNet, UNetConfig
from bottega.models.attention import AttentionMap, BlockRoutes, Reading
from bottega.models.moe import SpaceMoE
from bottega.models.moe_config import GateNoise, SpaceMoEConfig, TimeMoEConfig
from bottega.models.moe_gates import Exploring
from bottega.models.transformer import ExpertBlock
from bottega.models.unet_config import ExpertTransformer, PlainFeedForward

SPACE = SpaceMoEConfig(experts=3, ratio=1.0, gate_width=8, average="real_tokens")
TIME = TimeMoEConfig(experts=3, ratio=1.0, gate_width=8)
PLAN = ExpertTransformer(head_width=16, time=TIME, space=SPACE)
ARMS = {
    "both": PLAN,
    "space alone": replace(PLAN, time=None),
    "time alone": replace(PLAN, space=None),
    "dense": replace(PLAN, time=None, space=None, feed_forward=PlainFeedForward(ratio=2.0)),
}


def decided(config: UNetConfig, seed: int = 0) -> UNet:
    """A network whose gates have made up their minds, so that tokens and noise levels differ in where they go."""
    network = awake(config, seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".gate." in name:
                parameter.mul_(8)
    return network


@pytest.mark.parametrize("plan", ARMS.values(), ids=ARMS)
def test_every_parameter_learns_but_those_of_experts_without_work(plan: ExpertTransformer):
    network = decided(tiny(plan)).train()
    x, c_noise = some_noise(batch=4)
    context = network.prepare(some_condition(batch=4))
    network(x, c_noise, context).square().mean().backward()
    idle = [
        f"{moe}.experts.{k}."
        for routes in zip(context.routes, network.time_routes(c_noise), strict=True)
        for moe, route in zip(("space", "time"), routes, strict=True)
        if route is not None
        for k in range(3)
        if k not in route.used
    ]
    silent = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert [name for name in silent if not any(part in name for part in idle)] == []


def test_a_block_is_the_four_parts_in_order_each_with_norm_and_residual():
    network = decided(tiny(PLAN))
    block = network.expert_blocks[0]
    _, c_noise = some_noise()
    context = network.prepare(some_condition())
    times = network.time_routes(c_noise)
    reading = Reading(
        layers=context.layers,
        mask=context.mask,
        routes=tuple(BlockRoutes(*pair) for pair in zip(context.routes, times, strict=True)),
    )
    rows = torch.randn(2, 16, 32)
    with torch.no_grad():
        given = block(rows, 4, 4, reading)
        rows = rows + block.self_mix(block.norm_self(rows))
        query = block.cross_mix.query(block.norm_cross(rows)).unflatten(-1, (2, 16)).transpose(1, 2)
        keys, values = context.layers[block.cross_mix.layer]
        logits = query @ keys.transpose(-1, -2) / 4
        weights = logits.masked_fill(~context.mask, float("-inf")).softmax(-1)
        rows = rows + block.cross_mix.out((weights @ values).transpose(1, 2).flatten(2))
        rows = rows + block.time(block.norm_time(rows), times[0])
        attention_map = weights.mean(dim=1)
        rows = rows + block.space(block.norm_space(rows), attention_map, context.routes[0])
    torch.testing.assert_close(given, rows)


def test_every_block_has_routes_of_its_own():
    network = decided(tiny(PLAN))
    context = network.prepare(some_condition())
    assert [block.place for block in network.expert_blocks] == list(range(4))
    assert len(context.routes) == 4
    paths = torch.stack([route.expert for route in context.routes])
    assert (paths != paths[0]).any()


def test_blocks_are_numbered_in_the_order_in_which_a_picture_passes_them():
    network = decided(tiny(PLAN))
    passed: list[int] = []
    hooks = [
        block.register_forward_pre_hook(lambda block, _: passed.append(block.place))
        for block in network.expert_blocks
    ]
    x, c_noise = some_noise()
    with torch.no_grad():
        network(x, c_noise, network.prepare(some_condition()))
    for hook in hooks:
        hook.remove()
    assert passed == list(range(4))


def test_a_route_depends_on_the_prompt_and_not_on_the_picture():
    network = decided(tiny(PLAN))
    one = network.prepare(some_condition(seed=1))
    other = network.prepare(some_condition(seed=2))
    again = network.prepare(some_condition(seed=1))
    for mine, same in zip(one.routes, again.routes, strict=True):
        assert torch.equal(mine.expert, same.expert)
    assert any(
        not torch.equal(a.expert, b.expert) for a, b in zip(one.routes, other.routes, strict=True)
    )


def test_the_prompt_has_no_say_in_where_a_noise_level_goes():
    network = decided(tiny(PLAN))
    c_noise = torch.linspace(-3, 3, 9)
    experts = torch.stack([route.expert for route in network.time_routes(c_noise)])
    assert (experts != experts[:, :1]).any()
    alone = torch.stack([r.expert for r in network.time_routes(c_noise[4:5])])
    assert torch.equal(alone[:, 0], experts[:, 4])


def test_routes_worked_out_beforehand_are_those_a_call_works_out_itself():
    network = decided(tiny(PLAN))
    x, c_noise = some_noise()
    context = network.prepare(some_condition())
    with torch.no_grad():
        own = network(x, c_noise, context)
        told = network(x, c_noise, context.with_times(network.time_routes(c_noise)))
        other = network(x, c_noise, context.with_times(network.time_routes(c_noise + 3)))
    assert torch.equal(own, told)
    assert not torch.equal(own, other)


def asked_gates(network: UNet) -> list[int]:
    """Every time that a gate of time experts is asked, by how many noise levels it is asked of."""
    asked: list[int] = []
    for block in network.expert_blocks:
        block.time.gate.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    return asked


def test_foreseen_noise_levels_give_the_same_and_ask_no_gate_again():
    network = decided(tiny(PLAN))
    x, _ = some_noise()
    levels = torch.linspace(-1.5, 1.1, 24)
    context = network.prepare(some_condition())
    with torch.no_grad():
        own = [network(x, level.expand(2), context) for level in levels]
        asked = asked_gates(network)
        foreseen = network.foresee(context, levels)
        assert asked == [24] * 4
        for level, expected in zip(levels, own, strict=True):
            assert torch.equal(network(x, level.expand(2), foreseen), expected)
        assert asked == [24] * 4


def test_noise_levels_that_were_not_foreseen_are_asked_for():
    network = decided(tiny(PLAN))
    x, _ = some_noise()
    context = network.prepare(some_condition())
    foreseen = network.foresee(context, torch.tensor([-1.0, 0.5]))
    asked = asked_gates(network)
    with torch.no_grad():
        for c_noise in (torch.tensor([0.7, 0.7]), torch.tensor([-1.0, 0.5])):
            expected = network(x, c_noise, context)
            assert torch.equal(network(x, c_noise, foreseen), expected)
    assert asked == [2] * 16


def test_a_network_without_time_experts_foresees_nothing():
    network = decided(tiny(ARMS["space alone"]))
    context = network.prepare(some_condition())
    assert network.foresee(context, torch.ones(3)) is context


def test_a_picture_is_the_same_alone_and_in_a_batch():
    network = decided(tiny(PLAN)).double()
    x, c_noise = some_noise(batch=3)
    context = network.prepare(some_condition(batch=3))
    with torch.no_grad():
        together = network(x.double(), c_noise, context)
        alone = network(x[1:2].double(), c_noise[1:2], context.select([1]))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-10, atol=1e-10)


def test_a_context_of_one_prompt_serves_a_batch():
    network = decided(tiny(PLAN)).double()
    x, c_noise = some_noise()
    context = network.prepare(some_condition(batch=1))
    with torch.no_grad():
        together = network(x.double(), c_noise, context)
        alone = network(x[1:].double(), c_noise[1:], context)
    torch.testing.assert_close(together[1:], alone, rtol=1e-10, atol=1e-10)


def test_padding_changes_nothing_where_real_tokens_are_averaged():
    network = decided(tiny(PLAN))
    x, c_noise = some_noise()
    condition = some_condition()
    stream = condition.streams["t5"]
    noise = torch.randn(stream.tokens.shape) * ~stream.mask[..., None]
    changed = replace(
        condition,
        streams={**condition.streams, "t5": replace(stream, tokens=stream.tokens + noise)},
    )
    with torch.no_grad():
        plain = network(x, c_noise, network.prepare(condition))
        padded = network(x, c_noise, network.prepare(changed))
    torch.testing.assert_close(plain, padded)


def test_exploring_gates_choose_with_noise_from_the_generator_they_are_given():
    noisy = replace(SPACE, noise=GateNoise(std=30.0))
    network = decided(tiny(replace(PLAN, space=noisy)))

    def explored(seed: int) -> torch.Tensor:
        exploring = Exploring(images_seen=0, generator=torch.Generator().manual_seed(seed))
        routes = network.prepare(some_condition(), exploring).routes
        return torch.stack([route.expert for route in routes])

    assert torch.equal(explored(1), explored(1))
    assert not torch.equal(explored(1), explored(2))


def test_maps_can_be_had_beside_the_experts():
    network = decided(tiny(PLAN))
    x, c_noise = some_noise()
    context = network.prepare(some_condition())
    maps: list[AttentionMap] = []
    with torch.no_grad():
        plain = network(x, c_noise, context)
        seen = network(x, c_noise, context, maps=maps)
    assert torch.equal(plain, seen)
    assert sorted(m.layer for m in maps) == list(range(4))


def test_a_bias_on_words_moves_their_experts_too():
    network = decided(tiny(replace(PLAN, time=None)))
    x, c_noise = some_noise()
    context = network.prepare(some_condition())

    def bias(logits, height, width):
        half = torch.zeros(1, 1, height * width, 1)
        half[:, :, : height * width // 2] = 40.0
        column = torch.zeros(logits.shape[-1])
        column[1] = 1.0
        return logits + half * column

    covers = []

    def watch(module, inputs, output):
        covers.append(module.cover(inputs[1], inputs[2]))

    hook = network.expert_blocks[0].space.register_forward_hook(watch)
    with torch.no_grad():
        network(x, c_noise, context)
        network(x, c_noise, context.with_bias(bias))
    hook.remove()
    assert not torch.equal(covers[0], covers[1])


def test_an_expert_acts_only_where_its_words_are_looked_at():
    network = decided(tiny(PLAN))
    block = network.expert_blocks[0]
    context = network.prepare(some_condition())
    rows = torch.randn(2, 16, 32)
    attention_map = (torch.randn(2, 16, 13) * 3).softmax(-1)
    route = context.routes[0]
    with torch.no_grad():
        before = block.space(rows, attention_map, route)
        k = route.used[0]
        for parameter in block.space.experts[k].parameters():
            parameter.zero_()
        after = block.space(rows, attention_map, route)
    covered = block.space.cover(attention_map, route)[..., k] > 0
    # With biases an expert answers zeros too, so that uncovered places may differ by one constant per picture.
    changed = (before - after)[~covered]
    assert (before - after)[covered].abs().sum() > 0
    assert changed.numel() == 0 or torch.isfinite(changed).all()


def test_checkpointing_changes_neither_result_nor_gradient():
    network = decided(tiny(PLAN)).train()
    x, c_noise = some_noise()

    def gradients() -> list[torch.Tensor]:
        network.zero_grad()
        network(x, c_noise, network.prepare(some_condition())).square().mean().backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    plain = gradients()
    network.checkpointing = True
    for a, b in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_block_without_anything_after_attention_is_refused():
    with pytest.raises(ConfigError, match="at least one"):
        ExpertTransformer(time=None, space=None)


def test_experts_need_a_text_to_be_chosen_by():
    with pytest.raises(ConfigError, match="reads text"):
        tiny(PLAN, streams=())


def test_routes_of_another_prompt_are_refused():
    network = decided(tiny(PLAN))
    x, c_noise = some_noise()
    whole = network.prepare(some_condition())
    silent = network.prepare(some_condition().null())
    alone = network.prepare(Condition(streams={"t5": some_condition().streams["t5"]}))
    assert len(silent.routes) == len(whole.routes)
    with pytest.raises(InputError, match="tokens"):
        network(x, c_noise, replace(whole, routes=alone.routes))


def test_blocks_are_what_they_are_called():
    network = UNet(tiny(ARMS["space alone"]))
    assert all(isinstance(block, ExpertBlock) for block in network.expert_blocks)
    assert all(isinstance(block.space, SpaceMoE) for block in network.expert_blocks)
    assert all(block.time is None for block in network.expert_blocks)
