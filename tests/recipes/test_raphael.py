"""A toy RAPHAEL goes the whole way: trained by its recipe in both forms, exported, assembled, painted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_runs import toy_base

from bottega.config import override
from bottega.diffusion import TimestepPlan
from bottega.errors import ConfigError
from bottega.models import UNet
from bottega.models.moe_config import SpaceMoEConfig, TimeMoEConfig
from bottega.models.unet_config import ExpertTransformer, Middle, Periods, Sinusoid
from bottega.pipelines.stored import load_denoiser
from bottega.recipes import RunConfig, recipe, train
from bottega.recipes.run import DenoiserTask
from bottega.recipes.train import build
from bottega.training.experts import ExpertsObjective

ATTENTION = ExpertTransformer(
    head_width=16,
    space=SpaceMoEConfig(experts=3, ratio=1.0, gate_width=8, average="real_tokens"),
    time=TimeMoEConfig(experts=2, ratio=1.0, gate_width=8),
)
EPS = TimestepPlan(betas="scaled_linear", beta_start=0.00085, beta_end=0.012)


def toy(encoders: Path, *, timesteps: bool = False) -> RunConfig:
    config = toy_base(encoders, images=32)
    assert isinstance(config.task, DenoiserTask)
    network = replace(
        config.task.network,
        middle=Middle(attention=ATTENTION),
        sinusoid=Periods() if timesteps else Sinusoid(),
    )
    task = replace(config.task, network=network, timestep_plan=EPS if timesteps else None)
    return replace(config, name="lab-raphael", task=task)


@pytest.mark.filterwarnings("ignore::bottega.models.moe_load.CollapseWarning")
@pytest.mark.parametrize("timesteps", [False, True], ids=["EDM's form", "eps at timesteps"])
def test_a_toy_is_trained_and_exported_in_both_forms(tmp_path, tiny_folder, timesteps):
    config = toy(tiny_folder, timesteps=timesteps)
    state = train(config, tmp_path / "run")
    assert state.finished
    records = [json.loads(line) for line in state.run.journal.read_text().splitlines()]
    experts = [record for record in records if record["event"] == "experts"]
    assert experts[0]["images_seen"] == 8
    assert [len(row) for row in experts[0]["space"]["load"]] == [3]
    assert [len(row) for row in experts[0]["time"]["load"]] == [2]
    train_records = [record for record in records if record["event"] == "train"]
    assert train_records[0]["metrics"]["space_balance"] >= 1
    if not timesteps:
        denoiser, _ = load_denoiser(state.run.path / "export")
        assert isinstance(denoiser.network, UNet)
        assert len(denoiser.network.expert_blocks) == 1


def test_the_balance_of_the_task_is_that_of_the_loss(tiny_folder):
    config = toy(tiny_folder)
    _, objective = build(override(config, {"task.balance": "0.5"}))
    assert isinstance(objective, ExpertsObjective)
    assert objective.balance == 0.5
    with pytest.raises(ConfigError, match="balance"):
        override(config, {"task.balance": "-1"})


def test_a_network_without_experts_is_trained_as_before(tiny_folder):
    _, objective = build(toy_base(tiny_folder))
    assert not isinstance(objective, ExpertsObjective)


def test_the_full_size_recipe_is_the_paper_s():
    config = recipe("raphael")
    task = config.task
    assert isinstance(task, DenoiserTask)
    plan = task.timestep_plan
    assert plan is not None
    assert (plan.prediction, plan.num_timesteps) == ("eps", 1000)
    assert config.train.batch_size == 2000
    assert config.train.learning_rate == 1e-4
    assert config.train.warmup_images == 20_000 * 2000
    assert config.buckets is not None
    assert len(config.buckets.shapes) == 9
    with torch.device("meta"):
        network = UNet(task.network)
    assert len(network.expert_blocks) == 16


def test_the_small_recipe_fits_beside_its_autoencoder_in_25_megabytes():
    from bottega.models import count_parameters
    from bottega.models.autoencoder import AutoencoderConfig, build_autoencoder

    task = recipe("piccolo-raphael").task
    assert isinstance(task, DenoiserTask)
    with torch.device("meta"):
        autoencoder = build_autoencoder(AutoencoderConfig(), 64)
    weights = count_parameters(task.network) + sum(p.numel() for p in autoencoder.parameters())
    assert 2 * weights < 24.5e6
