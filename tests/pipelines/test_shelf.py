"""With residency active, space experts that no word of the prompt takes are never loaded, and nothing else changes."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import tiny_network, tiny_unet

from bottega.cli.main import run
from bottega.diffusion import TimestepPlan
from bottega.errors import CheckpointError
from bottega.models import UNet, UNetConfig
from bottega.models.moe_config import SpaceMoEConfig, TimeMoEConfig
from bottega.models.unet_config import ExpertTransformer, Middle
from bottega.pipelines import (
    DenoiserConfig,
    StageEntry,
    StageSettings,
    assemble,
    load,
    save_denoiser,
)
from bottega.pipelines.shelf import ShelvedUNet, has_shelf, load_shelved, shelf_of
from bottega.pipelines.stored import load_denoiser, load_timestep_denoiser

ATTENTION = ExpertTransformer(
    head_width=16,
    depth=2,
    space=SpaceMoEConfig(experts=24, ratio=1.0, gate_width=16, average="real_tokens"),
    time=TimeMoEConfig(experts=2, ratio=1.0, gate_width=8),
)
PROMPT = "a red car"


def network() -> UNetConfig:
    return replace(tiny_network(), middle=Middle(attention=ATTENTION))


@pytest.fixture(scope="module")
def folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one stage whose blocks have more experts than a short prompt has words."""
    place = tmp_path_factory.mktemp("raphael")
    for part in ("t5", "clip"):
        shutil.copytree(tiny_folder / part, place / part)
    unet = tiny_unet(network(), seed=0)
    for name, parameter in unet.named_parameters():
        if ".space.gate." in name:
            parameter.data *= 8
    save_denoiser(place / "base", unet.state_dict(), DenoiserConfig(network=network()))
    assemble(
        place,
        name="raphael",
        stages=[StageEntry(name="base", folder="base", size=8, settings=StageSettings(steps=2))],
        encoders={"t5": "t5", "clip": "clip"},
    )
    return place


def painted(folder: Path, residency: str, prompts: list[str]):
    painter = load(folder, device="cpu", dtype="float32", residency=residency)
    return painter, [np.asarray(picture) for picture in painter.paint(prompts)]


def test_pictures_are_the_same_to_the_last_bit(folder: Path):
    prompts = [PROMPT, "two apples on a blue background"]
    _, whole = painted(folder, "all", prompts)
    _, spared = painted(folder, "active", prompts)
    for one, other in zip(whole, spared, strict=True):
        assert np.array_equal(one, other)


def test_only_the_prompt_s_experts_are_ever_in_memory(folder: Path):
    painter, _ = painted(folder, "active", [PROMPT])
    unet = painter.stages[0].denoiser.network
    assert isinstance(unet, ShelvedUNet)
    count = shelf_of(painter.stages[0].denoiser)
    assert count is not None
    assert count.experts == 48
    assert 0 < count.most_resident < 48
    each = count.bytes_each[0]
    assert count.spared_bytes == (48 - count.most_resident) * each
    resident = sum(
        p.numel() * 4 for name, p in unet.named_parameters() if ".space.experts." in name
    )
    assert resident == sum(len(block) for block in unet.resident) * each


def test_a_walk_asks_every_gate_once(folder: Path):
    painter = load(folder, device="cpu", dtype="float32")
    asked: list[int] = []
    for block in painter.stages[0].denoiser.network.expert_blocks:
        for moe in (block.space, block.time):
            moe.gate.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    painter.paint([PROMPT], steps=5)
    assert sorted(asked) == [2, 2, 5, 5]  # prompt and silence by words, five steps by noise


def test_a_context_can_be_called_after_others_were_prepared(folder: Path):
    shelved, _ = load_shelved(folder / "base")
    whole, _ = load_denoiser(folder / "base")
    painter = load(folder, device="cpu", dtype="float32")
    heard = [painter.encoders.condition([text]) for text in (PROMPT, "a dog")]
    x, sigma = torch.randn(1, 3, 8, 8), torch.ones(1)
    contexts = [shelved.prepare(condition) for condition in heard]
    before = shelved.network.resident
    with torch.no_grad():
        for condition, context in zip(heard, contexts, strict=True):
            expected = whole(x, sigma, whole.prepare(condition))
            assert torch.equal(shelved(x, sigma, context), expected)
    assert shelved.network.resident != before


def test_the_weights_follow_the_network_s_precision(folder: Path):
    shelved, _ = load_shelved(folder / "base")
    shelved.to(dtype=torch.bfloat16)
    painter = load(folder, device="cpu", dtype="float32")
    shelved.prepare(painter.encoders.condition([PROMPT]))
    assert {p.dtype for p in shelved.parameters()} == {torch.bfloat16}


def test_a_network_trained_with_timesteps_is_shelved_too(folder: Path, tmp_path: Path):
    unet = tiny_unet(network(), seed=0)
    config = DenoiserConfig(network=network(), timestep_plan=TimestepPlan())
    save_denoiser(tmp_path / "eps", unet.state_dict(), config)
    shelved, _ = load_shelved(tmp_path / "eps")
    whole, _ = load_timestep_denoiser(tmp_path / "eps")
    assert isinstance(shelved.network, ShelvedUNet)
    heard = load(folder, device="cpu", dtype="float32").encoders.condition([PROMPT])
    x, sigma = torch.randn(1, 3, 8, 8), torch.ones(1)
    with torch.no_grad():
        expected = whole(x, sigma, whole.prepare(heard))
        assert torch.equal(shelved(x, sigma, shelved.prepare(heard)), expected)


def test_networks_without_space_experts_are_not_shelved(tiny_folder: Path):
    assert not has_shelf(DenoiserConfig(network=tiny_network()))
    timed = replace(network(), middle=Middle(attention=replace(ATTENTION, space=None)))
    assert not has_shelf(DenoiserConfig(network=timed))
    painter = load(tiny_folder, device="cpu", dtype="float32", residency="active")
    assert shelf_of(painter.stages[0].denoiser) is None


def test_damage_is_found_before_anything_is_painted(folder: Path, tmp_path: Path):
    broken = tmp_path / "base"
    shutil.copytree(folder / "base", broken)
    weights = broken / "denoiser.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load_shelved(broken)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    other = UNet(replace(network(), time_width=16))
    save_denoiser(tmp_path / "base", other.state_dict(), DenoiserConfig(network=network()))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_shelved(tmp_path / "base")


def test_the_command_says_what_was_spared(folder: Path, tmp_path: Path, capsys):
    picture = tmp_path / "car.png"
    asked = ["paint", PROMPT, "--model", str(folder), "--residency", "active", "-o", str(picture)]
    assert run([*asked, "--device", "cpu", "--dtype", "float32"]) == 0
    assert picture.exists()
    said = capsys.readouterr().err
    assert "of 48 space experts were in memory at most" in said
    assert "MB stayed on disk" in said
