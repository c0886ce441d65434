"""An imported model is given experts, paints as before, and is trained on by the recipe finetune."""

import json

import numpy as np
import pytest
from PIL import Image

from bottega.cli.main import run
from bottega.pipelines import load

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # diffusers' own
    pytest.mark.filterwarnings("ignore::bottega.models.moe_load.CollapseWarning"),
]

SETTINGS = {
    "data.path": "pictures",
    "task.model": "experts",
    "size": 16,
    "train.total_images": 8,
    "train.batch_size": 4,
    "train.warmup_images": 0,
    "train.checkpoint_images": 8,
}


def command(capsys, *arguments, code=0):
    """What was said; of a refusal the one line."""
    assert run([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def test_an_imported_model_with_experts_paints_as_before_and_learns(
    folders, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    said = command(capsys, "upcycle", folders("sd"), "-o", "experts", code=2)
    assert f"bottega import {folders('sd')} MODEL" in said
    said = command(capsys, "upcycle", folders("sd") / "unet", "-o", "experts", code=2)
    assert f"bottega import {folders('sd')} MODEL" in said
    command(capsys, "import", folders("sd"), "dense")
    said = command(capsys, "upcycle", "dense", "-o", "experts", "--space", 3, "--time", 2)
    assert "finetune --set task.model=experts" in said
    assert "3 space experts" in command(capsys, "show", "experts")
    (before,) = load("dense", device="cpu", dtype="float32").paint("a dog", steps=3)
    (after,) = load("experts", device="cpu", dtype="float32").paint("a dog", steps=3)
    difference = np.asarray(before).astype(int) - np.asarray(after)
    assert np.abs(difference).max() <= 1
    arguments = ["paint", "a dog", "--steps", 3, "--device", "cpu", "--dtype", "float32"]
    arguments += ["--model", "experts", "--residency", "active", "-o", "active.png"]
    assert run([str(argument) for argument in arguments]) == 0
    assert "stayed on disk" in capsys.readouterr().err
    with Image.open("active.png") as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(after))
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (16, 16), "red").save("pictures/a.png")
    (tmp_path / "pictures" / "a.txt").write_text("a red dog")
    extra = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    command(capsys, "train", "finetune", "--run", "run", *extra)
    journal = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in journal]
    loads = [record for record in records if record["event"] == "experts"]
    assert loads[0]["images_seen"] == 4  # from the first step
    assert len(loads[0]["space"]["load"][0]) == 3 and len(loads[0]["time"]["load"][0]) == 2
    assert [record for record in records if "space_balance" in record.get("metrics", {})]
    load("run/export", device="cpu", dtype="float32").paint("a dog", steps=1)
    said = command(capsys, "export", "run/export", "again", code=2)
    assert "experts" in said
    assert not (tmp_path / "again").exists()
    said = command(capsys, "upcycle", "run", "-o", "more", code=2)
    assert "this network has experts already" in said


def test_routes_of_a_network_that_is_told_numbers_and_has_no_null_token(
    folders, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    command(capsys, "import", folders("sdxl"), "dense")
    command(capsys, "upcycle", "dense", "-o", "experts", "--space", 3, "--time", 0)
    arguments = ["--model", "experts", "--device", "cpu"]
    said = command(capsys, "routes", "a red dog", *arguments, "--steps", 2, "-o", "routes.json")
    assert "clip_text  dog" in said and "noise takes" not in said
    facts = json.loads((tmp_path / "routes.json").read_text())
    assert {token["stream"] for token in facts["tokens"]} == {"clip_text"}
    few = ["--words", "nouns", "--nouns", 3, "--sentences", 5, "--rounds", 1]
    assert "3 nouns, 15 sentences" in command(capsys, "probe", "paths", *arguments, *few)
    found = command(capsys, "probe", "experts", *arguments, "--pictures", 2, "--sigmas", "1")
    assert "words to other experts in all blocks" in found and "noise to" not in found
