"""The experiments over guidance run, at a size that says nothing of experts, and tell what they found."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bottega.models import UNet

SCRIPTS = Path(__file__).resolve().parents[2] / "experiments"


def opened(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_experiment", SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def experiment(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for helper in ("guidance_curves", "unseen_errors"):
        monkeypatch.delitem(sys.modules, helper, raising=False)
    return opened("raphael")


def experts_in(network) -> tuple[set[int], set[int]]:
    blocks = UNet(network).expert_blocks
    return (
        {0 if b.space is None else b.space.config.experts for b in blocks},
        {0 if b.time is None else b.time.config.experts for b in blocks},
    )


def test_arms_differ_in_the_experts_that_their_names_say(experiment):
    assert experts_in(experiment.network_of("both")) == ({6}, {4})
    assert experts_in(experiment.network_of("edges")) == ({6}, {4})
    assert experts_in(experiment.network_of("space")) == ({6}, {0})
    assert experts_in(experiment.network_of("time")) == ({0}, {4})
    assert experts_in(experiment.network_of("8-experts")) == ({8}, {4})
    assert experts_in(experiment.network_of("dense")) == ({0}, {0})
    edges = experiment.arm_config("edges", 3, 640, "piccolo")
    both = experiment.arm_config("both", 3, 640, "piccolo")
    assert edges.task.edges is not None
    assert dataclasses.replace(edges.task, edges=None) == both.task
    assert both.train.seed == 3 and both.train.total_images == 640


def test_two_arms_are_trained_measured_and_reported(experiment, monkeypatch, tmp_path, capsys):
    def short(arm, seed, images, encoders, full=experiment.arm_config):
        config = full(arm, seed, images, encoders)
        train = dataclasses.replace(config.train, batch_size=4, microbatch=None, warmup_images=0)
        return dataclasses.replace(config, num_examples=8, train=train)

    monkeypatch.setattr(experiment, "arm_config", short)
    monkeypatch.setattr(experiment, "SCALES", (1.0,))
    command = ["raphael.py", str(tmp_path / "r"), "--experts", "1", "2", "--seeds", "5"]
    monkeypatch.setattr(sys, "argv", [*command, "--images", "8", "--prompts", "1", "--unseen", "2"])
    experiment.main()
    found = json.loads((tmp_path / "r" / "seed-5" / "study.json").read_text())
    names = [arm["name"] for arm in found["arms"]]
    assert {"1-experts @ 1", "2-experts @ 1"} <= set(names)
    errors = json.loads((tmp_path / "r" / "seed-5" / "errors.json").read_text())
    assert all(error > 0 for arm in errors["arms"].values() for error in arm["error"])
    assert [sorted(arm) for arm in errors["arms"].values()] == [
        ["error", "time"], ["error", "space", "time"],
    ]  # fmt: skip
    trained = (tmp_path / "r" / "seed-5" / "1-experts" / "export" / "manifest.json").stat().st_mtime
    experiment.main()  # nothing is trained or painted twice
    again = tmp_path / "r" / "seed-5" / "1-experts" / "export" / "manifest.json"
    assert again.stat().st_mtime == trained
    monkeypatch.setattr(sys, "argv", [*command, "--report", str(tmp_path / "page")])
    experiment.main()
    assert {p.name for p in (tmp_path / "page").iterdir()} == {
        "r.json", "r-right.png", "r-distance.png",
    }  # fmt: skip
    said = capsys.readouterr().out
    assert said.count("| 1-experts |") == 2 and "words misled" in said


def test_a_table_tells_means_and_spread_over_seeds(experiment):
    curves = sys.modules["guidance_curves"]

    def study(right: float, distance: float) -> dict[str, object]:
        arm = {"name": "both @ 1.5", "shares": {"right": {"share": right}}, "distance": distance}
        return {"arms": [arm, {"name": "real", "shares": {}, "distance": 0.0}]}

    table = curves.gathered([study(0.5, 20.0), study(0.7, 24.0)])
    assert table == {("both", 1.5): {"right": [0.5, 0.7], "distance": [20.0, 24.0]}}
    assert curves.as_markdown(table)[2] == "| both | 60.0 +- 14.1% / 22.0 +- 2.8 |"


def test_experts_over_noise_share_the_pictures_of_an_arm(experiment):
    experts = opened("experts")
    assert experts.ARMS["four"][:2] == experts.ARMS["two"]
    config = experts.root_config(2, 1280, "piccolo")
    assert config.train.seed == 2 and config.train.total_images == 1280
