"""LoRA and ControlNet beside a model that another library made, in its own terms and in its own latents."""

import numpy as np
import pytest
from PIL import Image

from bottega.cli.main import run
from bottega.pipelines import Guide, load, read_manifest
from bottega.pipelines.convert import import_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # diffusers' own
    pytest.mark.slow,
]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("a-red_dog", "red"), ("a-blue_dog", "blue")):
        picture = Image.new("RGB", (16, 16), colour)
        picture.paste("white", (4, 4, 12, 12))
        picture.save(folder / f"{name}.png")
    return folder


def trained(recipe: str, folder, model, pictures, size: int = 16) -> None:
    settings = {
        "data": f'{{"kind": "FolderConfig", "path": "{pictures}", "caption": "{{name}}"}}',
        "task.model": model,
        "size": size,
        "train.total_images": 8,
        "train.batch_size": 4,
        "train.learning_rate": "1e-2",
        "train.warmup_images": 0,
        "train.checkpoint_images": 8,
        "train.ema.every_images": 4,
        "train.precision": "fp32",
    }
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert run(["train", recipe, "--run", str(folder), *arguments]) == 0


def painted(model, **beside) -> Image.Image:
    guides = beside.pop("controls", ())
    painter = load(model, device="cpu", dtype="float32", **beside)
    return painter.paint("a red dog", steps=2, controls=guides)[0]


@pytest.mark.parametrize("residency", ["all", "active"])
def test_a_lora_beside_an_imported_model_is_trained_and_painted_with(
    folders, pictures, tmp_path, residency
):
    model = tmp_path / "model"
    import_model(folders("sd"), model)
    trained("lora", tmp_path / "style", model, pictures)
    lora = tmp_path / "style" / "export"
    plain = painted(model, residency=residency)
    silent = painted(model, loras=[(lora, 0.0)], residency=residency)
    mixed = painted(model, loras=[(lora, 5.0)], residency=residency)
    assert np.array_equal(np.asarray(silent), np.asarray(plain))
    assert not np.array_equal(np.asarray(mixed), np.asarray(plain))
    same = painted(model, loras=[(lora, 5.0)], residency="all")
    assert np.array_equal(np.asarray(mixed), np.asarray(same))


def test_a_controlnet_beside_a_network_of_latents_reads_pictures_of_full_size(
    folders, pictures, tmp_path
):
    model = tmp_path / "model"
    import_model(folders("sd"), model)
    trained("controlnet", tmp_path / "edges", model, pictures)
    net = tmp_path / "edges" / "export"
    edges = Image.new("L", (16, 16))
    edges.paste(255, (4, 4, 12, 5))
    plain = painted(model)
    same = painted(model, controlnets=[net], controls=[Guide(edges, 0.0)])
    steered = painted(model, controlnets=[net], controls=[Guide(edges, 5.0)])
    assert np.array_equal(np.asarray(same), np.asarray(plain))
    assert not np.array_equal(np.asarray(steered), np.asarray(plain))


def test_a_network_that_learned_its_variance_is_trained_beside_and_shown(
    folders, pictures, tmp_path
):
    model = tmp_path / "if"
    import_model(folders("if1"), model)
    size = read_manifest(model).stages[0].size
    trained("lora", tmp_path / "style", model, pictures, size)
    assert list((tmp_path / "style" / "previews").glob("*.png"))
    assert (tmp_path / "style" / "export" / "adapter_model.safetensors").exists()


def test_a_stage_that_enlarges_at_timesteps_is_refused(folders, tmp_path, capsys):
    import_model(folders("if1"), tmp_path / "if", then=[folders("if2")])
    manifest = read_manifest(tmp_path / "if")
    last = manifest.stages[-1]
    code = run(
        ["train", "controlnet", "--run", str(tmp_path / "run"), "--set", f"size={last.size}",
         "--set", f"task.model={tmp_path / 'if'}", "--set", f"task.stage={last.name}"]
    )  # fmt: skip
    assert code == 2
    assert "enlarges pictures at timesteps" in capsys.readouterr().err
