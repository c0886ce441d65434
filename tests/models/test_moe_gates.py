from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_moe import (
    CONFIG,
    PATHS,
    TEXT_WIDTH,
    TIME_CONFIG,
    TOKENS,
    counted,
    given,
    layer,
    padding,
    some,
    time_layer,
    together,
)

from bottega.errors import ConfigError, InputError
from bottega.models.moe import SpaceMoE
from bottega.models.moe_config import GateNoise, SpaceMoEConfig
from bottega.models.moe_gates import Exploring, Gate
from bottega.models.moe_load import (
    CollapseWarning,
    ExpertLoad,
    active_share,
    balance_loss,
    load_of,
    warn_of_collapse,
)


def exploring(images_seen: int = 0, seed: int = 0) -> Exploring:
    return Exploring(images_seen=images_seen, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("path", PATHS)
def test_a_gate_learns_by_every_path_but_none(path):
    moe = layer(replace(CONFIG, gate_path=path))
    time = time_layer(replace(TIME_CONFIG, gate_path=path))
    x, attention_map, tokens, mask = given()
    direction = some(*x.shape, seed=8)
    said = counted(moe, x, attention_map, tokens, mask) + together(time, x, tokens[:, 0])
    (said * direction).sum().backward()
    for parameter in [*moe.gate.parameters(), *time.gate.parameters()]:
        if path == "none":
            assert parameter.grad is None
        else:
            assert parameter.grad.abs().max() > 1e-6


def test_straight_through_computes_what_is_printed():
    x, attention_map, tokens, mask = given()
    inputs = (x, attention_map, tokens, mask)
    printed, learning = (layer(replace(CONFIG, gate_path=p)) for p in ("none", "straight_through"))
    assert torch.equal(counted(printed, *inputs), counted(learning, *inputs))
    scaled = layer(replace(CONFIG, gate_path="probability"))
    assert not torch.allclose(counted(scaled, *inputs), counted(printed, *inputs))


def test_noise_falls_to_nothing_over_the_images_it_is_given():
    noise = GateNoise(std=3.0, anneal_images=1000)
    assert [noise.at(seen, 6) for seen in (0, 500, 1000, 5000)] == [0.5, 0.25, 0, 0]
    assert GateNoise(std=3.0).at(10**9, 6) == 0.5
    with pytest.raises(ConfigError, match=r"noise\.std must not be negative, got -1"):
        GateNoise(std=-1.0)
    with pytest.raises(ConfigError, match=r"noise\.anneal_images must not be negative"):
        GateNoise(anneal_images=-1)


def test_noise_is_added_to_the_logits_with_the_standard_deviation_it_names():
    gate = Gate(TEXT_WIDTH, 7, 4, GateNoise(std=2.0))
    features = some(1, TEXT_WIDTH).float().expand(5000, -1)
    with torch.no_grad():
        quiet, loud = gate(features).log(), gate(features, exploring()).log()
    moved = (loud - quiet) - (loud - quiet).mean(dim=1, keepdim=True)
    # 4 independent draws of std 2 / 4, less their mean
    assert moved.std().item() == pytest.approx(0.5 * (3 / 4) ** 0.5, rel=0.03)


def test_only_training_explores_and_its_draws_are_repeatable():
    moe = layer(replace(CONFIG, noise=GateNoise(std=20.0, anneal_images=100)))
    tokens, mask = some(3, TOKENS, TEXT_WIDTH), padding()
    calm = moe.route(tokens, mask).expert
    assert torch.equal(moe.route(tokens, mask).expert, calm)
    first = moe.route(tokens, mask, exploring())
    assert not torch.equal(first.expert, calm)
    assert torch.equal(moe.route(tokens, mask, exploring()).expert, first.expert)
    assert not torch.equal(moe.route(tokens, mask, exploring(seed=1)).expert, first.expert)
    assert torch.equal(moe.route(tokens, mask, exploring(images_seen=100)).expert, calm)
    torch.manual_seed(0)
    assert moe.route(tokens, mask, Exploring(images_seen=0)).expert.shape == calm.shape


def test_a_route_says_how_sure_it_was():
    route = layer().route(some(3, TOKENS, TEXT_WIDTH), padding())
    assert torch.equal(route.probability, route.probabilities.amax(dim=-1))
    assert route.probabilities.sum(dim=-1).sub(1).abs().max() < 1e-12


def test_loads_count_real_tokens_and_pictures():
    route = layer().route(some(3, TOKENS, TEXT_WIDTH), padding())
    load = load_of(route)
    chosen = route.expert[padding()]
    assert load.counts == tuple(int((chosen == k).sum()) for k in range(4))
    assert load.total == 11 + 6 + 1
    times = time_layer().route(some(9, TEXT_WIDTH))
    assert load_of(times).total == 9
    assert (load + load).counts == tuple(2 * count for count in load.counts)
    with pytest.raises(InputError, match="loads of 4 and 3 experts cannot be added"):
        load + load_of(times)


@pytest.mark.parametrize(
    ("counts", "entropy", "dead"),
    [
        ((5, 5, 5, 5), 1.0, 0),
        ((7, 7, 0, 0), 0.5, 2),
        ((9, 0, 0, 0), 0.0, 3),
        ((0, 0), 1.0, 2),
        ((3,), 1.0, 0),
    ],
)
def test_entropy_says_how_even_a_load_is(counts, entropy, dead):
    load = ExpertLoad(counts=counts)
    assert load.entropy == pytest.approx(entropy)
    assert len(load.dead) == dead
    assert sum(load.shares) == pytest.approx(float(sum(counts) > 0))


def test_a_collapse_is_warned_of_once_there_are_enough_choices():
    fine, collapsed = ExpertLoad(counts=(30, 30)), ExpertLoad(counts=(99, 1))
    warn_of_collapse({"fine": fine, "young": ExpertLoad(counts=(9, 0))})
    with pytest.warns(CollapseWarning, match="block 3: expert 0 of 2 gets 99% of all choices"):
        warn_of_collapse({"fine": fine, "block 3": collapsed})


def certain(gate: Gate, wanted: int) -> None:
    """A gate that gives everything to one expert."""
    gate.scores.weight.data.zero_()
    gate.scores.bias.data = 50 * F.one_hot(torch.tensor(wanted), gate.num_experts).double()


def test_the_balance_loss_is_1_when_even_and_the_number_of_experts_when_collapsed():
    moe, tokens, mask = layer(), some(3, TOKENS, TEXT_WIDTH), padding()
    certain(moe.gate, 2)
    collapsed = moe.route(tokens, mask)
    assert balance_loss([collapsed]).item() == pytest.approx(4)
    even = replace(
        collapsed,
        expert=torch.arange(4).expand(3, 4),
        probabilities=torch.full((3, 4, 4), 0.25).double(),
        real=torch.ones(3, 4, dtype=torch.bool),
        weights=torch.eye(4).double().expand(3, 4, 4),
    )
    assert balance_loss([even]).item() == pytest.approx(1)
    assert balance_loss([even, collapsed]).item() == pytest.approx(2.5)
    with pytest.raises(InputError, match="at least one route"):
        balance_loss([])


def test_padding_has_no_say_in_the_balance():
    moe, tokens, mask = layer(), some(3, TOKENS, TEXT_WIDTH), padding()
    other = torch.where(mask[..., None], tokens, 7.0)
    one, two = (balance_loss([moe.route(words, mask)]).item() for words in (tokens, other))
    assert one == pytest.approx(two, abs=1e-12)


def test_gates_begin_decided_so_that_noise_hardly_changes_who_goes_where():
    torch.manual_seed(0)
    gate = Gate(256, 64, 6, GateNoise())
    tokens = torch.randn(500, 256)
    exploring = Exploring(images_seen=0, generator=torch.Generator().manual_seed(1))
    calm, explored = gate(tokens), gate(tokens, exploring)
    spread = calm.log().std(dim=-1).mean()
    assert 0.5 < spread < 2
    same = (calm.argmax(dim=-1) == explored.argmax(dim=-1)).float().mean()
    assert same > 0.8


def test_the_balance_loss_evens_out_a_collapsed_gate():
    torch.manual_seed(3)
    gate_only = SpaceMoE(4, 6, SpaceMoEConfig(experts=4, gate_width=16, gate_path="none"))
    gate_only.gate.scores.bias.data[1] += 12
    tokens, mask = some(8, 16, 6).float(), torch.ones(8, 16, dtype=torch.bool)
    assert load_of(gate_only.route(tokens, mask)).entropy < 0.05
    optimizer = torch.optim.Adam(gate_only.gate.parameters(), lr=0.03)
    for _ in range(400):
        optimizer.zero_grad()
        balance_loss([gate_only.route(tokens, mask)]).backward()
        optimizer.step()
    assert load_of(gate_only.route(tokens, mask)).entropy > 0.8


def planted(seed: int) -> tuple[torch.Tensor, ...]:
    """Tokens of three kinds, and a picture that every kind changes in its own way where it is looked at."""
    draw = torch.Generator().manual_seed(seed)
    images, tokens, width = 16, 6, 4
    kinds = torch.randint(3, (images, tokens), generator=draw)
    words = 2 * torch.eye(3)[kinds] + 0.3 * torch.randn(images, tokens, 3, generator=draw)
    x = torch.randn(images, 24, width, generator=draw)
    looked_at = torch.randint(tokens, (images, 24), generator=draw)
    changes = torch.stack([torch.eye(width), -torch.eye(width), torch.eye(width).roll(1, 0)])
    target = torch.einsum("bpw,bpwv->bpv", x, changes[kinds.gather(1, looked_at)]) / tokens
    return words, x, F.one_hot(looked_at, tokens).float(), kinds, target


def test_a_gate_finds_the_kinds_of_words_that_need_different_experts():
    torch.manual_seed(0)
    config = SpaceMoEConfig(
        experts=3, bias=False, gate_width=16, noise=GateNoise(std=3.0, anneal_images=200 * 16)
    )
    moe = SpaceMoE(4, 3, config)
    optimizer = torch.optim.Adam(moe.parameters(), lr=0.02)
    losses = []
    for step in range(260):
        words, x, attention_map, _, target = planted(step)
        mask = torch.ones(words.shape[:2], dtype=torch.bool)
        route = moe.route(words, mask, exploring(images_seen=16 * step, seed=step))
        loss = (6 * (moe(x, attention_map, route) - target)).square().mean()
        optimizer.zero_grad()
        (loss + 0.1 * balance_loss([route])).backward()
        optimizer.step()
        losses.append(loss.item())
    words, _, _, kinds, _ = planted(10**6)
    expert = moe.route(words, torch.ones(kinds.shape, dtype=torch.bool)).expert
    table = torch.zeros(3, 3).index_put_(
        (kinds.flatten(), expert.flatten()), torch.tensor(1.0), accumulate=True
    )
    assert sorted(table.argmax(dim=1).tolist()) == [0, 1, 2]  # an expert for each kind
    assert table.amax(dim=1).sum() / table.sum() > 0.95
    assert losses[-1] < 0.1 * losses[0]


def test_the_share_of_active_pairs_is_that_of_weights_above_zero():
    moe = layer()
    _, attention_map, tokens, mask = given()
    cover = moe.cover(attention_map, moe.route(tokens, mask))
    assert active_share(cover) == pytest.approx((cover > 0).double().mean().item())
    assert 0 < active_share(cover) < 1
