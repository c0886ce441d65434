"""Networks with experts learn, their gates explore, and their loads are seen and evened out."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_networks import some_condition, tiny

from bottega.condition import Condition
from bottega.data import Batch
from bottega.errors import ConfigError, InputError
from bottega.models import UNet
from bottega.models.edge_head import EdgeHeadConfig, EdgeSupervised
from bottega.models.moe_config import GateNoise, SpaceMoEConfig, TimeMoEConfig
from bottega.models.moe_gates import SpaceRoute
from bottega.models.moe_load import CollapseWarning, load_of
from bottega.models.unet_config import ExpertTransformer
from bottega.rundir import RunDir
from bottega.training import EmaConfig, JournalHook, TrainConfig, fit
from bottega.training.denoiser_objective import DenoiserObjective
from bottega.training.edge_objective import EdgeObjective
from bottega.training.experts import (
    ExpertsHook,
    ExpertsObjective,
    Progress,
    expert_loads,
    load_table,
    sureness,
)

SPACE = SpaceMoEConfig(experts=3, ratio=1.0, gate_width=16, average="real_tokens")
TIME = TimeMoEConfig(experts=2, ratio=1.0, gate_width=16)
PLAN = ExpertTransformer(head_width=16, time=TIME, space=SPACE)
BATCH = 8


class Words:
    """Pictures of one colour, which a word of the condition says."""

    num_examples = 64

    def batch(self, indices) -> Batch:
        colours = torch.tensor([[index % 2, (index // 2) % 2, 0.5] for index in indices])
        images = (colours[:, :, None, None] * 255).expand(-1, -1, 8, 8).to(torch.uint8)
        condition = some_condition(batch=len(indices), seed=3)
        stream = condition.streams["t5"]
        tokens = torch.zeros_like(stream.tokens)
        tokens[:, :, :3] = colours[:, None] * 2
        streams = {**condition.streams, "t5": replace(stream, tokens=tokens)}
        return Batch(
            images=images,
            captions=tuple(str(index) for index in indices),
            indices=tuple(indices),
            condition=Condition(streams=streams),
        )


def network(plan: ExpertTransformer = PLAN, seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(tiny(plan))


def trained(run: RunDir, images: int, objective: ExpertsObjective, unet: UNet, **hooks):
    config = TrainConfig(
        total_images=images,
        batch_size=BATCH,
        learning_rate=3e-3,
        precision="fp32",
        checkpoint_images=images,
        ema=EmaConfig(stds=(), every_images=BATCH),
    )
    watching = ExpertsHook(objective.progress, every_images=4 * BATCH)
    every = [JournalHook(every_images=4 * BATCH), watching]
    return fit(unet, objective, Words(), config, run, hooks=every, **hooks)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_network_with_experts_learns(tmp_path):
    objective = ExpertsObjective(objective=DenoiserObjective())
    unet = network()
    batch = Words().batch(range(BATCH))

    def loss() -> float:
        with torch.no_grad():
            return float(objective.objective(unet, batch, draw()).total)

    before = loss()
    trained(RunDir(tmp_path), 60 * BATCH, objective, unet)
    assert loss() < 0.6 * before


def test_the_loss_is_the_other_objective_s_and_the_balance():
    plain = network(replace(PLAN, space=replace(SPACE, noise=GateNoise(std=0.0)), time=None))
    batch = Words().batch(range(BATCH))
    alone = DenoiserObjective()(plain, batch, draw())
    for balance in (0.0, 0.5):
        both = ExpertsObjective(objective=DenoiserObjective(), balance=balance)(
            plain, batch, draw()
        )
        expected = alone.total + balance * both.metrics["space_balance"]
        torch.testing.assert_close(both.total, expected)
        assert torch.equal(both.metrics["denoising_loss"], alone.total)
        assert torch.equal(both.per_image, alone.per_image)


def test_balance_alone_teaches_the_gates_and_nothing_else():
    unet = network()
    batch = Words().batch(range(BATCH))
    loss = ExpertsObjective(objective=DenoiserObjective())(unet, batch, draw())
    (loss.metrics["space_balance"] + loss.metrics["time_balance"]).backward()
    taught = {name for name, p in unet.named_parameters() if p.grad is not None}
    gates = {name for name, _ in unet.named_parameters() if ".gate." in name}
    assert gates <= taught
    assert not any(".experts." in name for name in taught)


def test_gates_explore_by_the_generator_of_the_step():
    noisy = replace(PLAN, space=replace(SPACE, noise=GateNoise(std=9.0)))
    unet, batch = network(noisy), Words().batch(range(BATCH))
    objective = ExpertsObjective(objective=DenoiserObjective())

    def loads(seed: int) -> torch.Tensor:
        return objective(unet, batch, draw(seed)).metrics["space_load"]

    assert torch.equal(loads(1), loads(1))
    assert not torch.equal(loads(1), loads(2))


def test_annealed_noise_goes_by_the_progress_of_the_run():
    noise = GateNoise(std=9.0, anneal_images=100)
    noisy = replace(PLAN, space=replace(SPACE, noise=noise), time=None)
    unet, batch = network(noisy), Words().batch(range(BATCH))
    progress = Progress()
    objective = ExpertsObjective(objective=DenoiserObjective(), progress=progress)

    def loads(seed: int) -> torch.Tensor:
        return objective(unet, batch, draw(seed)).metrics["space_load"]

    assert not torch.equal(loads(1), loads(2))
    progress.images_seen = 100
    assert torch.equal(loads(1), loads(2))


def test_the_table_counts_what_the_loads_count():
    unet = network(replace(PLAN, time=None)).eval()
    routes = unet.prepare(some_condition()).routes
    assert all(isinstance(route, SpaceRoute) for route in routes)
    counted = expert_loads(load_table(routes))
    assert counted == [load_of(route) for route in routes]


def test_layers_with_fewer_experts_have_no_dead_ones_for_it():
    few = network(replace(PLAN, time=None)).eval().prepare(some_condition()).routes
    wide = replace(SPACE, experts=5)
    many = network(replace(PLAN, time=None, space=wide)).eval().prepare(some_condition()).routes
    counted = expert_loads(load_table([few[0], many[0]]))
    assert [len(load.counts) for load in counted] == [3, 5]


def test_a_gate_that_cannot_tell_experts_apart_is_not_sure_however_even_its_load_is():
    unet = network(replace(PLAN, time=None)).eval()
    sure = sureness(unet.prepare(some_condition()).routes)
    assert bool((sure > 0.4).all())
    for block in unet.expert_blocks:
        torch.nn.init.zeros_(block.space.gate.scores.weight)
    torch.testing.assert_close(
        sureness(unet.prepare(some_condition()).routes), torch.full((4,), 1 / 3)
    )


def test_the_journal_has_every_expert_s_load_from_the_first_step(tmp_path):
    run = RunDir(tmp_path)
    trained(run, 8 * BATCH, ExpertsObjective(objective=DenoiserObjective()), network())
    records = [json.loads(line) for line in run.journal.read_text().splitlines()]
    experts = [r for r in records if r["event"] == "experts"]
    assert experts[0]["images_seen"] == BATCH
    assert [r["images_seen"] for r in experts[1:]] == [4 * BATCH, 8 * BATCH]
    for record in experts:
        for kind, num_experts in (("space", 3), ("time", 2)):
            assert [len(row) for row in record[kind]["load"]] == [num_experts] * 4
            assert all(abs(sum(row) - 1) < 1e-3 for row in record[kind]["load"])
            assert len(record[kind]["entropy"]) == len(record[kind]["dead"]) == 4
            assert len(record[kind]["sure"]) == 4
            assert all(1 / num_experts < sure <= 1 for sure in record[kind]["sure"])
    train = [r for r in records if r["event"] == "train"]
    assert {"space_balance", "space_load", "time_balance"} <= set(train[0]["metrics"])


@pytest.mark.filterwarnings("ignore::bottega.models.moe_load.CollapseWarning")
def test_a_collapse_is_said_in_the_journal_too(tmp_path):
    unet = network()
    for block in unet.expert_blocks:
        block.space.gate.scores.bias.data = torch.tensor([50.0, 0.0, 0.0])
    run = RunDir(tmp_path)
    with pytest.warns(CollapseWarning, match="expert 0 of 3"):
        trained(run, BATCH, ExpertsObjective(objective=DenoiserObjective(), balance=0.0), unet)
    records = [json.loads(line) for line in run.journal.read_text().splitlines()]
    (experts, *_) = (r for r in records if r["event"] == "experts")
    assert any("space-MoE of block 1" in line for line in experts["warnings"])
    assert experts["space"]["dead"] == [[1, 2]] * 4


def test_a_resumed_run_knows_how_far_it_is(tmp_path):
    run = RunDir(tmp_path)
    first = ExpertsObjective(objective=DenoiserObjective())
    trained(run, 2 * BATCH, first, network())
    again = ExpertsObjective(objective=DenoiserObjective())
    assert again.progress.images_seen == 0
    trained(run, 3 * BATCH, again, network(), resume=True)
    assert again.progress.images_seen == 3 * BATCH


@pytest.mark.parametrize("balance", [-0.1, float("nan"), float("inf")])
def test_a_balance_that_makes_no_sense_is_refused(balance):
    with pytest.raises(ConfigError, match="balance"):
        ExpertsObjective(objective=DenoiserObjective(), balance=balance)


def test_a_network_that_is_no_unet_is_refused():
    objective = ExpertsObjective(objective=DenoiserObjective())
    with pytest.raises(InputError, match="U-Net"):
        objective(torch.nn.Linear(2, 2), Words().batch(range(2)), draw())


def test_a_table_of_nothing_is_refused():
    with pytest.raises(InputError, match="at least one"):
        load_table([])


def test_edges_are_learned_beside_the_experts():
    torch.manual_seed(0)
    unet = UNet(tiny(PLAN))
    for parameter in unet.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    supervised = EdgeSupervised(unet, EdgeHeadConfig(width=4))
    objective = EdgeObjective(objective=ExpertsObjective(objective=DenoiserObjective()))
    batch = replace(Words().batch(range(4)), edges=torch.zeros(4, 8, 8, dtype=torch.uint8))
    loss = objective(supervised, batch, draw())
    loss.total.backward()
    assert loss.metrics["space_load"].shape == (4, 3)
    assert loss.metrics["edge_loss"] > 0
    for part in ("heads", ".gate.", ".cross_mix.query"):
        gradients = [p.grad for name, p in supervised.named_parameters() if part in name]
        assert any(g is not None and g.abs().sum() > 0 for g in gradients)
    expected = loss.metrics["denoising_loss"] + loss.metrics["edge_loss"]
    expected = expected + 0.01 * (loss.metrics["space_balance"] + loss.metrics["time_balance"])
    torch.testing.assert_close(loss.total, expected)
