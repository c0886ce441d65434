"""A LoRA and a ControlNet are trained beside a model that stays as it is, and can be painted with."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import tiny_network, tiny_unet

from bottega.checkpoint import load_lora, load_manifest
from bottega.checkpoint.controlnet import load_controlnet
from bottega.checkpoint.ensemble import file_member
from bottega.data.emoji_world import EmojiWorldConfig
from bottega.diffusion import LogNormal, TimestepPlan
from bottega.errors import ConfigError
from bottega.pipelines import (
    DenoiserConfig,
    Guide,
    assemble,
    load,
    read_manifest,
    save_denoiser,
)
from bottega.recipes import RunConfig, recipe, train
from bottega.recipes.adapter_tasks import ControlNetTask, LoraTask
from bottega.recipes.adapters import adapted_stage, adapter_network
from bottega.recipes.run import FolderConfig
from bottega.recipes.sources import left_out, picture_source
from bottega.recipes.train import build
from bottega.training import EmaConfig


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Five striped pictures, one of them with a caption of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        stripes = np.zeros((16, 16, 3), np.uint8)
        stripes[:, number::5] = (250, 120, 10)
        Image.fromarray(stripes).save(folder / f"a_red-car_{number}.png")
    (folder / "a_red-car_0.txt").write_text("a dog")
    return folder


@pytest.fixture(scope="module")
def experts(tiny_folder, tmp_path_factory) -> Path:
    """The tiny model with a base of two expert denoisers."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("experts") / "model"))
    shutil.rmtree(folder / "base")
    parent = None
    for seed, part in enumerate(("0/0", "1/0", "1/1")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = tiny_unet(tiny_network(), seed).state_dict()
        filed = file_member(
            folder / "base",
            part,
            lambda place, state=state: save_denoiser(
                place, state, DenoiserConfig(network=tiny_network())
            ),
            noise=LogNormal(),
            parent_part=None if parent is None else "0/0",
            parent=parent,
        )
        parent = filed.digest if parent is None else parent
    before = read_manifest(folder)
    assemble(folder, name="experts", stages=before.stages, encoders=before.encoders)
    return folder


def toy(name: str, model: Path, pictures: Path | None = None, **task) -> RunConfig:
    """A recipe for a handful of pictures of 8 px."""
    config = recipe(name)
    data = config.data
    if pictures is not None:
        data = FolderConfig(path=str(pictures), caption="a drawing of {name}")
    if isinstance(data, EmojiWorldConfig):
        data = dataclasses.replace(recipe("lab").data, num_things=4)
    return dataclasses.replace(
        config,
        data=data,
        size=8,
        task=dataclasses.replace(config.task, model=str(model), **task),
        train=dataclasses.replace(
            config.train,
            total_images=8,
            batch_size=4,
            warmup_images=0,
            checkpoint_images=4,
            precision="fp32",
            learning_rate=1e-2,
            ema=EmaConfig(stds=(0.1,), every_images=4),
        ),
    )


def test_a_lora_is_trained_from_a_folder_and_painted_with(tiny_folder, pictures, tmp_path):
    config = toy("lora", tiny_folder, pictures)
    train(config, tmp_path / "style")
    lora = load_lora(tmp_path / "style" / "export")
    assert lora.name == "style"
    assert lora.facts is not None
    assert lora.facts.model == "tiny"
    assert lora.facts.model_digest == read_manifest(tiny_folder).digest
    assert any(layer.up.abs().sum() > 0 for layer in lora.layers.values())
    plain = load(tiny_folder, device="cpu", dtype="float32")
    mixed = load(
        tiny_folder, device="cpu", dtype="float32", loras=[(tmp_path / "style" / "export", 1.0)]
    )
    assert mixed.adapters.describe() == ["LoRA style at 1 changes base"]
    seen = {p.paint("a red car", seeds=0)[0].tobytes() for p in (plain, mixed)}
    assert len(seen) == 2


def test_checkpoints_hold_the_lora_alone_and_a_run_goes_on_bit_for_bit(
    tiny_folder, pictures, tmp_path
):
    config = toy("lora", tiny_folder, pictures)
    whole = train(config, tmp_path / "whole")
    half = dataclasses.replace(config, train=dataclasses.replace(config.train, total_images=4))
    train(half, tmp_path / "parts")
    parts = train(config, tmp_path / "parts", resume=True)
    assert parts.digest() == whole.digest()
    names = whole.tensors()["network"]
    assert names
    assert all(name.startswith("lora.") for name in names)


def test_captions_come_from_text_files_or_the_template(tiny_folder, pictures):
    from bottega.recipes.sources import picture_source

    source = picture_source(toy("lora", tiny_folder, pictures))
    assert source.batch(range(3)).captions == (
        "a dog",
        "a drawing of a red car 1",
        "a drawing of a red car 2",
    )


def test_a_damaged_picture_is_known_before_a_lora_learns(tiny_folder, pictures, tmp_path):
    folder = Path(shutil.copytree(pictures, tmp_path / "some"))
    whole = (folder / "a_red-car_1.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])  # its header is whole
    config = toy("lora", tiny_folder, folder)
    (said,) = left_out(config, picture_source(config))
    assert said.report.num_usable == 5
    assert [one.file for one in said.report.rejected] == ["cut.png"]


def test_one_lora_is_shared_by_all_expert_denoisers_or_by_those_that_are_named(
    experts, pictures, tmp_path
):
    config = toy("lora", experts, pictures)
    stage = adapted_stage(config)
    assert len(stage.networks) == 2
    assert stage.intervals == ((0.0, 0.5), (0.5, 1.0))
    train(config, tmp_path / "both")
    both = load(experts, device="cpu", dtype="float32", loras=[(tmp_path / "both" / "export", 1.0)])
    assert both.adapters.describe() == ["LoRA both at 1 changes base, expert denoisers 1/0 and 1/1"]
    upper = toy("lora", experts, pictures, parts=("1/1",))
    train(upper, tmp_path / "upper")
    facts = load_lora(tmp_path / "upper" / "export").facts
    assert facts is not None
    assert facts.parts == ("1/1",)
    assert adapted_stage(upper).intervals == ((0.5, 1.0),)


def test_every_picture_goes_through_the_expert_denoiser_of_its_noise(experts, pictures):
    config = toy("lora", experts, pictures)
    stage = adapted_stage(config)
    network = adapter_network(config, stage).eval()
    sigma = torch.tensor([0.01, 50.0, 0.05, 20.0])
    c_noise = sigma.log() / 4
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    told = stage.encoders.condition(["a dog"] * 4)
    with torch.no_grad():
        together = network(x, c_noise, network.prepare(told))
        for row, owner in enumerate((0, 1, 0, 1)):
            unet = stage.networks[owner]
            one = unet.prepare(stage.encoders.condition(["a dog"]))
            alone = unet(x[row : row + 1], c_noise[row : row + 1], one)
            torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("where", ["single", "experts"])
def test_a_controlnet_is_trained_on_edges_and_painted_with(
    where: str, tiny_folder, experts, tmp_path
):
    model = tiny_folder if where == "single" else experts
    config = toy("controlnet", model)
    state = train(config, tmp_path / "edges")
    assert all(name.startswith("control.") for name in state.tensors()["network"])
    net, facts, _ = load_controlnet(tmp_path / "edges" / "export")
    assert facts.reads == "edges as Canny finds them"
    assert any(p.abs().sum() > 0 for n, p in net.named_parameters() if n.startswith("zeros"))
    painter = load(
        model, device="cpu", dtype="float32", controlnets=[tmp_path / "edges" / "export"]
    )
    assert "ControlNet edges reads edges as Canny finds them" in painter.adapters.describe()[0]
    picture = Image.new("L", (8, 8), 255)
    (steered,) = painter.paint("a dog", seeds=0, controls=[Guide(picture)])
    (plain,) = load(model, device="cpu", dtype="float32").paint("a dog", seeds=0)
    assert steered.tobytes() != plain.tobytes()


def test_before_training_the_loss_beside_a_model_is_the_models_own(tiny_folder, tmp_path):
    """Neither a fresh LoRA nor a fresh ControlNet changes what the network says, to the last bit."""
    from bottega.recipes.adapters import adapter_objective, adapter_source
    from bottega.recipes.sources import picture_source
    from bottega.rundir import RunDir

    losses = []
    for name in ("lora", "controlnet"):
        config = toy(name, tiny_folder)
        config = dataclasses.replace(config, data=toy("controlnet", tiny_folder).data)
        dropout = recipe("lora").task.dropout
        config = dataclasses.replace(config, task=dataclasses.replace(config.task, dropout=dropout))
        stage = adapted_stage(config)
        plain = dataclasses.replace(stage).networks[0]
        source = adapter_source(config, stage, picture_source(config), RunDir(tmp_path / name))
        batch = source.batch(range(4))
        objective = adapter_objective(config, stage)
        with torch.no_grad():
            before = objective(plain, batch, torch.Generator().manual_seed(1))
            network = adapter_network(config, stage)
            after = objective(network, batch, torch.Generator().manual_seed(1))
        assert torch.equal(before.total, after.total)
        losses.append(after.total)
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize(("name", "listens"), [("lora", True), ("lora-style", False)])
def test_a_style_is_learned_without_a_word(tiny_folder, pictures, tmp_path, name, listens):
    from bottega.recipes.adapters import adapter_objective, adapter_source
    from bottega.recipes.sources import picture_source
    from bottega.rundir import RunDir

    config = toy(name, tiny_folder, pictures)
    stage = adapted_stage(config)
    batch = adapter_source(config, stage, picture_source(config), RunDir(tmp_path)).batch(range(4))
    other = dataclasses.replace(batch, condition=stage.encoders.condition(["two apples"] * 4))
    objective, network = adapter_objective(config, stage), adapter_network(config, stage)
    with torch.no_grad():
        losses = [
            objective(network, b, torch.Generator().manual_seed(1)).total for b in (batch, other)
        ]
    assert torch.equal(*losses) == (not listens)


def test_previews_are_painted_on_the_way(tiny_folder, tmp_path):
    config = toy("controlnet", tiny_folder)
    train(config, tmp_path / "run")
    assert list((tmp_path / "run").rglob("*.png"))


def test_what_an_export_is_for_is_in_its_manifest(tiny_folder, pictures, tmp_path):
    train(toy("lora", tiny_folder, pictures), tmp_path / "style")
    folder = tmp_path / "style" / "export"
    manifest = load_manifest(folder)
    assert manifest.kind == "lora"
    assert manifest.images_seen == 8
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["peft_type"] == "LORA"
    assert settings["r"] == 8
    assert settings["base_model_name_or_path"] == "tiny"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stage": "bass"}, "has no stage 'bass'; did you mean base"),
        ({"stage": "sr16"}, "paints 16 px: give --set size=16, got 8"),
        ({"parts": ("1/1",)}, "one denoiser for all noise; leave task.parts empty"),
    ],
)
def test_a_task_that_does_not_fit_the_model_is_refused(tiny_folder, change, words: str):
    with pytest.raises(ConfigError, match=words):
        adapted_stage(toy("controlnet", tiny_folder, **change))


def test_an_unknown_expert_denoiser_is_refused(experts):
    with pytest.raises(ConfigError, match="has no expert denoiser '2/1'"):
        adapted_stage(toy("controlnet", experts, parts=("2/1",)))


def test_a_network_of_timesteps_is_trained_in_its_own_terms(tiny_folder, tmp_path):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    shutil.rmtree(folder / "base")
    config = DenoiserConfig(network=tiny_network(), timestep_plan=TimestepPlan())
    save_denoiser(folder / "base", tiny_unet(tiny_network(), 0).state_dict(), config)
    before = read_manifest(folder)
    assemble(folder, name="steps", stages=before.stages, encoders=before.encoders)
    _, objective = build(toy("controlnet", folder))
    assert objective.plan == TimestepPlan()
    assert objective.condition_dropout is not None
    train(toy("controlnet", folder), tmp_path / "edges")
    load(folder, device="cpu", dtype="float32", controlnets=[tmp_path / "edges" / "export"])


def test_a_stage_that_enlarges_can_be_trained_beside(tiny_folder, tmp_path):
    config = dataclasses.replace(toy("controlnet", tiny_folder, stage="sr16"), size=16)
    network, objective = build(config)
    assert objective.low_res_size == 8
    assert network.config.low_res is not None
    train(config, tmp_path / "edges")
    assert list((tmp_path / "edges" / "previews").glob("*.png"))
    painter = load(
        tiny_folder, device="cpu", dtype="float32", controlnets=[tmp_path / "edges" / "export"]
    )
    assert painter.adapters.describe()[0].endswith("and steers sr16")


def test_the_recipes_are_for_the_tasks_that_they_name():
    assert isinstance(recipe("lora").task, LoraTask)
    assert isinstance(recipe("controlnet").task, ControlNetTask)
