"""bottega upcycle: a run or a checkpoint is given experts on disk, computes the same, and can be trained on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import tiny_network, tiny_unet
from toy_runs import toy_base

from bottega.cli.main import run as run_command
from bottega.errors import ConfigError
from bottega.models import UNetConfig
from bottega.models.unet_config import Middle, PlainFeedForward, Transformer
from bottega.models.upcycling import EXPLORING, Upcycling
from bottega.pipelines import (
    DenoiserConfig,
    StageEntry,
    StageSettings,
    assemble,
    load,
    read_manifest,
    save_denoiser,
)
from bottega.pipelines.stored import load_denoiser
from bottega.recipes import RunConfig, read_config, train
from bottega.recipes.run import DenoiserTask
from bottega.recipes.upcycle import upcycle

DENSE = Transformer(head_width=16, feed_forward=PlainFeedForward(ratio=1.0))


def dense() -> UNetConfig:
    return replace(tiny_network(), middle=Middle(attention=DENSE))


def said(folder: Path) -> torch.Tensor:
    denoiser, _ = load_denoiser(folder)
    draw = torch.Generator().manual_seed(0)
    from bottega.condition import Condition, Stream

    streams = {
        name: Stream(
            tokens=torch.randn(1, 3, 32, generator=draw),
            mask=torch.ones(1, 3, dtype=torch.bool),
            pooled=torch.randn(1, 32, generator=draw),
        )
        for name in ("t5", "clip_text")
    }
    x = torch.randn(1, 3, 8, 8, generator=draw)
    with torch.no_grad():
        return denoiser(x, torch.ones(1), denoiser.prepare(Condition(streams=streams)))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = DenoiserConfig(network=dense())
    save_denoiser(tmp_path / "dense", tiny_unet(dense(), 0).state_dict(), config)
    return tmp_path / "dense"


def test_a_checkpoint_with_experts_computes_what_it_did(checkpoint: Path, tmp_path: Path, capsys):
    target = tmp_path / "experts"
    asked = ["upcycle", str(checkpoint), "-o", str(target), "--space", "3", "--time", "2"]
    assert run_command(asked) == 0
    assert "compute the same" in capsys.readouterr().out
    torch.testing.assert_close(said(target), said(checkpoint), rtol=1e-5, atol=1e-5)
    denoiser, manifest = load_denoiser(target)
    (block,) = denoiser.network.expert_blocks
    assert block.space.config.noise == block.time.config.noise == EXPLORING  # it fades
    assert manifest.parent is not None


@pytest.mark.filterwarnings("ignore::bottega.models.moe_load.CollapseWarning")
def test_a_run_with_experts_goes_on_from_the_dense_one(tmp_path: Path, tiny_folder: Path):
    config: RunConfig = toy_base(tiny_folder)
    assert isinstance(config.task, DenoiserTask)
    config = replace(config, task=replace(config.task, network=dense()))
    train(config, tmp_path / "dense")
    made = upcycle(
        tmp_path / "dense",
        tmp_path / "experts",
        Upcycling(),
        settings={"train.learning_rate": "1e-9", "train.total_images": "8"},
    )
    assert made.is_run
    assert made.after > made.before
    grown = read_config(tmp_path / "experts")
    assert grown.train.total_images == 8
    train(grown, tmp_path / "experts", resume=True)
    before, after = said(tmp_path / "dense" / "export"), said(tmp_path / "experts" / "export")
    torch.testing.assert_close(after, before, rtol=2e-2, atol=2e-2)  # exports are bf16
    journal = (tmp_path / "experts" / "journal.jsonl").read_text().splitlines()
    assert any(json.loads(line)["event"] == "experts" for line in journal)


@pytest.fixture
def model(checkpoint: Path, tiny_folder: Path, tmp_path: Path) -> Path:
    """A model with a dense stage that paints, and one that enlarges."""
    place = tmp_path / "model"
    for part in ("t5", "clip", "sr16"):
        shutil.copytree(tiny_folder / part, place / part)
    shutil.copytree(checkpoint, place / "base")
    settings = StageSettings(steps=2)
    enlarging = replace(settings, low_res_sigma=0.1)
    stages = [
        StageEntry(name="base", folder="base", size=8, settings=settings),
        StageEntry(name="sr16", folder="sr16", size=16, low_res_from="base", settings=enlarging),
    ]
    assemble(place, name="dense", stages=stages, encoders={"t5": "t5", "clip": "clip"})
    return place


def painted(folder: Path, **how: str) -> np.ndarray:
    (picture,) = load(folder, device="cpu", dtype="float32", **how).paint("a dog", seeds=3)
    return np.asarray(picture).astype(int)


def test_a_model_with_experts_paints_what_it_did(model: Path, tmp_path: Path, capsys):
    target = tmp_path / "experts"
    arguments = ["upcycle", str(model), "-o", str(target), "--stage", "base", "--seed", str(2**70)]
    assert run_command(arguments) == 0, capsys.readouterr().err
    assert "train them" not in capsys.readouterr().out  # it is no run
    before, after = read_manifest(model), read_manifest(target)
    assert (after.stages, after.name) == (before.stages, before.name)
    assert after.digest != before.digest
    changed = {name for name, digest in after.files.items() if before.files[name] != digest}
    assert changed == {"base/manifest.json", "base/denoiser.safetensors"}
    assert np.abs(painted(target) - painted(model)).max() <= 1
    assert np.array_equal(painted(target, residency="active"), painted(target))
    assert len(load_denoiser(target / "base")[0].network.expert_blocks) == 1


def test_a_taken_folder_is_left_alone(checkpoint: Path):
    with pytest.raises(ConfigError, match="already holds"):
        upcycle(checkpoint, checkpoint, Upcycling())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{empty}", "-o", "{new}"], "neither"),
        (["nowhere", "-o", "{new}"], "no such folder"),
        (["{model}", "-o", "{new}", "--stage", "bass"], "did you mean base"),
        (["{model}", "-o", "{new}", "--stage", "sr16"], "only transformer blocks"),
        (["{model}", "-o", "{new}", "--set", "train.batch_size=4"], "--set"),
        (["{dense}", "-o", "{new}", "--stage", "base"], "--stage"),
        (["{part}", "-o", "{new}"], "import the model first"),
        (["{dense}", "-o", "{new}", "--space", "-1"], "--space"),
        (["{dense}", "-o", "{new}", "--space", "0", "--time", "0"], "give one"),
        (["{dense}", "-o", "{new}", "--alpha", "-1"], "alpha"),
        (["{dense}", "-o", "{new}", "--set", "train.batch_size=4"], "--set"),
        (["{other}", "-o", "{new}"], "only transformer blocks"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    model: Path, tmp_path: Path, capsys, arguments: list[str], message: str
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign" / "unet").mkdir(parents=True)
    (tmp_path / "foreign" / "model_index.json").write_text("{}")
    (tmp_path / "foreign" / "unet" / "config.json").write_text("{}")
    save_denoiser(
        tmp_path / "other",
        tiny_unet(tiny_network(), 0).state_dict(),
        DenoiserConfig(network=tiny_network()),
    )
    places = {name: str(tmp_path / name) for name in ("empty", "dense", "model", "other", "new")}
    places["part"] = str(tmp_path / "foreign" / "unet")
    assert run_command(["upcycle", *(a.format(**places) for a in arguments)]) == 2
    said_so = capsys.readouterr().err.strip().splitlines()
    assert len(said_so) == 1
    assert message in said_so[0]
    assert not (tmp_path / "new").exists()
