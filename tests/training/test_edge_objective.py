"""Edges are learned below the threshold and nowhere else, from the right targets, by the loss of the paper."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny_networks import awake, some_condition, tiny

from bottega.data import Batch, Canny
from bottega.data.emoji_world import EmojiWorld, WorldSource
from bottega.diffusion import LogNormal, TimestepPlan
from bottega.errors import CheckpointError, ConfigError, DataError, InputError
from bottega.models.edge_head import EdgeHeadConfig, EdgeSupervised
from bottega.models.hed import HedNetwork
from bottega.recipes.raphael import BELOW_TIMESTEP_500
from bottega.seeding import generator
from bottega.training import DenoiserObjective
from bottega.training.edge_objective import (
    EdgeObjective,
    EdgeSupervision,
    edges_at,
    focal_loss,
)
from bottega.training.edge_targets import EdgedSource, HedEdges, WorldEdges, load_hed
from bottega.training.objective import Loss
from bottega.training.timestep_objective import TimestepObjective

QUIET, LOUD = LogNormal(mean=-4.0, std=0.1), LogNormal(mean=3.0, std=0.1)


def supervised(seed=0):
    network = EdgeSupervised(awake(tiny(), seed), EdgeHeadConfig(width=4))
    return network.requires_grad_(True)


def batch(n=4, seed=0, *, edges=True):
    draw = generator(seed)
    images = torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=draw)
    drawn = torch.randint(0, 2, (n, 16, 16), dtype=torch.uint8, generator=draw) * 255
    return Batch(
        images=images,
        captions=("a",) * n,
        indices=tuple(range(n)),
        condition=some_condition(n),
        edges=drawn if edges else None,
    )


def gradients(network, objective, given):
    network.zero_grad()
    loss = objective(network, given, generator(5))
    loss.total.backward()
    return loss, {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in network.named_parameters()
    }


def test_above_the_threshold_edges_give_no_loss_and_exactly_no_gradient():
    network, given = supervised(), batch()
    plain = DenoiserObjective(noise=LOUD)
    alone, without = gradients(network.network, plain, given)
    loss, found = gradients(network, EdgeObjective(objective=plain), given)
    assert loss.metrics["edge_loss"] == 0
    assert torch.allclose(loss.total, alone.total)
    assert all(not g.any() for name, g in found.items() if name.startswith("edge_heads."))
    for name, gradient in without.items():
        assert torch.allclose(found[f"network.{name}"], gradient, atol=1e-5), name


def test_below_the_threshold_edges_teach_heads_and_attention():
    network, given = supervised(), batch()
    plain = DenoiserObjective(noise=QUIET)
    _, without = gradients(network.network, plain, given)
    loss, found = gradients(network, EdgeObjective(objective=plain), given)
    assert loss.metrics["edge_loss"] > 0
    assert all(g.any() for name, g in found.items() if name.startswith("edge_heads."))
    query = next(name for name in without if "query.weight" in name)
    assert not torch.allclose(found[f"network.{query}"], without[query], rtol=1e-3)


def test_a_network_of_timesteps_learns_edges_below_timestep_500_and_not_at_it():
    plan = TimestepPlan(betas="scaled_linear", beta_start=0.00085, beta_end=0.012)
    network, given = supervised(), batch()
    settings = EdgeSupervision(below_sigma=BELOW_TIMESTEP_500)
    found = {}
    for first, last in ((499, 500), (500, 501), (500, 1000)):
        interval = (first / 1000, last / 1000)
        inner = TimestepObjective(plan=plan, dropout=0.0, intervals=(interval,))
        objective = EdgeObjective(objective=inner, settings=settings)
        found[first, last] = objective(network, given, generator(0)).metrics["edge_loss"].item()
    assert found[499, 500] > 0
    assert found[500, 501] == found[500, 1000] == 0


def test_the_threshold_itself_is_above():
    settings = EdgeSupervision(below_sigma=0.5)
    at = torch.tensor([0.5, 0.4999, 0.6, 0.1])

    def fixed(network, given, draws):
        context = network.prepare(given.condition)
        said = network(given.clean(), at.log() / 4, context)
        return Loss(total=said.square().mean(), sigma=at)

    network, given = supervised(), batch()
    changed = given.edges.clone()
    changed[[0, 2]] = 255 - changed[[0, 2]]
    objective = EdgeObjective(objective=fixed, settings=settings)
    first, one = gradients(network, objective, given)
    second, two = gradients(network, objective, dataclasses.replace(given, edges=changed))
    assert torch.equal(first.total, second.total)  # edges of noisy pictures say nothing
    assert all(torch.equal(one[name], two[name]) for name in one)
    changed = given.edges.clone()
    changed[1] = 255 - changed[1]
    third, _ = gradients(network, objective, dataclasses.replace(given, edges=changed))
    assert not torch.equal(first.total, third.total)


def test_a_picture_of_a_dropped_text_is_left_out():
    network, given = supervised(), batch()
    condition = given.condition.dropped({"clip_text": torch.tensor([True] * 4)})
    objective = EdgeObjective(objective=DenoiserObjective(noise=QUIET))
    loss = objective(network, dataclasses.replace(given, condition=condition), generator(0))
    assert loss.metrics["edge_loss"] == 0


def test_the_loss_is_the_sum_with_its_weight_and_the_parts_are_told():
    network, given = supervised(), batch()
    for weight in (0.0, 1.0, 3.0):
        settings = EdgeSupervision(weight=weight)
        objective = EdgeObjective(objective=DenoiserObjective(noise=QUIET), settings=settings)
        loss = objective(network, given, generator(1))
        parts = loss.metrics["denoising_loss"] + weight * loss.metrics["edge_loss"]
        assert torch.allclose(loss.total, parts)
        assert loss.per_image.mean() == loss.metrics["denoising_loss"]


def test_edge_loss_does_not_depend_on_who_else_is_in_the_batch():
    network, given = supervised(), batch()

    def fixed(network, given, draws):
        network(given.clean(), torch.zeros(len(given)), network.prepare(given.condition))
        return Loss(total=torch.zeros(()), sigma=torch.full((len(given),), 0.1))

    objective = EdgeObjective(objective=fixed)
    together = objective(network, given, generator(0)).total
    alone = [objective(network, part(given, row), generator(0)).total for row in range(4)]
    assert torch.allclose(together, torch.stack(alone).mean(), atol=1e-6)


def part(given, row):
    streams = {
        name: dataclasses.replace(
            stream,
            tokens=stream.tokens[row : row + 1],
            mask=stream.mask[row : row + 1],
            pooled=stream.pooled[row : row + 1],
        )
        for name, stream in given.condition.streams.items()
    }
    return Batch(
        images=given.images[row : row + 1],
        captions=given.captions[:1],
        indices=given.indices[:1],
        condition=dataclasses.replace(given.condition, streams=streams),
        edges=given.edges[row : row + 1],
    )


def test_heads_learn_to_draw_the_edges_that_attention_can_show():
    """One batch learned by heart: attention and heads together come near the edges."""
    network, given = supervised(), batch(2)
    square = torch.zeros(2, 16, 16, dtype=torch.uint8)
    square[0, 4:12, 4:12] = 255
    square[1, :, 8:] = 255
    given = dataclasses.replace(given, edges=square)

    def quiet(network, given, draws):
        context = network.prepare(given.condition)
        network(given.clean(), torch.zeros(2), context)
        return Loss(total=torch.zeros(()), sigma=torch.full((2,), 0.01))

    objective = EdgeObjective(objective=quiet)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = objective(network, given, generator(0)).total
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_focal_loss_is_the_papers_formula_at_zero_and_one():
    draw = generator(3)
    logits = torch.randn(2, 1, 5, 7, generator=draw, dtype=torch.float64).float()
    hard = torch.randint(0, 2, logits.shape, generator=draw).float()
    p = logits.double().sigmoid()
    p_true = torch.where(hard > 0, p, 1 - p)
    balance = torch.where(hard > 0, 0.3, 0.7).double()
    expected = -(balance * (1 - p_true) ** 2 * p_true.log()).mean()
    assert focal_loss(logits, hard, alpha=0.3, gamma=2.0) == pytest.approx(
        expected.item(), abs=1e-6
    )


def test_focal_loss_without_focus_is_half_the_cross_entropy():
    logits, targets = torch.randn(1, 1, 4, 4, generator=generator(4)), torch.rand(1, 1, 4, 4)
    expected = F.binary_cross_entropy_with_logits(logits, targets) / 2
    assert torch.allclose(focal_loss(logits, targets, alpha=0.5, gamma=0.0), expected)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_focal_loss_is_least_at_the_share_itself(share, alpha):
    targets = torch.full((1, 1, 1, 1), share)
    p = torch.linspace(0.001, 0.999, 999)
    losses = [
        focal_loss(logit.view(1, 1, 1, 1), targets, alpha=alpha, gamma=2.0).item()
        for logit in p.logit()
    ]
    assert p[int(np.argmin(losses))].item() == pytest.approx(share, abs=0.0015)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_has_finite_slopes_where_it_is_already_right(gamma):
    logits = torch.tensor([-200.0, 0.0, 200.0]).view(1, 1, 1, 3).requires_grad_(True)
    focal_loss(logits, logits.detach().sigmoid(), alpha=0.5, gamma=gamma).backward()
    assert logits.grad.isfinite().all()


def test_edges_made_smaller_keep_their_share():
    edges = (torch.rand(2, 16, 16, generator=generator(0)) > 0.7).to(torch.uint8) * 255
    small = edges_at(edges, 4, 8)
    assert small.shape == (2, 1, 4, 8)
    assert torch.allclose(small.mean(), edges.float().mean() / 255)
    assert torch.equal(edges_at(edges, 16, 16)[:, 0] * 255, edges.float())


def test_the_worlds_edges_are_its_exact_outlines():
    source = WorldSource(EmojiWorld(), 32)
    found = EdgedSource(source, WorldEdges()).batch([3, 9])
    for row, index in enumerate((3, 9)):
        assert np.array_equal(found.edges[row].numpy() == 255, source.world[index].edges(32))
    assert torch.equal(found.images, source.batch([3, 9]).images)
    assert EdgedSource(source, WorldEdges()).num_examples is None


def test_a_picture_that_is_no_square_has_its_own_edges():
    example = EmojiWorld()[3]

    class Wide(Plain):
        def batch(self, indices):
            blank = torch.zeros(1, 3, 24, 40, dtype=torch.uint8)
            return Batch(images=blank, captions=("a",), indices=(3,), examples=(example,))

    found = EdgedSource(Wide(), WorldEdges()).batch([3])
    assert np.array_equal(found.edges[0].numpy() == 255, example.edges((24, 40)))


class Plain:
    num_examples = 5

    def batch(self, indices):
        return dataclasses.replace(batch(len(indices)), condition=None, edges=None)


def test_canny_is_what_it_finds_in_each_picture():
    found = EdgedSource(Plain(), Canny(low=0.3, high=0.3)).batch([0, 1])
    expected = Canny(low=0.3, high=0.3)(found.images[1].permute(1, 2, 0).numpy())
    assert np.array_equal(found.edges[1].numpy() == 255, expected)


def test_hed_draws_from_a_safetensors_file(tmp_path):
    torch.manual_seed(0)
    network = HedNetwork((2, 2, 2, 2, 2), fused=False)
    names = {"mean": "norm"} | {
        f"stages.{i}.convs.{j}.{kind}": f"block{i + 1}.convs.{j}.{kind}"
        for i in range(5)
        for j in range(3)
        for kind in ("weight", "bias")
    }
    names |= {
        f"stages.{i}.edges.{kind}": f"block{i + 1}.projection.{kind}"
        for i in range(5)
        for kind in ("weight", "bias")
    }
    file = tmp_path / "hed.safetensors"
    state = network.state_dict()
    save_file({names[name]: tensor.contiguous() for name, tensor in state.items()}, file)
    found = EdgedSource(Plain(), HedEdges(weights=str(file))).batch([0, 1])
    expected = (network(found.clean())[:, 0] * 255).round().to(torch.uint8)
    assert torch.equal(found.edges, expected)


def test_files_that_are_no_hed_are_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no .*hed.safetensors"):
        load_hed(tmp_path / "hed.safetensors")
    pickle = tmp_path / "ControlNetHED.pth"
    pickle.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(CheckpointError, match="is a pickle"):
        load_hed(pickle)
    other = tmp_path / "other.safetensors"
    save_file({"conv1": torch.zeros(1)}, other)
    with pytest.raises(CheckpointError, match=r"other.safetensors: these are no weights of HED"):
        EdgedSource(Plain(), HedEdges(weights=str(other)))


def test_pictures_of_no_world_have_no_exact_edges():
    with pytest.raises(DataError, match="take Canny"):
        EdgedSource(Plain(), WorldEdges()).batch([0])


def test_what_cannot_be_learned_from_is_refused():
    objective = EdgeObjective(objective=DenoiserObjective(noise=QUIET))
    with pytest.raises(InputError, match="EdgedSource"):
        objective(supervised(), batch(edges=False), generator(0))
    with pytest.raises(InputError, match="with edge heads, got a UNet"):
        objective(supervised().network, batch(), generator(0))

    def silent(network, given, draws):
        return Loss(total=torch.zeros(()))

    with pytest.raises(InputError, match="tells its sigma"):
        EdgeObjective(objective=silent)(supervised(), batch(), generator(0))


@pytest.mark.parametrize(
    "settings", [{"below_sigma": 0.0}, {"weight": -1.0}, {"gamma": -1.0}, {"alpha": 1.5}]
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match=f"edges.{next(iter(settings))}"):
        EdgeSupervision(**settings)
