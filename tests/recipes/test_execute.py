"""A programme stopped anywhere goes on to the same weights, one node at a time if need be."""

from pathlib import Path

import pytest
from toy_runs import toy_base, toy_sr

from bottega.checkpoint.ensemble import read_ensemble
from bottega.errors import CheckpointError, ConfigError, InputError
from bottega.recipes import train
from bottega.recipes.execute import execute, is_filed
from bottega.recipes.programme import PlannedNode, PlannedStage, Programme, plan_stage
from bottega.recipes.ship import ship_programme
from bottega.training import Hook
from bottega.training.limits import StopHook

pytestmark = pytest.mark.filterwarnings("ignore:the text .* is too long")  # for toy encoders


@pytest.fixture(scope="module")
def root(tiny_folder, tmp_path_factory) -> Path:
    """A finished run at the root of a tree, to be read only."""
    run = tmp_path_factory.mktemp("runs") / "base"
    train(toy_base(tiny_folder, 8), run)
    return run


def halves(tiny_folder, root: Path, images: int = 16) -> Programme:
    """The root that is there, and a half and a quarter below it."""
    stage = PlannedStage(
        name="base",
        run=toy_base(tiny_folder, 8),
        nodes=(
            PlannedNode(part="1/1", parent="0/0", images=images),
            PlannedNode(part="2/3", parent="1/1", images=8),
        ),
        root_run=str(root),
    )
    return Programme(name="toy", shape="custom", stages=(stage,))


class Crash(Hook):
    """The power goes out in the second step of a node."""

    def __init__(self) -> None:
        super().__init__(every_images=1000)

    def observe(self, state, report) -> None:
        if report.images_seen == 16:
            raise RuntimeError("no power")


def digests(folder: Path) -> dict[str, str]:
    return {member.part: member.digest for member in read_ensemble(folder / "base").members}


def test_whether_killed_stopped_or_done_in_one_go_the_ensemble_is_the_same(
    tiny_folder, root, tmp_path
):
    plan = halves(tiny_folder, root)
    reports = list(execute(plan, tmp_path / "whole"))
    assert [(r.part, r.is_done, r.state is None) for r in reports] == [
        ("0/0", True, True),
        ("1/1", True, False),
        ("2/3", True, False),
    ]
    with pytest.raises(RuntimeError, match="no power"):
        list(execute(plan, tmp_path / "parts", hooks=lambda: [Crash()]))
    assert set(digests(tmp_path / "parts")) == {"0/0"}
    with pytest.raises(ConfigError, match="go on with --resume"):
        list(execute(plan, tmp_path / "parts"))
    stopped = list(
        execute(plan, tmp_path / "parts", resume=True, hooks=lambda: [StopHook(images=8)])
    )
    assert [r.is_done for r in stopped] == [True, True, True]  # 1/1 had one step left
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    assert [r.state for r in execute(plan, tmp_path / "parts", resume=True)] == [None] * 3


def test_machines_take_a_node_each_once_its_parent_is_there(tiny_folder, root, tmp_path):
    plan = halves(tiny_folder, root, images=8)
    with pytest.raises(CheckpointError, match="grows from 0/0, which is not trained yet"):
        list(execute(plan, tmp_path, only="1/1"))
    assert [r.part for r in execute(plan, tmp_path, only="base:0/0")] == ["0/0"]
    assert [r.part for r in execute(plan, tmp_path, only="1/1")] == ["1/1"]
    stage = plan.stages[0]
    assert is_filed(tmp_path, stage, "1/1") and not is_filed(tmp_path, stage, "2/3")
    with pytest.raises(InputError, match="has no node '9/511'"):
        execute(plan, tmp_path, only="9/511")
    with pytest.raises(CheckpointError, match="base still lacks 2/3: go on with"):
        ship_programme(tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_belongs_to_one_plan(tiny_folder, root, tmp_path):
    list(execute(halves(tiny_folder, root, images=8), tmp_path, only="0/0"))
    with pytest.raises(ConfigError, match="was begun with another plan"):
        execute(halves(tiny_folder, root, images=16), tmp_path, resume=True)


def test_a_cascade_needs_what_its_stages_enlarge(tiny_folder, root, tmp_path):
    lonely = plan_stage("sr", toy_sr(tiny_folder, 8), "ediffi", images=8)
    plan = Programme(name="toy", shape="custom", stages=(lonely,))
    for part in lonely.parts:
        list(execute(plan, tmp_path / "runs", only=part))
    with pytest.raises(CheckpointError, match="enlarges pictures of 8 px, and no stage before"):
        ship_programme(tmp_path / "runs", tmp_path / "model")
