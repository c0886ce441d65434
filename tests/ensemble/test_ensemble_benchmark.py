"""The benchmark of ensembles runs, at a size that says nothing about speed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("ensemble_benchmark", BENCHMARKS / "ensemble.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_denoisers_have_more_than_fifty_million_parameters(benchmark):
    with torch.device("meta"):
        network = benchmark.UNet(benchmark.plan(128))
    assert sum(parameter.numel() for parameter in network.parameters()) >= 50_000_000


def test_an_ensemble_and_a_single_denoiser_are_timed_in_turn(benchmark, tmp_path, capsys):
    race = benchmark.Race(torch.float32, 8, 1, "cpu")
    benchmark.write_experts(tmp_path, 32, race.dtype)
    benchmark.race_for_time(tmp_path, race, 32, 4, 2)
    said = capsys.readouterr().out
    assert re.findall(r"time, (\w+) (\w+): ratio \d", said) == [
        (kind, clock) for kind in ("active", "all") for clock in ("wall", "cpu")
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_the_command_line_weighs_every_kind_in_a_process_of_its_own():
    tiny = [
        "--width",
        "32",
        "--size",
        "8",
        "--steps",
        "4",
        "--rounds",
        "1",
        "--dtypes",
        "bf16",
        "--skip",
        "time",
    ]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "ensemble.py", *tiny],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    ratios = dict(re.findall(r"memory, (\w+) added: ratio (\d+\.\d+)", done.stdout))
    assert float(ratios["active"]) < float(ratios["all"])
