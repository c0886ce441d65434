from dataclasses import replace
from typing import get_args

import pytest
import torch
from tiny_moe import (
    BATCH,
    CONFIG,
    PATHS,
    POSITIONS,
    TEXT_WIDTH,
    TIME_CONFIG,
    TOKENS,
    WIDTH,
    counted,
    given,
    layer,
    padding,
    some,
    some_map,
    time_layer,
    together,
)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bottega.errors import ConfigError, InputError
from bottega.models import moe as moe_module
from bottega.models.moe import SpaceMoE, TimeMoE
from bottega.models.moe_config import Average, SpaceMoEConfig, TimeMoEConfig


def factor(probability: torch.Tensor, path: str) -> torch.Tensor:
    if path == "probability":
        return probability
    return 1 + probability - probability.detach() if path == "straight_through" else 1


def literal(moe: SpaceMoE, x, attention_map, tokens, mask) -> torch.Tensor:
    """The printed sum: for every token its expert over the whole masked picture."""
    config = moe.config
    pictures = []
    for b in range(len(x)):
        total = torch.zeros_like(x[b])
        counted = [i for i in range(TOKENS) if config.average == "all_tokens" or mask[b, i]]
        for i in counted:
            probabilities = moe.gate(tokens[b, i])
            k = int(probabilities.argmax())
            column = attention_map[b, :, i]
            place = (column >= config.alpha * column.max()).double()
            said = moe.experts[k](x[b] * place[:, None])
            total = total + factor(probabilities[k], config.gate_path) * said
        pictures.append(total / len(counted))
    return torch.stack(pictures)


def one_by_one(moe: TimeMoE, x, features) -> torch.Tensor:
    """Every picture through its expert."""
    pictures = []
    for picture, feature in zip(x, features, strict=True):
        probabilities = moe.gate(feature)
        k = int(probabilities.argmax())
        said = moe.experts[k](picture)
        pictures.append(said * factor(probabilities[k], moe.config.gate_path))
    return torch.stack(pictures)


def result_and_gradients(form, moe: nn.Module, leaves: list, *more) -> list[torch.Tensor]:
    """What a form says, and the gradients of everything it depends on."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    moe.zero_grad()
    said = form(moe, leaves[0], *more, *leaves[1:])
    if said.requires_grad:
        (said * some(*said.shape, seed=9)).sum().backward()
    leaves += moe.parameters()
    return [said.detach()] + [
        torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone() for leaf in leaves
    ]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor], atol: float = 1e-12) -> None:
    for own, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, their, rtol=0, atol=atol)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("average", get_args(Average))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.7, 1.5])
def test_the_counted_form_is_the_printed_sum_forward_and_backward(alpha, bias, average, path):
    moe = layer(replace(CONFIG, alpha=alpha, bias=bias, average=average, gate_path=path))
    x, attention_map, tokens, mask = given()

    def as_printed(moe, x, tokens):
        return literal(moe, x, attention_map, tokens, mask)

    def as_computed(moe, x, tokens):
        return counted(moe, x, attention_map, tokens, mask)

    ours = result_and_gradients(as_computed, moe, [x, tokens])
    theirs = result_and_gradients(as_printed, moe, [x, tokens])
    assert_same(ours, theirs)


@pytest.mark.parametrize("path", PATHS)
def test_a_time_moe_sends_every_picture_through_its_expert(path):
    moe = time_layer(replace(TIME_CONFIG, gate_path=path))
    x, features = some(24, POSITIONS, WIDTH), some(24, TEXT_WIDTH, seed=1)
    assert len(moe.route(features).used) == 3
    ours = result_and_gradients(together, moe, [x, features])
    assert_same(ours, result_and_gradients(one_by_one, moe, [x, features]))


def test_one_noise_level_serves_the_whole_batch():
    moe = time_layer()
    x, feature = some(3, POSITIONS, WIDTH), some(1, TEXT_WIDTH, seed=1)
    for_all = moe(x, moe.route(feature.expand(3, -1)))
    torch.testing.assert_close(moe(x, moe.route(feature)), for_all, rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="the route is for 2 pictures, the batch has 3"):
        moe(x, moe.route(feature.expand(2, -1)))


def test_one_prompt_serves_the_whole_batch():
    moe = layer()
    x, attention_map, tokens, mask = given()
    route = moe.route(tokens[:1], mask[:1])
    for_all = moe.route(tokens[:1].expand(3, -1, -1), mask[:1].expand(3, -1))
    assert_same([moe(x, attention_map, route)], [moe(x, attention_map, for_all)])


def test_a_picture_is_the_same_alone_and_in_a_batch():
    moe, time = layer(), time_layer()
    x, attention_map, tokens, mask = given()
    route, time_route = moe.route(tokens, mask), time.route(tokens[:, 0])
    together = moe(x, attention_map, route)
    for order in ([2], [1, 0]):
        alone = moe(x[order], attention_map[order], route.select(order))
        assert_same([alone], [together[order]])
        assert_same([time(x[order], time_route.select(order))], [time(x, time_route)[order]])
    assert moe.route(tokens[:1], mask[:1]).select([0, 0]).expert.shape == (1, TOKENS)
    assert time.route(tokens[:1, 0]).select([0, 0]).expert.shape == (1,)


def test_the_order_of_experts_is_invisible():
    order = [2, 0, 3, 1]
    moe, time = layer(), time_layer(replace(TIME_CONFIG, experts=4))
    x, attention_map, tokens, mask = given()
    before = [counted(moe, x, attention_map, tokens, mask), together(time, x, tokens[:, 0])]
    for shuffled in (moe, time):
        shuffled.experts = nn.ModuleList(shuffled.experts[k] for k in order)
        for parameter in shuffled.gate.scores.parameters():
            parameter.data = parameter.data[order]
    after = [counted(moe, x, attention_map, tokens, mask), together(time, x, tokens[:, 0])]
    assert_same(after, before)


def test_zeroing_an_expert_changes_exactly_the_places_of_its_words():
    moe = layer(replace(CONFIG, bias=False))
    x, attention_map, tokens, mask = given()
    route = moe.route(tokens, mask)
    cover, before = moe.cover(attention_map, route), moe(x, attention_map, route)
    assert len(route.used) == 4
    for k in range(4):
        zeroed = layer(replace(CONFIG, bias=False))
        for parameter in zeroed.experts[k].parameters():
            parameter.data.zero_()
        changed = (zeroed(x, attention_map, route) != before).any(dim=-1)
        assert torch.equal(changed, cover[..., k] > 0)
        assert 0 < changed.sum() < changed.numel()


def test_masks_are_everything_at_alpha_0_and_nothing_above_1():
    attention_map, tokens, mask = some_map(), some(BATCH, TOKENS, TEXT_WIDTH), padding()
    for alpha, share in ((0.0, 1.0), (1.5, 0.0)):
        moe = layer(replace(CONFIG, alpha=alpha))
        cover = moe.cover(attention_map, moe.route(tokens, mask))
        torch.testing.assert_close(cover.sum(dim=-1), torch.full_like(cover[..., 0], share))
    no_expert_without_a_bias = layer(replace(CONFIG, alpha=1.5, bias=False))
    x = some(BATCH, POSITIONS, WIDTH)
    assert not counted(no_expert_without_a_bias, x, attention_map, tokens, mask).any()


def test_a_word_covers_the_places_that_reach_alpha_of_its_largest():
    moe = layer(replace(CONFIG, alpha=0.5))
    tokens, mask = some(1, 2, TEXT_WIDTH), torch.ones(1, 2, dtype=torch.bool)
    attention_map = torch.tensor([[[0.8, 0.02], [0.4, 0.01], [0.39, 0.009]]]).double()
    route = moe.route(tokens, mask)
    covered = torch.stack([moe.cover(attention_map[..., [i]], one) for i, one in single(route)], -1)
    assert torch.equal(covered.sum(dim=2) > 0, torch.tensor([[[1, 1], [1, 1], [0, 0]]]).bool())


def single(route):
    """The route of every token of a prompt, one at a time."""
    for i in range(route.expert.shape[1]):
        yield (
            i,
            replace(
                route,
                expert=route.expert[:, [i]],
                probabilities=route.probabilities[:, [i]],
                real=route.real[:, [i]],
                weights=route.weights[:, [i]],
            ),
        )


def test_padding_matters_only_where_all_tokens_are_averaged_over():
    x, attention_map, tokens, mask = given()
    other = torch.where(mask[..., None], tokens, some(BATCH, TOKENS, TEXT_WIDTH, seed=5))
    for average in get_args(Average):
        moe = layer(replace(CONFIG, average=average))
        before = counted(moe, x, attention_map, tokens, mask)
        after = counted(moe, x, attention_map, other, mask)
        assert torch.equal(before[0], after[0])  # no padding there
        assert torch.equal(before, after) == (average == "real_tokens")


def test_a_prompt_without_real_tokens_adds_nothing():
    x, attention_map, tokens, mask = given()
    moe = layer(replace(CONFIG, average="real_tokens"))
    route = moe.route(tokens, torch.zeros_like(mask))
    assert route.used == ()
    assert not moe(x, attention_map, route).any()


def test_only_active_pairs_are_computed():
    width, positions = 8, 400
    moe = layer(replace(CONFIG, alpha=0.9))
    x = some(1, positions, width)
    attention_map = (4 * some(1, positions, TOKENS, seed=3)).softmax(dim=-1)
    route = moe.route(some(1, TOKENS, TEXT_WIDTH), torch.ones(1, TOKENS, dtype=torch.bool))
    active = (moe.cover(attention_map, route) > 0).sum(dim=(0, 1))
    assert active.sum() < positions  # of four times as many pairs
    computed = [0] * 4

    def note(k):
        return lambda _, arguments: computed.__setitem__(k, computed[k] + len(arguments[0]))

    for k in range(4):
        moe.experts[k].register_forward_pre_hook(note(k))
    moe(x, attention_map, route)
    for rows, pairs in zip(computed, active.tolist(), strict=True):
        assert pairs <= rows <= pairs + 32


def test_an_expert_at_work_nearly_everywhere_runs_over_all_positions_and_counts_at_its_own():
    positions = 96
    moe = layer()
    x, tokens = some(1, positions, WIDTH), some(1, TOKENS, TEXT_WIDTH)
    real = torch.ones(1, TOKENS, dtype=torch.bool)
    attention_map = torch.full((1, positions, TOKENS), 1 / TOKENS, dtype=torch.float64)
    route = moe.route(tokens, real)
    few, many = route.used[:2]
    attention_map[:, :3, (route.expert == few)[0]] = 0.01  # one in 32
    attention_map[:, :20, (route.expert == many)[0]] = 0.01
    computed = {}
    for k in route.used:
        moe.experts[k].register_forward_pre_hook(
            lambda _, arguments, k=k: computed.__setitem__(k, len(arguments[0]))
        )
    said = moe(x, attention_map, route)
    assert computed[few] == positions and computed[many] == 80  # 76 and one of zeros, rounded up
    torch.testing.assert_close(
        said, literal(moe, x, attention_map, tokens, real), rtol=0, atol=1e-12
    )
    before = said[:, :3].detach()
    moe.experts[few].up.weight.data *= 3  # of what it says at zero, nothing changes
    assert torch.equal(moe(x, attention_map, route)[:, :3], before)


class Beside(nn.Module):
    """What an adapter puts in a layer's place."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.base(rows)

    @property
    def out_features(self) -> int:
        return self.base.out_features


@pytest.mark.parametrize("places", [("up",), ("down",), ("up", "down")])
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_adapters_in_an_expert_change_nothing_else(alpha, places):
    """With biases added once or expert by expert, everywhere and here and there."""
    moe = layer(replace(CONFIG, alpha=alpha))
    x, attention_map, tokens, mask = given()
    before = counted(moe, x, attention_map, tokens, mask)
    for place in places:
        setattr(moe.experts[1], place, Beside(getattr(moe.experts[1], place)))
    torch.testing.assert_close(
        counted(moe, x, attention_map, tokens, mask), before, rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        before, literal(moe, x, attention_map, tokens, mask), rtol=0, atol=1e-12
    )


def test_an_expert_that_no_token_goes_to_is_not_needed():
    moe = layer()
    x, attention_map, tokens, mask = given()
    route = moe.route(tokens[2:, :1], mask[2:, :1])
    (only,) = route.used
    before = moe(x[2:], attention_map[2:, :, :1], route)
    for k in set(range(4)) - {only}:
        moe.experts[k] = nn.Identity().to("meta")
    assert torch.equal(moe(x[2:], attention_map[2:, :, :1], route), before)


def test_the_map_gets_no_gradient():
    moe = layer()
    x, attention_map, tokens, mask = given()
    attention_map = attention_map.requires_grad_()
    counted(moe, x, attention_map, tokens, mask).sum().backward()
    assert attention_map.grad is None


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)
@pytest.mark.parametrize("limit", [0, moe_module.SMALL])
@pytest.mark.parametrize("bias", [True, False])
def test_painting_computes_what_training_does(monkeypatch, bias, limit, dtype, error):
    monkeypatch.setattr(moe_module, "SMALL", limit)
    exact = layer(replace(CONFIG, bias=bias, gate_path="probability"))
    x, attention_map, tokens, mask = given()
    route = exact.route(tokens, mask)
    wanted = exact(x, attention_map, route).detach()
    weights = route.weights.detach().to(torch.promote_types(dtype, torch.float32))
    fast = exact.to(dtype)
    inputs = (x.to(dtype), attention_map.to(weights.dtype), replace(route, weights=weights))
    slow = fast(*inputs).detach()
    with torch.inference_mode():
        quick = fast(*inputs)
    for said in (slow, quick):
        assert said.dtype == dtype
        torch.testing.assert_close(said.double(), wanted, rtol=0, atol=error)


@pytest.mark.parametrize("limit", [0, moe_module.SMALL])
def test_what_is_painted_alone_is_painted_in_a_batch_to_the_last_bit(monkeypatch, limit):
    monkeypatch.setattr(moe_module, "SMALL", limit)
    moe = layer().float()
    x, attention_map, tokens, mask = given()
    x, attention_map, tokens = x.float(), attention_map.float(), tokens.float()
    with torch.inference_mode():
        route = moe.route(tokens[:, :2], mask[:, :2])  # so few that each needs other experts
        maps = attention_map[..., :2]
        batch = moe(x, maps, route)
        for i in range(BATCH):
            alone = route.select([i])
            assert len(alone.used) < len(route.used)
            assert torch.equal(moe(x[[i]], maps[[i]], alone), batch[[i]])


def test_autocast_does_not_round_the_counts():
    moe = layer().float()
    x, attention_map, tokens, mask = given()
    route = moe.route(tokens.float(), mask)
    plain = moe.cover(attention_map.float(), route)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(moe.cover(attention_map.float(), route), plain)
        said = moe(x.float(), attention_map.float(), route)
    assert said.dtype == torch.float32
    wanted = moe(x.float(), attention_map.float(), route)
    torch.testing.assert_close(said, wanted, rtol=0, atol=1e-2)


def test_an_adapter_may_stand_in_an_experts_layer():
    class Adapted(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base

        def forward(self, rows):
            return self.base(rows) + 1

    moe = layer()
    inputs = given()
    with torch.inference_mode():
        before = counted(moe, *inputs)
        for expert in moe.experts:
            expert.up = Adapted(expert.up)
        after = counted(moe, *inputs)
        for expert in moe.experts:
            expert.up = expert.up.base
            expert.up.bias += 1
        torch.testing.assert_close(after, counted(moe, *inputs), rtol=0, atol=1e-12)
    assert not torch.allclose(before, after)


def test_without_data_every_expert_is_counted_at_every_position():
    with torch.device("meta"):
        moe = SpaceMoE(WIDTH, TEXT_WIDTH, CONFIG)
        time = TimeMoE(WIDTH, TEXT_WIDTH, TIME_CONFIG)
        route = moe.route(torch.empty(1, 3, TEXT_WIDTH), torch.ones(1, 3, dtype=torch.bool))
        time_route = time.route(torch.empty(1, TEXT_WIDTH))
        x, attention_map = torch.empty(1, POSITIONS, WIDTH), torch.empty(1, POSITIONS, 3)
        with FlopCounterMode(display=False) as space_flops:
            assert moe(x, attention_map, route).shape == x.shape
        with FlopCounterMode(display=False) as time_flops:
            assert time(x, time_route).shape == x.shape
    one_expert = 2 * 2 * WIDTH * 2 * WIDTH * POSITIONS
    assert time_flops.get_total_flops() == one_expert
    assert 4 * one_expert <= space_flops.get_total_flops() <= 5.5 * one_expert


def test_bad_settings_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"space_moe\.experts must be positive, got 0"):
        SpaceMoEConfig(experts=0)
    with pytest.raises(ConfigError, match=r"time_moe\.gate_width must be positive, got 0"):
        TimeMoEConfig(gate_width=0)
    with pytest.raises(ConfigError, match=r"space_moe\.ratio must be positive"):
        SpaceMoEConfig(ratio=0.0)
    for alpha in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"space_moe\.alpha must be 0 or more"):
            SpaceMoEConfig(alpha=alpha)


def test_a_map_of_other_tokens_and_a_route_of_other_prompts_are_refused():
    moe = layer()
    x, attention_map, tokens, mask = given()
    with pytest.raises(InputError, match="12 tokens, the route was made for 11"):
        moe(x, some_map(tokens=12), moe.route(tokens, mask))
    with pytest.raises(InputError, match="the route is for 2 prompts, the batch has 3 pictures"):
        moe(x, attention_map, moe.route(tokens[:2], mask[:2]))
