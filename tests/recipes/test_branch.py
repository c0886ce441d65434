"""A child begins as its parent's average, learns its own noise only, and belongs to that parent."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_runs import toy_base

from bottega.checkpoint import load_tensors
from bottega.checkpoint.ensemble import read_ensemble
from bottega.config import dumps, from_json
from bottega.diffusion import LogNormal
from bottega.ensemble import Node, sigma_bounds
from bottega.errors import CheckpointError, ConfigError, InputError
from bottega.journal import Journal
from bottega.pipelines import open_picture
from bottega.recipes import RunConfig, recipe, train
from bottega.recipes.branch import begin_child, child_config, denoiser_task, plan_child, read_config
from bottega.recipes.compare import compared
from bottega.recipes.run import Branch
from bottega.rundir import RunDir
from bottega.training import Hook, TrainConfig
from bottega.training.export import averaged_weights, find_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:the text .* is too long")  # for toy encoders


class Sigmas(Hook):
    """Remembers every noise level that was trained on."""

    def __init__(self) -> None:
        super().__init__(every_images=1000)
        self.seen: list[float] = []

    def observe(self, state, report) -> None:
        self.seen += report.sigma.tolist()


@pytest.fixture(scope="module")
def root(tiny_folder, tmp_path_factory) -> Path:
    """A finished run at the root of a tree, to be read only."""
    run = tmp_path_factory.mktemp("runs") / "base"
    train(toy_base(tiny_folder), run)
    return run


def child_of(root: Path, tmp_path: Path, part: str = "3/7", images: int = 16, **options):
    settings = {"train.total_images": str(images), **options.pop("settings", {})}
    home = options.pop("ensemble", tmp_path / "ensemble")
    return begin_child(root, part, tmp_path / "child", ensemble=home, settings=settings, **options)


def test_a_child_starts_as_its_parents_average_in_full_precision(root, tmp_path):
    child = child_of(root, tmp_path)
    parent = averaged_weights(find_checkpoint(RunDir(root)), 0.1)
    start = load_tensors(child.run / "start")
    assert start.keys() == parent.keys()
    for name, tensor in start.items():
        assert torch.equal(tensor, parent[name]) and tensor.dtype == torch.float32


def test_a_child_learns_only_its_part_and_is_filed_with_its_parents_digest(root, tmp_path):
    child = child_of(root, tmp_path, images=32)
    sigmas = Sigmas()
    state = train(child.config, child.run, hooks=[sigmas])
    noise = child.config.task.noise
    assert len(sigmas.seen) == 32 and min(sigmas.seen) >= noise.quantile(7 / 8)
    assert state.config.ema.head_start_images == 16  # what the parent had seen
    ensemble = read_ensemble(child.ensemble)
    parent, filed = ensemble.member("0/0"), ensemble.member("3/7")
    assert filed.parent == parent.digest and filed.parent_part == "0/0"
    assert ensemble.path_images("3/7") == 16 + 32
    assert {m.part: str(part) for m, part in ensemble.painting()} == {
        "0/0": "complement(3/7)",
        "3/7": "3/7",
    }


def test_a_child_that_learns_nothing_draws_with_its_parent_and_paints_as_it_did(root, tmp_path):
    child = child_of(root, tmp_path, settings={"train.learning_rate": "1e-30"})
    train(child.config, child.run)
    verdicts = [r for r in Journal(child.run / "journal.jsonl").read() if r["event"] == "compare"]
    assert [v["images_seen"] for v in verdicts] == [8, 16]
    assert verdicts[0]["part"] == "3/7" and verdicts[0]["loss"] > 0
    assert verdicts[0]["loss"] == pytest.approx(verdicts[0]["parent_loss"], rel=1e-6)
    assert abs(verdicts[0]["difference"]) < 1e-6 * verdicts[0]["loss"]
    sheets = [sorted((run / "previews").glob("*.png"))[-1] for run in (root, child.run)]
    before, now = (np.asarray(open_picture(sheet), np.int16) for sheet in sheets)
    assert before.std() > 10  # there is something to see
    assert np.abs(before - now).mean() < 0.5  # the whole ensemble paints; it is filed in bfloat16


def test_comparing_leaves_the_training_as_it_was(root, tmp_path, monkeypatch):
    digests = set()
    for name in ("seldom", "often"):
        child = child_of(root, tmp_path / name, images=32)
        monkeypatch.setattr("bottega.recipes.compare._TIMES", 1 if name == "seldom" else 4)
        digests.add(train(child.config, child.run).digest())
    assert len(digests) == 1


def test_differences_are_paired():
    child, parent = torch.tensor([1.0, 5.0, 9.0]), torch.tensor([2.0, 6.0, 10.0])
    verdict = compared(child, parent)
    assert verdict["difference"] == -1 and verdict["standard_error"] == 0
    assert compared(child, parent.flip(0))["standard_error"] == pytest.approx(8 / math.sqrt(3))


def test_a_grandchild_goes_on_from_the_child_in_the_same_ensemble(root, tmp_path):
    child = child_of(root, tmp_path, "1/1", images=8)
    train(child.config, child.run)
    grandchild = begin_child(child.run, Node(2, 3), settings={"train.total_images": "8"})
    assert grandchild.run.name == "child-2-3" and grandchild.ensemble == child.ensemble
    assert grandchild.config.name == "piccolo-base@2/3"
    assert grandchild.config.train.ema.head_start_images == 8
    train(grandchild.config, grandchild.run)
    ensemble = read_ensemble(child.ensemble)
    assert ensemble.member("2/3").parent == ensemble.member("1/1").digest
    assert ensemble.path_images("2/3") == 16 + 8 + 8
    with pytest.raises(InputError, match="2/0 is not below 1/1"):
        begin_child(child.run, "2/0")


def test_a_killed_child_goes_on_to_the_same_bits(root, tmp_path):
    class Crash(Hook):
        def observe(self, state, report) -> None:
            if report.images_seen == 16:
                raise RuntimeError("the power is gone")

    digests = []
    for name, hooks in (("whole", []), ("killed", [Crash(every_images=1000)])):
        child = child_of(root, tmp_path / name, images=24)
        if hooks:
            with pytest.raises(RuntimeError, match="power"):
                train(child.config, child.run, hooks=hooks)
        state = train(read_config(child.run), child.run, resume=bool(hooks))
        digests.append((state.digest(), read_ensemble(child.ensemble).member("3/7").digest))
    assert digests[0] == digests[1]


def test_a_child_of_a_parent_with_another_digest_is_refused(root, tmp_path):
    child = child_of(root, tmp_path)
    path = child.ensemble / "ensemble.json"
    path.write_text(path.read_text().replace(child.config.branch.parent, "f" * 64))
    with pytest.raises(CheckpointError, match="branch again from the one that is there"):
        train(child.config, child.run)
    other = replace(child.config, branch=replace(child.config.branch, parent="e" * 64))
    with pytest.raises(CheckpointError, match="is not what the run says it grew from"):
        train(other, child.run)
    assert not (child.run / "checkpoints").exists()


def test_what_cannot_be_a_child_is_refused_before_anything_is_written(root, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for part, words in (
        ("9/512", "level 9 has the nodes 0 to 511"),
        ("9", "a part of the noise is written 9/511"),
        ("0/0", "0/0 is not below 0/0"),
    ):
        with pytest.raises((ConfigError, InputError), match=words):
            child_of(root, tmp_path, part)
    for settings, words in (
        ({"train.bacth_size": "4"}, "did you mean batch_size"),
        ({"task.noise.mean": "0.5"}, "task.noise cannot be set for a child"),
        ({"size": "16"}, "size cannot be set for a child"),
        ({"train.total_images": "many"}, "train.total_images expects int"),
    ):
        with pytest.raises(ConfigError, match=words):
            child_of(root, tmp_path, settings=settings)
    with pytest.raises(InputError, match=r"is not a run: it holds no config\.json"):
        begin_child(tmp_path, "9/511")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_holds_a_run_already_is_left_alone(root, tmp_path):
    child = child_of(root, tmp_path)
    before = (child.run / "config.json").read_text()
    with pytest.raises(ConfigError, match="already holds a run: go on with"):
        child_of(root, tmp_path, "1/0")
    assert (child.run / "config.json").read_text() == before


def test_a_childs_length_is_a_tenth_of_the_roots_or_its_parents_own():
    parent = recipe("piccolo-base")
    length = TrainConfig(total_images=1_500_000, batch_size=64, warmup_images=10_000)
    parent = replace(parent, train=length)
    child = child_config(parent, Node(1, 1), {}, seen=1_500_000)
    assert child.train.total_images == 149_952  # whole batches of 64
    assert child.train.warmup_images == round(10_000 * 149_952 / 1_500_000)
    assert child.train.ema.head_start_images == 149_952
    assert from_json(RunConfig, json.loads(dumps(child))) == child
    assert child.train.ema.every_images == parent.train.ema.every_images
    short = child_config(parent, Node(1, 1), {"train.total_images": "1280"}, seen=1_500_000)
    assert short.train.ema.every_images == 64  # averages move in a short run too
    sibling = child_config(parent, Node(1, 0), {}, seen=1_500_000)
    assert len({parent.train.seed, child.train.seed, sibling.train.seed}) == 3
    branch = Branch(ensemble="e", parent_part="0/0", parent="f" * 64)
    grandchild = child_config(replace(child, branch=branch), Node(2, 3), {}, seen=1_649_952)
    assert grandchild.train.total_images == 149_952 and grandchild.branch is None
    assert child_config(parent, Node(1, 1), {}, seen=64).train.ema.head_start_images == 64


def test_only_denoisers_branch(tmp_path):
    RunDir(tmp_path / "judge").write_text("config.json", dumps(recipe("piccolo-judge")))
    with pytest.raises(InputError, match="trains no denoiser"):
        plan_child(tmp_path / "judge", "1/0")
    (tmp_path / "judge" / "config.json").write_text("[")
    with pytest.raises(ConfigError, match="is damaged"):
        plan_child(tmp_path / "judge", "1/0")


def test_emphasis_changes_where_in_a_part_noise_is_drawn_and_not_the_part():
    task = replace(
        denoiser_task(recipe("piccolo-base")),
        part=Node(1, 1),
        emphasis=LogNormal(mean=1.6, std=1.0),
    )
    plain = replace(task, emphasis=None)
    ((low, _),) = sigma_bounds(task.part, task.noise)
    drawn, usual = (
        t.drawn_noise.sample(4096, torch.Generator().manual_seed(0), intervals=t.intervals)
        for t in (task, plain)
    )
    assert min(drawn.min(), usual.min()) >= low * (1 - 1e-6)
    assert drawn.median() > 3 * usual.median()
    # Above its bound, the emphasis alone decides: half of what it draws lies above the middle of what is left of it.
    middle = task.emphasis.quantile((task.intervals[0][0] + 1) / 2)
    assert float((drawn > middle).float().mean()) == pytest.approx(0.5, abs=0.01)
