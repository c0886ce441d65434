"""A super-resolution net that learns on crops of spoilt pictures becomes two experts, and enlarges whole ones."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_runs import toy_base, toy_sr

from bottega import load
from bottega.cli.main import run as run_command
from bottega.config import from_json, to_json
from bottega.data import Degradations
from bottega.ensemble import Mixture
from bottega.errors import ConfigError
from bottega.models.unet_config import CrossOnly, Level
from bottega.pipelines import open_picture
from bottega.recipes import RunConfig, recipe
from bottega.recipes.branch import denoiser_task
from bottega.recipes.execute import execute
from bottega.recipes.programme import PlannedNode, PlannedStage, Programme

pytestmark = pytest.mark.filterwarnings("ignore:the text .* is too long")  # for toy encoders


def toy_sr_on_crops(encoders: Path) -> RunConfig:
    """From 8 to 16 px, learned on squares of 8 px, by a network that only looks at words."""
    config = toy_sr(encoders)
    task = denoiser_task(config)
    network = dataclasses.replace(
        task.network,
        levels=(
            Level(width=16, stride=1, down_blocks=1, up_blocks=1),
            Level(width=32, attention=CrossOnly(head_width=16)),
        ),
        middle=None,
    )
    return dataclasses.replace(
        config,
        task=dataclasses.replace(task, network=network, degradations=Degradations(), crop_px=8),
    )


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory) -> Path:
    """The folder of a programme: a base, and a super-resolution net with both of its experts at level 1."""
    folder = tmp_path_factory.mktemp("programme")
    halves = tuple(PlannedNode(part=part, parent="0/0", images=16) for part in ("1/0", "1/1"))
    stages = (
        PlannedStage(name="base", run=toy_base(tiny_folder), nodes=()),
        PlannedStage(name="sr", run=toy_sr_on_crops(tiny_folder), nodes=halves),
    )
    assert all(
        r.is_done for r in execute(Programme(name="toy", shape="custom", stages=stages), folder)
    )
    return folder


def test_two_experts_at_level_one_enlarge_as_one_stage_of_a_model(trained, tmp_path):
    model = tmp_path / "model"
    assert run_command(["assemble", str(trained), "-o", str(model)]) == 0
    painter = load(model, dtype="float32")
    experts = painter.stages[1].denoiser
    assert isinstance(experts, Mixture)
    assert sorted(str(part) for part in experts.parts.values()) == ["1/0", "1/1"]
    picture = painter.paint(["a dog"], seeds=[3], steps=4)[0]
    assert picture.size == (16, 16)
    assert np.asarray(picture).std() > 0


def test_both_experts_work_on_every_large_picture(trained, tmp_path):
    model = tmp_path / "model"
    assert run_command(["assemble", str(trained), "-o", str(model)]) == 0
    painter = load(model, dtype="float32")

    def paint() -> np.ndarray:
        return np.asarray(painter.paint(["a dog"], seeds=[3], steps=6)[0])

    whole = paint()
    for expert in painter.stages[1].denoiser.holder.denoisers:
        weight = expert.network.stem.weight
        before = weight.detach().clone()
        with torch.no_grad():
            weight.zero_()
        assert not np.array_equal(whole, paint())
        with torch.no_grad():
            weight.copy_(before)
    assert np.array_equal(whole, paint())


def test_previews_show_whole_pictures_though_training_saw_crops(trained):
    sheets = sorted(trained.glob("sr-*/previews/*.png"))
    assert len(sheets) >= 3
    assert open_picture(sheets[0]).width > 4 * 16


def test_what_was_spoilt_and_cut_is_written_down_and_read_again(tiny_folder):
    config = toy_sr_on_crops(tiny_folder)
    again = from_json(RunConfig, json.loads(json.dumps(to_json(config))))
    assert again == config and again.task.degradations == Degradations()


def test_crops_that_cannot_be_learned_from_are_refused(tiny_folder):
    config = toy_sr_on_crops(tiny_folder)
    task = denoiser_task(config)
    for crop, words in ((7, "multiple of 2"), (0, "multiple of 2"), (18, "at most the size 16")):
        with pytest.raises(ConfigError, match=words):
            dataclasses.replace(config, task=dataclasses.replace(task, crop_px=crop))
    with pytest.raises(ConfigError, match="this network has self-attention"):
        dataclasses.replace(denoiser_task(toy_sr(tiny_folder)), crop_px=8)
    for setting in ({"crop_px": 8}, {"degradations": Degradations()}):
        with pytest.raises(ConfigError, match="for a super-resolution net"):
            dataclasses.replace(denoiser_task(toy_base(tiny_folder)), **setting)


@pytest.mark.parametrize("name", ["ediffi-sr1024", "imagen-sr1024"])
def test_the_papers_last_networks_learn_on_crops_and_could_paint_any_size(name: str):
    config = recipe(name)
    task = denoiser_task(config)
    assert (config.size, task.low_res_size, task.crop_px) == (1024, 256, 256)
    assert task.network.is_convolutional
    assert (task.degradations is None) == name.startswith("imagen")
