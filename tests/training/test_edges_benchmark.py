"""The benchmark of edge supervision runs, at a size that says nothing about speed."""

import importlib
import re
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module, without running it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("edges")
    for name in ("edges", "contenders", "recipe_step"):
        sys.modules.pop(name, None)


def test_it_compares_a_step_with_edges_to_one_without(benchmark, monkeypatch, capsys):
    tiny = ["lab", "--images", "2", "--size", "8", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", ["edges.py", *tiny])
    benchmark.main()
    said = capsys.readouterr().out
    for kind in ("wall", "cpu"):
        assert re.search(rf"takes [\d.]+ of one without \({kind}, [\d.]+ to [\d.]+\)", said)
    assert re.search(r"\d+% of the pictures below the threshold, [\d,]+ weights", said)


def test_a_recipe_without_pixels_is_refused(benchmark, monkeypatch):
    monkeypatch.setattr("sys.argv", ["edges.py", "piccolo-t5"])
    with pytest.raises(SystemExit, match="no denoiser of pixels"):
        benchmark.main()
