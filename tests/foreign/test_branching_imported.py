"""``bottega branch`` on imported models: experts over parts of their own noise, in their own terms, paint together."""

import json

import pytest
import torch
from PIL import Image

from bottega.checkpoint.ensemble import read_ensemble
from bottega.cli.main import run
from bottega.condition import Condition
from bottega.ensemble import Mixture, Node
from bottega.pipelines import load
from bottega.pipelines.convert import import_model
from bottega.pipelines.stored import load_timestep_denoiser
from bottega.recipes.branch import plan_child

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' own


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (16, 16), colour).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {colour} dog")
    return folder


def command(capsys, *arguments):
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, words, *arguments):
    code, out, err = command(capsys, *arguments)
    assert code == 2 and out == "" and words in err, (out, err)
    assert len(err.strip().splitlines()) == 1, err


QUICK = {
    "train.total_images": 4,
    "train.batch_size": 2,
    "train.learning_rate": "1e-2",
    "train.warmup_images": 0,
    "train.checkpoint_images": 4,
    "train.ema.every_images": 2,
}


def settings(pictures):
    given = {"data.path": pictures, **QUICK}
    return [part for key, value in given.items() for part in ("--set", f"{key}={value}")]


@pytest.mark.slow
def test_children_of_an_imported_model_share_its_noise_and_paint_together(
    folders, pictures, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    import_model(folders("sd2"), tmp_path / "stable")
    code, out, err = command(
        capsys, "branch", "stable", "--node", "1/1", "-o", "upper", *settings(pictures)
    )
    assert code == 0, err
    assert "upper: 1/1, noise above" in err and "upper: 4 of 4 images seen" in out
    alone = read_ensemble("upper/export/base")
    assert {m.part: str(p) for m, p in alone.painting()} == {"0/0": "complement(1/1)", "1/1": "1/1"}
    code, _, err = command(
        capsys, "branch", "stable", "--node", "1/0", "-o", "lower", *settings(pictures)
    )
    assert code == 0, err
    ensemble = read_ensemble("stable-ensemble")
    assert ensemble.parts == ("0/0", "1/1", "1/0")
    assert ensemble.timestep_plan.prediction == "v"
    assert json.loads((tmp_path / "lower" / "config.json").read_text())["task"]["part"] == {
        "kind": "Node", "level": 1, "index": 0,
    }  # fmt: skip

    painter = load("lower/export", device="cpu", dtype="float32", residency="active")
    mixture = painter.stages[0].denoiser.open()
    assert isinstance(mixture, Mixture) and set(mixture.parts) == {"1/0", "1/1"}
    plan = ensemble.timestep_plan
    bound = plan.quantile(0.5)
    assert plan.schedule.sigma(499) < bound < plan.schedule.sigma(500)
    said = painter.encoders.condition(["a red dog"])
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    answers = {}
    for name, place in (
        ("1/0", "stable-ensemble/1-0"),
        ("1/1", "stable-ensemble/1-1"),
        ("0/0", "stable/base"),
    ):
        answers[name] = answered(load_timestep_denoiser(place)[0], said, x, bound)
    here = answered(mixture, said, x, bound)
    for place, (owner, other) in enumerate([("1/0", "1/1"), ("1/1", "1/0")]):
        torch.testing.assert_close(here[place], answers[owner][place])
        assert all((here[place] - answers[n][place]).abs().max() > 1e-2 for n in (other, "0/0"))

    made = command(
        capsys, "paint", "a red dog", "--model", "lower/export", "--region", "dog@0,0,0.5,1",
        "--steps", 4, "--residency", "active", "--device", "cpu", "-o", "dog.png",
    )  # fmt: skip
    assert made[0] == 0, made
    assert "identical" in command(capsys, "replay", "dog.png", "--model", "lower/export")[1]
    shown = command(capsys, "show", "lower/export")[1]
    assert "1000 timesteps (v" in shown and "none: its children do" in shown
    steps = command(capsys, "show", "lower/export", "--steps", 4)[1].splitlines()
    assert steps[-1] == "1/1: 2 of 4 steps, 1/0: 2 of 4 steps"
    refused(capsys, "no pipeline of diffusers can hold", "export", "lower/export", "back")
    refused(capsys, "made of expert denoisers", "branch", "lower/export", "--node", "1/0")
    grandchild = plan_child("upper", "2/3", "deeper").config
    assert grandchild.task.part == Node(2, 3) and str(grandchild.task.model) == "stable"
    assert grandchild.train.total_images == 4


def answered(denoiser, said: Condition, x, bound):
    """What a denoiser says just below and just above a bound."""
    context = denoiser.prepare(said)
    with torch.no_grad():
        return [denoiser(x, torch.tensor([bound * s]), context) for s in (0.99, 1.01)]


def test_branching_an_imported_model_refuses_what_cannot_be(
    folders, pictures, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    import_model(folders("sd"), tmp_path / "stable")
    before = sorted(path.name for path in tmp_path.iterdir())
    capsys.readouterr()  # what transformers writes while a folder is made
    refused(capsys, "none of the timesteps lies in 12/0", "branch", "stable", "--node", "12/0")
    refused(capsys, "is not below", "branch", "stable", "--node", "0/0")
    refused(capsys, "task.model cannot be set", "branch", "stable", "--node", "1/0",
            "--set", "task.model=other")  # fmt: skip
    refused(capsys, "size cannot be set", "branch", "stable", "--node", "1/0", "--set", "size=32")
    refused(capsys, "is not a run", "branch", folders("sd"), "--node", "1/0")
    refused(capsys, "was not imported", "branch", piccolo(), "--node", "1/0")
    code, out, _ = command(capsys, "branch", "stable", "--node", "1/0", "--dry-run")
    planned = json.loads(out)
    assert code == 0 and planned["task"]["kind"] == "ImportedTask" and planned["size"] == 16
    assert planned["train"]["ema"]["head_start_images"] == planned["train"]["total_images"]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def piccolo():
    from bottega.pipelines import find_model

    return find_model("piccolo")
