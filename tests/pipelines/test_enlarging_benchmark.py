"""The benchmark of enlarging runs, and finds that tiles which see all that matters are the whole picture."""

import sys
from pathlib import Path

import pytest
import torch

from bottega.models.srgan import RRDBNet, RRDBNetConfig
from bottega.pipelines.enlarging import Enlarger

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module, without running it."""
    import importlib

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("enlarging")
    for name in ("enlarging", "memory", "contenders"):
        sys.modules.pop(name, None)


def toy() -> Enlarger:
    torch.manual_seed(0)
    network = RRDBNet(RRDBNetConfig(width=4, num_blocks=1, grow=2)).eval().requires_grad_(False)
    return Enlarger(network=network, name="toy", digest="", device=torch.device("cpu"))


def test_tiles_are_the_whole_picture_once_they_see_enough(benchmark, capsys):
    assert benchmark.halos(toy(), side=40, tile=16)
    out = capsys.readouterr().out
    assert "halo   17 px" in out and "halo    0 px" in out and "halo   32 px" not in out


def test_memory_and_time_are_measured_of_the_size_asked_for(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "network", lambda asked: toy())
    found = benchmark.measure(None, "24x40")
    assert found["result_mib"] == pytest.approx(24 * 40 * 16 * 3 / 2**20)
    assert found["seconds"] > 0 and found["mib"] >= 0
