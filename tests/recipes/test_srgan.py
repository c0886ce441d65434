"""An enlarger is trained, stopped, resumed, exported and begun from, and its critic stays behind."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from enlarger_runs import toy_enlarger, write_toy_judge
from PIL import Image

from bottega.checkpoint import load_manifest, load_tensors
from bottega.errors import CheckpointError, ConfigError
from bottega.models.srgan import RRDBNetConfig, SrGan
from bottega.pipelines import find_model, load_enlarger, open_picture
from bottega.recipes import recipe, train
from bottega.recipes.run import ClipTask, EnlargerTask, FolderConfig
from bottega.recipes.srgan import find_judge
from bottega.recipes.train import build
from bottega.training.export import averaged_weights, find_checkpoint
from bottega.training.limits import StopHook
from bottega.training.srgan_objective import SrGanWeights


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Path:
    return write_toy_judge(tmp_path_factory.mktemp("judge") / "judge")


@pytest.fixture(scope="module")
def trained(judge, tmp_path_factory):
    """A finished run, to be read only."""
    run = tmp_path_factory.mktemp("runs") / "srgan"
    return train(toy_enlarger(judge, 24), run)


def test_a_run_exports_its_averaged_generator_without_the_critic(trained):
    folder = trained.run.path / "export"
    manifest = load_manifest(folder)
    assert (manifest.kind, manifest.images_seen) == ("enlarger", 24)
    written = load_tensors(folder, "enlarger")
    averages = averaged_weights(find_checkpoint(trained.run), 0.1)
    assert any(name.startswith("discriminator.") for name in averages)
    assert set(written) == {n[10:] for n in averages if n.startswith("generator.")}
    for name, tensor in written.items():
        assert torch.equal(tensor, averages[f"generator.{name}"].to(torch.bfloat16))


def test_the_export_enlarges_a_picture(trained):
    enlarger = load_enlarger(trained.run.path / "export")
    assert enlarger.enlarge(Image.new("RGB", (10, 7), "red")).size == (40, 28)


def test_both_networks_learn_and_the_journal_says_how(trained):
    lines = (trained.run.path / "journal.jsonl").read_text()
    for metric in ("pixel", "feature", "adversarial", "critic", "real_told", "made_told"):
        assert f'"{metric}"' in lines
    fresh, _ = build(toy_enlarger(Path(find_place(trained))))
    for name, parameter in trained.network.named_parameters():
        assert not torch.equal(parameter, dict(fresh.named_parameters())[name]), name


def find_place(trained) -> str:
    import json

    return json.loads(trained.run.config.read_text())["task"]["judge"]


def test_a_preview_shows_three_pictures_a_row(trained):
    shown = open_picture(next(trained.run.previews.glob("*.png")))
    assert shown.width > 3 * 32 and shown.height > 4 * 32


def test_a_stopped_run_goes_on_to_the_same_bits(judge, tmp_path, trained):
    config = toy_enlarger(judge, 24)
    train(config, tmp_path / "run", hooks=[StopHook(images=8)])
    state = train(config, tmp_path / "run", resume=True)
    assert state.digest() == trained.digest()


def test_a_second_run_begins_with_the_generator_of_the_first(judge, trained):
    exported = trained.run.path / "export"
    network, _ = build(toy_enlarger(judge, start_from=str(exported)))
    assert isinstance(network, SrGan)
    for name, tensor in load_tensors(exported, "enlarger").items():
        assert torch.equal(network.generator.state_dict()[name], tensor.float())
    other = toy_enlarger(
        judge, start_from=str(exported), network=RRDBNetConfig(width=4, num_blocks=2, grow=2)
    )
    with pytest.raises(CheckpointError, match=r"but task\.network is"):
        build(other)


def test_without_features_and_critic_no_judge_is_needed_and_no_critic_learns(tmp_path):
    config = toy_enlarger(tmp_path / "gone", weights=SrGanWeights(feature=0.0, adversarial=0.0))
    fresh = {n: p.clone() for n, p in build(config)[0].named_parameters()}
    state = train(config, tmp_path / "run")
    moved = {
        n.split(".")[0] for n, p in state.network.named_parameters() if not torch.equal(p, fresh[n])
    }
    assert moved == {"generator"}


def test_a_folder_of_pictures_can_be_learned_from_and_what_is_left_out_is_said(
    judge, tmp_path, capsys
):
    for number in range(8):
        Image.effect_noise((48, 40), 60 + number).convert("RGB").save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("noise", encoding="utf-8")
    config = toy_enlarger(judge, images=8)
    config = dataclasses.replace(config, data=FolderConfig(path=str(tmp_path)))
    for name in ("one", "two"):
        (tmp_path / f"{name}.png").write_bytes(b"damaged")
        (tmp_path / f"{name}.txt").write_text("noise", encoding="utf-8")
    (tmp_path / "silent.png").write_bytes((tmp_path / "0.png").read_bytes())
    assert train(config, tmp_path / "run").images_seen == 8
    facts = json.loads((tmp_path / "run" / "left-out.json").read_text(encoding="utf-8"))
    assert (facts["place"], facts["used"]) == (str(tmp_path), 8)
    reasons = {row["reason"]: row["files"] for row in facts["left_out"]}
    assert reasons == {"not a picture, by its contents": 2, "no caption": 1}
    assert [row["name"] for row in facts["files"]] == ["one.png", "silent.png", "two.png"]
    said = "8 pictures are used, 3 files left out (2 not a picture, by its contents, 1 no caption)"
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_judge_of_a_model_is_found_by_name_and_by_folder(judge):
    assert find_judge(str(judge)).config.size_px == 16
    assert find_judge("piccolo").digest == find_judge(str(find_model("piccolo"))).digest


def test_a_model_without_a_judge_is_named(tiny_folder, judge):
    with pytest.raises(CheckpointError, match="comes without a judge"):
        find_judge(str(tiny_folder))


def test_the_recipe_enlarges_piccolos_pictures_and_is_small():
    config = recipe("piccolo-srgan")
    assert isinstance(config.task, EnlargerTask) and config.task.network.scale == 4
    network, _ = build(
        dataclasses.replace(
            config, task=dataclasses.replace(config.task, weights=SrGanWeights(feature=0.0))
        )
    )
    assert sum(p.numel() for p in network.generator.parameters()) < 1_000_000


def test_sizes_that_cannot_be_halved_or_cut_are_refused(judge):
    config = toy_enlarger(judge)
    for crop in (12, 0, 40):
        with pytest.raises(ConfigError, match="multiples of 8"):
            toy_enlarger(judge, crop_px=crop)
    with pytest.raises(ConfigError, match="multiples of 8"):
        dataclasses.replace(config, size=36)
    with pytest.raises(ConfigError, match="learns from the drawn world"):
        dataclasses.replace(config, task=ClipTask(), data=FolderConfig(path="x"))
