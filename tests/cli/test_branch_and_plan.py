"""From a plan to a picture on the command line, and one clear line for whatever cannot be."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_runs import toy_base, toy_settings, toy_sr

from bottega.checkpoint.ensemble import read_ensemble
from bottega.pipelines import open_picture
from bottega.recipes import train

pytestmark = pytest.mark.filterwarnings("ignore:the text .* is too long")  # for toy encoders

QUICK = ("--images", 8, "--images-per-s", 100)


def refused(done, words: str) -> None:
    assert done.code == 2, done.out + done.err
    assert words in done.err, done.err
    assert done.err.count("\n") == 1 and "Traceback" not in done.err


@pytest.fixture(scope="module")
def root(tiny_folder, tmp_path_factory) -> Path:
    """A finished run at the root of a tree, to be read only."""
    run = tmp_path_factory.mktemp("runs") / "base"
    train(toy_base(tiny_folder), run)
    return run


@pytest.mark.slow
def test_a_programme_goes_from_plan_to_picture_though_it_is_killed_on_the_way(bottega, tiny_folder):
    settings = [*toy_settings(toy_base(tiny_folder, 8)), *toy_settings(toy_sr(tiny_folder, 8))]
    done = bottega("plan", "piccolo-base", "piccolo-sr", "--name", "toy", *QUICK, *settings)
    assert done.code == 0, done.err
    assert "3 expert denoisers paint" in done.out and "2 expert denoisers paint" in done.out
    assert "nodes of one wave train side by side" in done.out

    _killed_at(Path("runs/toy/piccolo-base-9-511/checkpoints"))
    refused(bottega("train", "--plan", "plan.json"), "go on with --resume")
    done = bottega("train", "--plan", "plan.json", "--resume")
    assert done.code == 0, done.err
    assert "piccolo-base 0/0: trained already" in done.out
    for part in ("9/511", "3/0", "complement(3/0,9/511)"):
        assert f"piccolo-base {part}: 8 of 8 images seen" in done.out
    assert bottega("train", "--plan", "plan.json", "--resume").out.count("trained already") == 7

    assert bottega("assemble", "runs/toy", "-o", "model", "--name", "toys").code == 0
    members = sorted(path.name for path in Path("model/base").iterdir())
    assert members == ["3-0", "9-511", "complement-3-0-9-511", "ensemble.json"]  # no root
    picture = ("paint", "a pizza", "--model", "model", "--steps", 4, "-o", "a.png")
    assert bottega(*picture).code == 0
    assert open_picture("a.png").size == (16, 16)
    again = bottega("replay", "a.png", "--model", "model")
    assert "identical, byte for byte" in again.out
    shown = bottega("show", "model")
    assert "model toys" in shown.out and "paints noise" in shown.out and "stage sr16" in shown.out
    table = bottega("show", "model", "--steps", 4).out.splitlines()
    assert table[0] == "stage base" and table[2].split() == ["1", "40", "9/511"]


def _killed_at(checkpoints: Path) -> None:
    """Execute the plan in a process of its own, and kill it once it has begun a node."""
    command = [sys.executable, "-c", "from bottega.cli.main import main; main()"]
    command += ["train", "--plan", "plan.json"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env={**os.environ, "NO_COLOR": "1"}, **quiet) as process:
        deadline = time.monotonic() + 240
        while not checkpoints.exists() and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)


def test_a_run_is_branched_and_its_ensemble_shown(bottega, root):
    done = bottega(
        "branch", root, "--node", "9/511", "-o", "child", "--ensemble", "all",
        "--set", "train.total_images=16", "--stop-after", 8,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "child: 9/511, noise above" in done.err and "child: 8 of 16 images seen" in done.out
    assert read_ensemble("all").parts == ("0/0",)  # filed once it is finished
    done = bottega("train", "--resume", "--run", "child")
    assert done.code == 0, done.err
    assert "child: 16 of 16 images seen" in done.out
    assert read_ensemble("all").parts == ("0/0", "9/511")
    shown = bottega("show", "all").out
    assert "ensemble of 2 expert denoisers" in shown and "each expert denoiser" in shown
    rows = [line.split() for line in shown.splitlines() if line.startswith(("0/0", "9/511"))]
    assert {row[0] for row in rows} == {"0/0", "9/511"} and "0/0" in rows[-1]
    table = bottega("show", "all", "--steps", 25, "--sampler", "heun").out
    assert "expert denoiser" in table and "of 25 steps" in table.splitlines()[-1]
    assert table.count("\n") == 1 + 25 + 24 + 1  # two calls per step, but for the last
    refused(bottega("paint", "a dog", "--model", "all"), "all is an ensemble and not a model")
    refused(bottega("assemble", "all", "-o", "model"), "name the run that its experts grew from")


def test_branching_refuses_what_cannot_be(bottega, root, tiny_folder):
    for part, words in (
        ("9/512", "level 9 has the nodes 0 to 511"),
        ("nine", "a part of the noise is written 9/511"),
        ("0/0", "is not below"),
    ):
        refused(bottega("branch", root, "--node", part, "-o", "c", "--ensemble", "e"), words)
    refused(bottega("branch", "gone", "--node", "9/511"), "gone is not a run")
    refused(bottega("branch", tiny_folder, "--node", "9/511"), "was not imported from diffusers")
    extra = ("-o", "c", "--ensemble", "e", "--set", "train.total_imags=8")
    refused(bottega("branch", root, "--node", "1/0", *extra), "did you mean total_images")
    refused(bottega("paint", "a dog", "--model", root), f"bottega assemble {root} -o MODEL")
    assert not list(Path().iterdir())
    done = bottega("branch", root, "--node", "9/511", "--dry-run")
    assert json.loads(done.out)["task"]["part"] == {"kind": "Node", "level": 9, "index": 511}
    assert not list(Path().iterdir())
    Path("theirs").mkdir()
    Path("theirs/model_index.json").write_text("{}")
    refused(bottega("branch", "theirs", "--node", "1/1"), "bottega import theirs MODEL")


def test_a_child_of_another_parent_is_one_line(bottega, root):
    child = ("branch", root, "--node", "1/0", "--ensemble", "e", "--set", "train.total_images=8")
    assert bottega(*child, "-o", "c").code == 0
    path = Path("e/ensemble.json")
    digest = read_ensemble("e").member("0/0").digest
    path.write_text(path.read_text().replace(digest, "f" * 64))
    refused(bottega("train", "--resume", "--run", "c"), "branch again from the one that is there")
    refused(bottega("branch", root, "--node", "1/1", "--ensemble", "e", "-o", "d"), "would orphan")
    assert not Path("d").exists()


def test_plans_state_their_cost_beforehand(bottega):
    done = bottega("plan", "ediffi-base64", "--images", 204_800_000, "--images-per-s", 5000)
    assert done.code == 0, done.err
    plan = json.loads(Path("plan.json").read_text())
    assert plan["kind"] == "plan" and plan["stages"][0]["nodes"][0]["part"] == "9/511"
    books = plan["forecast"]["ledgers"][0]
    assert books["ensemble_call_flops"] == books["call_flops"] and books["num_experts"] == 3
    nodes = {node["part"]: node for node in plan["forecast"]["nodes"]}
    assert nodes["9/511"]["sigma"] == "above 9.61" and nodes["3/0"]["sigma"] == "below 0.07574"
    assert nodes["9/511"]["path_images"] == (1_900_000 + 100_000) * 2048
    assert plan["forecast"]["num_machines"] == 3
    unknown = bottega("plan", "ediffi-base64", "-o", "b.json")
    assert "not known" in unknown.out


def test_plans_refuse_what_makes_no_sense(bottega, root):
    fast = ("--images-per-s", 1)
    refused(bottega("plan", "lab", "--shape", "ediff", *fast), "did you mean ediffi")
    refused(bottega("plan", "lab", "--shape", "two", *fast), "--sigma says where")
    refused(bottega("plan", "lab", "--shape", "levels", "--depth", 9, *fast), "--depth is 1 to 6")
    refused(bottega("plan", "lab", "--shape", "custom", *fast), "--node names")
    refused(bottega("plan", "lab", "--shape", "custom", "--node", "9/512", *fast), "0 to 511")
    refused(bottega("plan", "laab", *fast), "did you mean lab")
    refused(bottega("plan", "piccolo-judge", *fast), "trains no denoiser")
    refused(bottega("plan", "lab", "lab", *fast), "two stages are called alike")
    refused(bottega("plan", "lab", "--images-per-s", 0), "must be positive")
    refused(bottega("plan", "lab", "--images", 0, *fast), "at least 1 image")
    refused(bottega("plan", "lab", "--name", "a/b", *fast), "a folder's name")
    refused(bottega("plan", root, "--set", "size=8", *fast), "has its settings already")
    refused(bottega("plan", "lab", "--set", "other:size=8", *fast), "other is none of lab")
    refused(bottega("plan", "lab", "-o", "gone/plan.json", *fast), "there is no folder")
    refused(bottega("train", "--plan", "gone.json"), "cannot read the plan")
    Path("a.json").write_text("{}")
    refused(bottega("train", "--plan", "a.json"), "a.json is no plan")
    refused(bottega("train", "lab", "--plan", "a.json"), "a plan holds its recipes")
    refused(bottega("train", "lab", "--only", "9/511"), "give it with --plan")
    refused(bottega("show", root, "--steps", 5), "is not a model")
