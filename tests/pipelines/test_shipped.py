"""What comes inside the package is whole, paints, and stays small."""

from pathlib import Path

import numpy as np
import pytest

import bottega
from bottega.evaluation.probes import misroute
from bottega.evaluation.probes.subject import unseen
from bottega.evaluation.routes import routed
from bottega.pipelines import SHIPPED, find_model, load, read_manifest
from bottega.pipelines.cascade import verify_files
from bottega.pipelines.enlarging import SHIPPED_ENLARGERS, load_enlarger

WEIGHTS = Path(bottega.__file__).parent / "weights"


def test_all_that_ships_is_known_by_name():
    assert {path.name for path in WEIGHTS.iterdir()} == {*SHIPPED, *SHIPPED_ENLARGERS}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_file_of_a_shipped_model_is_the_one_that_was_measured(name):
    folder = find_model(name)
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    assert manifest.name == name and manifest.judge is not None


def test_the_small_raphael_paints_and_hears(tmp_path):
    painter = load("piccolo-raphael", device="cpu", dtype="float32")
    first, second = painter.paint(["a tree", "a red car"], seeds=[1, 1], steps=2)
    assert first.size == (64, 64)
    assert not np.array_equal(np.asarray(first), np.asarray(second))


def test_noise_cannot_go_to_other_experts_of_the_small_raphael_for_nothing():
    painter = load("piccolo-raphael", device="cpu", dtype="float32")
    (stage,) = painter.stages
    clean, condition = unseen(painter, stage, 0, 16)
    found = misroute(routed(stage.denoiser), clean, condition, [0.1, 1.0, 10.0])
    everywhere = {one.kind: one for one in found if one.block is None}
    assert everywhere["time"].likely.low > 0


@pytest.mark.parametrize("name", SHIPPED_ENLARGERS)
def test_a_shipped_enlarger_enlarges(name):
    painter_sized = bottega.load("piccolo").paint("a cat", seeds=0, steps=1)[0]
    large = load_enlarger(name).enlarge(painter_sized.crop((0, 0, 16, 16)))
    assert large.size == (64, 64)
