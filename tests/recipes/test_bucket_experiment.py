"""The experiment on buckets runs, at a size that says nothing of buckets."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from toy_runs import toy_base

from bottega.data import Buckets

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "buckets.py"


@pytest.fixture
def experiment(monkeypatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("buckets_experiment", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "buckets_experiment", module)
    spec.loader.exec_module(module)
    return module


def test_both_runs_are_asked_about_the_same_scenes(experiment, tiny_folder, tmp_path, capsys):
    buckets = Buckets(multiple=4, shapes=("640x640", "448x832"))
    config = dataclasses.replace(toy_base(tiny_folder, images=8), size=16)
    rows = experiment.compare(config, buckets, tmp_path, [3], scenes=5)
    assert [(row.seed, row.bucket) for row in rows] == [(3, "12x20"), (3, "16x16")]
    for row in rows:
        assert row.difference == pytest.approx(row.buckets - row.squares, abs=1e-5)
        assert row.error >= 0
    assert capsys.readouterr().out.count("seed 3") == 2
    again = experiment.asked(config, tmp_path / "squares-3", buckets, scenes=5)
    assert float(again["16x16"].mean()) == pytest.approx(rows[1].squares)
