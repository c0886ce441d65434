"""Gathering runs into a model replaces models only, and leaves nothing behind when it is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from toy_runs import toy_base

from bottega import load
from bottega.cli.main import run as run_command
from bottega.ensemble import Mixture
from bottega.errors import CheckpointError, InputError
from bottega.pipelines import find_model, read_manifest
from bottega.recipes import begin_child, train
from bottega.recipes.ship import ship_runs
from bottega.recipes.srgan import find_judge
from bottega.recipes.train import load_encoders

RUNS = ("piccolo-t5", "piccolo-clip", "piccolo-base", "piccolo-sr", "piccolo-judge")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Finished runs whose exports hold nothing of use."""
    for name in RUNS:
        (tmp_path / "runs" / name / "export").mkdir(parents=True)
        (tmp_path / "runs" / name / "export" / "note.txt").write_text(name)
    return tmp_path / "runs"


def refused(capsys, runs: Path, target: Path, words: str) -> None:
    before = sorted(target.parent.rglob("*"))
    code = run_command(["assemble", str(runs), "-o", str(target)])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert words in said.err and said.err.count("\n") == 1
    assert sorted(target.parent.rglob("*")) == before


def test_runs_that_are_not_there_are_named(capsys, tmp_path: Path):
    refused(capsys, tmp_path / "gone", tmp_path / "model", "lacks finished runs of piccolo-t5")
    (tmp_path / "piccolo-t5").write_text("no folder")
    refused(capsys, tmp_path, tmp_path / "model", "lacks finished runs of piccolo-t5")


def test_a_folder_of_other_things_is_left_alone(capsys, runs: Path, tmp_path: Path):
    mine = tmp_path / "mine" / "base" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    refused(capsys, runs, tmp_path / "mine", "is no model, but holds base")
    assert mine.read_text() == "years of work"
    refused(capsys, runs, mine, "it is a file")


def test_what_does_not_fit_leaves_the_old_model_in_place(capsys, runs: Path, tmp_path: Path):
    refused(capsys, runs, tmp_path / "new", "is not a checkpoint")
    old = tmp_path / "old"
    (old / "base").mkdir(parents=True)
    stage = {"name": "base", "folder": "base", "size": 32}
    manifest = {"kind": "cascade", "name": "old", "stages": [stage], "encoders": {}}
    (old / "manifest.json").write_text(json.dumps(manifest))
    refused(capsys, runs, old, "is not a checkpoint")
    (old / "manifest.json").write_text("{")
    refused(capsys, runs, old, "is damaged")


def test_a_place_that_cannot_be_written_is_one_line(capsys, runs: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    refused(capsys, runs, tmp_path / "file" / "model", "cannot write the model")


def test_names_and_judges_are_for_programmes(capsys, runs: Path, tmp_path: Path):
    code = run_command(["assemble", str(runs), "-o", str(tmp_path / "m"), "--name", "x"])
    assert code == 2 and "holds no plan.json" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:the text .* is too long")  # for toy encoders
def test_a_branch_is_shipped_as_the_ensemble_it_belongs_to_and_never_alone(
    tiny_folder, tmp_path: Path
):
    train(toy_base(tiny_folder), tmp_path / "base")
    settings = {"train.total_images": "8"}
    child = begin_child(tmp_path / "base", "1/0", tmp_path / "child", settings=settings)
    train(child.config, child.run)
    for run in (tmp_path / "child", tmp_path / "base"):
        ship_runs([run], tmp_path / run.name / "model", name="two")
        (stage,) = load(tmp_path / run.name / "model").stages
        assert isinstance(stage.denoiser, Mixture)
        assert {str(expert.part) for expert in stage.denoiser.experts} == {"1/0", "complement(1/0)"}
    shutil.rmtree(child.ensemble)
    with pytest.raises(CheckpointError, match="paints only in its ensemble"):
        ship_runs([tmp_path / "child"], tmp_path / "alone")
    assert not (tmp_path / "alone").exists()


@pytest.fixture
def heard_piccolo(tmp_path: Path) -> Path:
    """A finished run of a toy that hears piccolo's encoders."""
    toy = toy_base(find_model("piccolo"))
    streams = tuple(
        dataclasses.replace(s, width=256, pool=s.pool and dataclasses.replace(s.pool, width=256))
        for s in toy.task.network.streams
    )
    network = dataclasses.replace(toy.task.network, streams=streams)
    toy = dataclasses.replace(toy, task=dataclasses.replace(toy.task, network=network))
    train(toy, tmp_path / "run")
    return tmp_path / "run"


def test_a_model_that_borrows_paints_the_same_and_holds_no_encoders(
    capsys, heard_piccolo: Path, tmp_path: Path
):
    whole, light = tmp_path / "whole", tmp_path / "light"
    ship_runs([heard_piccolo], whole)
    command = ["assemble", str(heard_piccolo), "-o", str(light), "--borrow", "piccolo"]
    assert run_command(command) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.endswith(" is piccolo's")] == [
        "t5 is piccolo's",
        "clip is piccolo's",
        "judge is piccolo's",
    ]
    assert {path.name for path in light.iterdir()} == {"manifest.json", "base"}
    pictures = [load(model).paint("a dog", seeds=1, steps=2)[0] for model in (whole, light)]
    assert pictures[0].tobytes() == pictures[1].tobytes()
    assert read_manifest(whole).digest == read_manifest(light).digest  # the same bytes paint
    assert find_judge(str(light)).digest == find_judge("piccolo").digest
    assert load_encoders(str(light)).names == load_encoders("piccolo").names
    ship_runs([heard_piccolo], whole, borrow="piccolo")  # what was copied before is taken away
    assert not (whole / "t5").exists() and load(whole).name == read_manifest(light).name


def test_what_cannot_be_borrowed_is_refused_in_one_line(
    capsys, heard_piccolo: Path, tiny_folder, tmp_path: Path
):
    model = tmp_path / "model"
    for lender, words in {"picolo": "did you mean", "piccolo": "nothing can be borrowed"}.items():
        if lender == "piccolo":
            train(toy_base(tiny_folder), tmp_path / "other")
        run = heard_piccolo if lender == "picolo" else tmp_path / "other"
        with pytest.raises(InputError, match=words):
            ship_runs([run], model, borrow=lender)
        assert not model.exists()
    ship_runs([heard_piccolo], model, borrow="piccolo")
    facts = json.loads((model / "manifest.json").read_text())
    facts["files"]["t5/config.json"] = 64 * "0"
    (model / "manifest.json").write_text(json.dumps(facts))
    capsys.readouterr()
    assert (
        run_command(["paint", "a dog", "--model", str(model), "-o", str(tmp_path / "x.png")]) == 2
    )
    assert "is damaged" in capsys.readouterr().err
    facts["borrowed"]["t5"] = "../../secret"
    (model / "manifest.json").write_text(json.dumps(facts))
    assert (
        run_command(["paint", "a dog", "--model", str(model), "-o", str(tmp_path / "x.png")]) == 2
    )
    assert "borrowed from '../../secret'" in capsys.readouterr().err
