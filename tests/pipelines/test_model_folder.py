"""A model folder is whole, unchanged and its own, or it is refused by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_network, tiny_unet

import bottega
from bottega.checkpoint import save_module
from bottega.errors import BottegaError, CheckpointError, ConfigError, InputError
from bottega.pipelines import (
    CascadeManifest,
    DenoiserConfig,
    StageEntry,
    StageSettings,
    assemble,
    find_model,
    load_denoiser,
    read_manifest,
    save_denoiser,
)
from bottega.pipelines.cascade import load_stages, verify_files
from bottega.pipelines.devices import find_device, find_dtype, has_fast_bfloat16


@pytest.fixture
def model(tiny_folder, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def rewrite(folder: Path, **changes) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_copied_model_is_the_same_model(model, painter):
    copy = bottega.load(model, device="cpu", dtype="float32")
    assert copy.digest == painter.digest and copy.name == "tiny" and copy.folder == model
    assert copy.paint("a dog")[0].tobytes() == painter.paint("a dog")[0].tobytes()


def test_defaults_may_change_without_making_another_model(model):
    before = read_manifest(model)
    after = replace(
        before,
        stages=(replace(before.stages[0], settings=StageSettings(steps=9)), before.stages[1]),
    )
    assert after.digest == before.digest
    assert (
        replace(before, files={**before.files, "base/manifest.json": "0"}).digest != before.digest
    )


@pytest.mark.parametrize(
    "file", ["base/denoiser.safetensors", "t5/model.safetensors", "clip/tokenizer.json"]
)
def test_one_flipped_bit_is_found_and_named(model, file):
    data = bytearray((model / file).read_bytes())
    data[len(data) // 2] ^= 1
    (model / file).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{file} is damaged"):
        bottega.load(model)


def test_missing_and_surplus_files_are_named(model):
    (model / "t5" / "adapter_config.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match=r"t5/adapter_config\.json, which its manifest does not"
    ):
        bottega.load(model)
    (model / "t5" / "adapter_config.json").unlink()
    (model / "t5" / ".hidden").write_text("")
    verify_files(model, read_manifest(model))
    (model / "clip" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"clip/config.json cannot be read"):
        bottega.load(model)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "judge"}, "describes a judge, not a cascade"),
        ({"format_version": 2}, "upgrade bottega"),
        ({"stages": []}, "at least one stage"),
        ({"stagse": 1}, "did you mean stages"),
        ({"encoders": {"t6": "t5"}}, "did you mean t5"),
        ({"encoders": {"t5": "../t5"}}, "does not lie inside"),
        ({"encoders": {"t5": "/etc"}}, "does not lie inside"),
        ({"files": {"../x": "0"}}, "does not lie inside"),
        ({"encoders": {"t5": "t5\0"}}, "does not lie inside"),
        ({"stages": [{"name": "a", "folder": "base", "size": 10**9}]}, "size must be at most"),
    ],
    ids=str,
)
def test_manifests_that_make_no_sense_are_refused(model, changes, words):
    rewrite(model, **changes)
    with pytest.raises(CheckpointError, match=words):
        bottega.load(model)


def test_files_that_are_no_manifest_are_refused(model):
    for text in ("{", "[" * 100_000, "[]", "\x00"):
        (model / "manifest.json").write_text(text)
        with pytest.raises(CheckpointError):
            read_manifest(model)
    (model / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="is not a model"):
        read_manifest(model)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([("a", 8, None), ("a", 16, "a")], "two stages are called a"),
        ([("a", 8, "a")], "the first stage enlarges nothing"),
        ([("a", 8, None), ("b", 16, None)], "names what it enlarges"),
        ([("base", 8, None), ("b", 16, "bas")], "did you mean base"),
        ([("a", 0, None)], "size must be positive"),
    ],
    ids=str,
)
def test_a_cascade_hangs_together(stages, words):
    with pytest.raises(ConfigError, match=words):
        CascadeManifest(
            name="x",
            stages=tuple(
                StageEntry(name=n, folder="f", size=s, low_res_from=f) for n, s, f in stages
            ),
            encoders={},
        )


@pytest.mark.parametrize("sizes", [(8, 32), (9, 18)])
def test_sizes_that_the_networks_do_not_paint_are_refused(model, sizes):
    manifest = read_manifest(model)
    stages = tuple(replace(e, size=s) for e, s in zip(manifest.stages, sizes, strict=True))
    with pytest.raises(CheckpointError, match=r"paints multiples|enlarges by"):
        load_stages(model, replace(manifest, stages=stages))


def test_a_stage_is_read_as_it_was_written(tmp_path):
    network = tiny_network()
    unet = tiny_unet(network, seed=3)
    config = DenoiserConfig(network=network)
    saved = save_denoiser(
        tmp_path / "s", unet.state_dict(), config, dtype=torch.float32, images_seen=7
    )
    state = torch.get_rng_state()
    denoiser, manifest = load_denoiser(tmp_path / "s")
    assert torch.equal(state, torch.get_rng_state())
    assert manifest.digest == saved.digest and manifest.images_seen == 7
    for name, tensor in denoiser.network.state_dict().items():
        assert torch.equal(tensor, unet.state_dict()[name]), name
    assert not denoiser.training and not any(p.requires_grad for p in denoiser.parameters())


def test_other_checkpoints_are_no_denoisers(tmp_path):
    save_module(tmp_path / "j", {"w": torch.zeros(1)}, kind="judge", config={})
    with pytest.raises(CheckpointError, match="holds a judge, not a denoiser"):
        load_denoiser(tmp_path / "j")
    save_module(tmp_path / "d", {"w": torch.zeros(1)}, kind="denoiser", config={"x": 1})
    with pytest.raises(CheckpointError, match="config"):
        load_denoiser(tmp_path / "d")


def test_what_is_not_there_cannot_be_assembled(tmp_path):
    entry = StageEntry(name="base", folder="base", size=8)
    with pytest.raises(CheckpointError, match="lacks base"):
        assemble(tmp_path, name="x", stages=[entry], encoders={})
    assert not list(tmp_path.iterdir())


def test_models_are_found_by_name_or_folder(tmp_path):
    assert find_model(tmp_path) == tmp_path
    with pytest.raises(InputError, match="did you mean piccolo"):
        find_model("picolo")
    with pytest.raises(InputError, match="there is no model folder"):
        find_model(tmp_path / "gone")
    try:
        assert (find_model("piccolo") / "manifest.json").is_file()
    except CheckpointError as error:
        assert "not in this installation" in str(error)


def test_devices_and_precisions_go_by_their_names():
    cpu = torch.device("cpu")
    assert find_device("cpu") == cpu
    assert find_device("cpu:0").type == "cpu"
    assert find_device("auto").type in ("cpu", "cuda")
    assert find_dtype("float32", cpu) == torch.float32
    assert find_dtype("bfloat16", cpu) == torch.bfloat16
    wanted = torch.bfloat16 if has_fast_bfloat16(cpu) else torch.float32
    assert find_dtype("auto", cpu) == wanted
    assert not has_fast_bfloat16(torch.device("meta"))
    for call in (
        lambda: find_device("cudo"),
        lambda: find_device("cpu:x"),
        lambda: find_device("cpu:1"),
        lambda: find_device("cuda:999"),
        lambda: find_dtype("bfloat61", cpu),
        lambda: bottega.load("piccolo", device="cpu", dtype="half"),
    ):
        with pytest.raises(BottegaError):
            call()


def test_lanes_are_counted_from_one(tiny_folder):
    with pytest.raises(InputError, match="lanes"):
        bottega.load(tiny_folder, lanes=0)
