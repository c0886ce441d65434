"""Models are imported and exported without losing a bit, and what cannot be read is refused in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bottega.cli.main import run
from bottega.pipelines import load
from bottega.pipelines.convert import export_model, import_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' own

PROMPT = "a red dog on the left"


def tensors_of(folder):
    """Every tensor under a folder, by file and name."""
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(first, second):
    return first.keys() == second.keys() and all(
        a.dtype == second[name].dtype and torch.equal(a, second[name]) for name, a in first.items()
    )


@pytest.mark.parametrize("family", ["sd", "sd2", "sdxl", "refiner", "if1"])
def test_export_after_import_is_tensor_for_tensor_equal(folders, tmp_path, family, parity):
    import_model(folders(family), tmp_path / "model")
    (exported,) = export_model(tmp_path / "model", tmp_path / "again")
    before, after = tensors_of(folders(family)), tensors_of(exported)
    assert same(before, after)
    weights = [torch.cat([t.flatten() for t in held.values()]) for held in (after, before)]
    parity(f"{family}: every tensor after import and export", *weights, 1e-9)
    configs = [
        json.loads((folder / "unet" / "config.json").read_text())
        for folder in (folders(family), exported)
    ]
    assert configs[0] == configs[1]


def test_a_cascade_is_exported_as_one_folder_per_stage(folders, tmp_path):
    import_model(folders("if1"), tmp_path / "model", then=[folders("if2")])
    base, sr = export_model(tmp_path / "model", tmp_path / "again")
    assert same(tensors_of(folders("if1")), tensors_of(base))
    assert same(tensors_of(folders("if2")), tensors_of(sr))
    from diffusers import DiffusionPipeline

    assert type(DiffusionPipeline.from_pretrained(base)).__name__ == "IFPipeline"
    assert type(DiffusionPipeline.from_pretrained(sr)).__name__ == "IFSuperResolutionPipeline"


def test_diffusers_paints_the_same_with_what_we_export(folders, tmp_path):
    from diffusers import StableDiffusionPipeline

    import_model(folders("sd"), tmp_path / "model")
    (exported,) = export_model(tmp_path / "model", tmp_path / "again")
    pictures = []
    for folder in (folders("sd"), exported):
        pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        pictures.append(
            pipeline(
                PROMPT,
                height=16,
                width=16,
                num_inference_steps=3,
                generator=generator,
                output_type="np",
            ).images
        )
    assert np.array_equal(*pictures)


@pytest.mark.parametrize("family", ["sd", "sdxl", "if1"])
def test_an_imported_model_paints_what_its_folder_paints_and_replays(folders, tmp_path, family):
    from bottega.pipelines import paint_again, save_picture

    direct = load(folders(family), device="cpu", dtype="float32")
    import_model(folders(family), tmp_path / "model")
    imported = load(tmp_path / "model", device="cpu", dtype="float32")
    assert imported.settings == direct.settings
    (ours,) = imported.paint(PROMPT, steps=2, seeds=7)
    (theirs,) = direct.paint(PROMPT, steps=2, seeds=7)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    for picture, model in ((ours, tmp_path / "model"), (theirs, folders(family))):
        save_picture(picture, tmp_path / "picture.png")
        assert paint_again(tmp_path / "picture.png", model=model).same_bytes


def test_only_the_active_part_stays_and_the_picture_is_the_same(folders, tmp_path):
    import_model(folders("if1"), tmp_path / "if", then=[folders("if2")])
    everything = load(tmp_path / "if", device="cpu", dtype="float32")
    active = load(tmp_path / "if", device="cpu", dtype="float32", residency="active")
    parts = active.stages[0].denoiser._part._residency
    most = []
    picture = active.paint(
        [PROMPT, "a car"], steps=2, on_step=lambda _: most.append(parts.resident)
    )
    assert set(most) == {1}
    expected = everything.paint([PROMPT, "a car"], steps=2)
    assert [np.asarray(p).tobytes() for p in picture] == [np.asarray(p).tobytes() for p in expected]
    assert everything.stages[0].denoiser._part._residency.resident == 3


def test_a_model_of_the_hub_is_taken_from_its_cache(folders, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--someone--tiny-sd" / "snapshots" / "0123abc"
    shutil.copytree(folders("sd"), snapshot)
    refs = tmp_path / "models--someone--tiny-sd" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0123abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    painter = load("someone/tiny-sd", device="cpu", dtype="float32", local_files_only=True)
    assert painter.name == "someone/tiny-sd"
    (picture,) = painter.paint(PROMPT, steps=2)
    assert picture.size == (16, 16)


def command(capsys, *arguments):
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, words, *arguments):
    """One line on stderr, exit code 2, and nothing left behind."""
    code, out, err = command(capsys, *arguments)
    assert code == 2, (out, err)
    assert out == "" and len(err.strip().splitlines()) == 1, err
    assert words in err


@pytest.fixture
def broken(folders, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(folders("sd"), tmp_path / "broken"))


def test_commands_import_paint_and_export(folders, tmp_path, capsys):
    model, picture = tmp_path / "model", tmp_path / "a.png"
    code, out, _ = command(capsys, "import", folders("if1"), model, "--then", folders("if2"))
    assert code == 0 and "base 16 px, sr 32 px" in out
    code, *_ = command(
        capsys, "paint", PROMPT, "--model", model, "-o", picture, "--steps", 2,
        "--residency", "active", "--device", "cpu",
    )  # fmt: skip
    assert code == 0 and picture.is_file()
    assert command(capsys, "replay", picture, "--model", model)[0] == 0
    code, out, _ = command(capsys, "export", model, tmp_path / "again")
    assert code == 0 and out.split() == [str(tmp_path / "again" / n) for n in ("base", "sr")]


def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    refused(capsys, "it holds neither", "paint", "x", "--model", tmp_path / "empty")
    refused(capsys, "it holds no model_index.json", "import", tmp_path / "empty", tmp_path / "to")
    refused(capsys, "no such model in the Hub's cache", "import", "some/one", tmp_path / "to",
            "--local-files-only")  # fmt: skip
    assert not (tmp_path / "to").exists()


def test_pipelines_and_parts_of_other_classes_are_refused_by_name(broken, tmp_path, capsys):
    index = broken / "model_index.json"
    facts = json.loads(index.read_text())
    for change, words in (
        ({"_class_name": "FluxPipeline"}, "supported are IFPipeline"),
        ({"vae": ["diffusers", "AutoencoderTiny"]}, "vae is a AutoencoderTiny"),
        ({"unet": ["diffusers", "UNet2DModel"]}, "supported is UNet2DConditionModel"),
        ({"text_encoder": [None, None]}, "has no text encoder"),
        ({"text_encoder": ["transformers", "GPT2Model"]}, "GPT2Model, which is not supported"),
    ):
        index.write_text(json.dumps({**facts, **change}))
        refused(capsys, words, "paint", "x", "--model", broken)
    index.write_text(json.dumps(facts))
    scheduler = broken / "scheduler" / "scheduler_config.json"
    settings = json.loads(scheduler.read_text())
    scheduler.write_text(json.dumps({**settings, "variance_type": "learned_range"}))
    refused(capsys, "unet gives none", "paint", "x", "--model", broken)
    index.write_text("[]")
    refused(capsys, "expected an object", "import", broken, tmp_path / "to")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_damaged_disguised_and_contradicting_weights_are_refused_and_not_run(
    broken, tmp_path, capsys, part
):
    (path,) = (broken / part).glob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    refused(capsys, "cut off", "import", broken, tmp_path / "to")
    refused(capsys, "cut off", "paint", "x", "--model", broken, "-o", tmp_path / "x.png")
    marker = tmp_path / "ran"
    torch.save({"x": Bomb(str(marker))}, path)
    refused(capsys, "is a pickle", "import", broken, tmp_path / "to")
    refused(capsys, "is a pickle", "paint", "x", "--model", broken, "-o", tmp_path / "x.png")
    refused(capsys, "is a pickle", "show", broken)
    assert not marker.exists()
    path.write_bytes(whole)
    tensors = load_file(path)
    name = next(n for n, t in tensors.items() if t.ndim > 1)
    save_file({**tensors, name: torch.zeros(3, 3)}, path, metadata={"format": "pt"})
    refused(capsys, name.split(".")[0], "paint", "x", "--model", broken, "--device", "cpu")
    assert not (tmp_path / "to").exists() and not (tmp_path / "x.png").exists()


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("unet", {"layers_per_block": 2}, "missing"),
        ("unet", {"block_out_channels": [32, 96]}, "instead of"),
        ("unet", {"cross_attention_dim": 48}, "instead of"),
        ("vae", {"latent_channels": 8}, "what it paints has 8"),
        ("vae", {"block_out_channels": [32, 64, 64]}, ""),
        ("text_encoder", {"intermediate_size": 41}, ""),
        ("text_encoder", {"num_hidden_layers": 3}, ""),
    ],
)
def test_a_configuration_that_contradicts_its_tensors_is_one_line(
    broken, tmp_path, capsys, part, change, words
):
    path = broken / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    picture = tmp_path / "x.png"
    refused(capsys, words, "paint", "x", "--model", broken, "-o", picture, "--steps", 1)
    refused(capsys, str(broken), "import", broken, tmp_path / "to")
    assert not picture.exists() and not (tmp_path / "to").exists()


def test_words_that_cannot_be_read_are_refused_before_anything_is_written(broken, tmp_path, capsys):
    (broken / "tokenizer" / "tokenizer.json").write_text("{")
    refused(capsys, str(broken / "tokenizer"), "import", broken, tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir() if "to" in path.name] == []


def test_the_target_of_an_import_must_not_be_there(folders, tmp_path, capsys):
    refused(capsys, "is there already", "import", folders("sd"), tmp_path)
    refused(capsys, "there is no folder", "import", folders("sd"), tmp_path / "a" / "b")
    refused(capsys, "enlarges pictures", "import", folders("if2"), tmp_path / "to")
    refused(capsys, "enlarges nothing", "import", folders("if1"), tmp_path / "to",
            "--then", folders("sd"))  # fmt: skip
    refused(capsys, "they make no cascade", "import", folders("sd"), tmp_path / "to",
            "--then", folders("if2"))  # fmt: skip
    refused(capsys, "trained with timesteps", "probe", "intervals", "--model", folders("sd"))
    refused(capsys, "import both", "paint", "x", "--model", folders("if2"))
    assert [p.name for p in tmp_path.iterdir() if p.is_file() or p.name == "to"] == []


def test_only_imported_models_are_exported(tmp_path, capsys, folders):
    refused(capsys, "is not a model", "export", folders("sd"), tmp_path / "to")
    refused(capsys, "residency 'some' is not known", "paint", "x", "--model", folders("sd"),
            "--residency", "some")  # fmt: skip
