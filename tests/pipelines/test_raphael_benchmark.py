"""The benchmark of whole networks with experts runs, at a size that says nothing about speed."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("raphael", BENCHMARKS / "raphael.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def test_it_says_what_experts_cost_and_how_many_pairs_are_at_work(script, monkeypatch, capsys):
    asked = ["--experts", "1", "2", "--tokens", "4", "--size", "4", "--rounds", "2"]
    monkeypatch.setattr("sys.argv", ["raphael.py", *asked])
    script.main()
    said = capsys.readouterr().out
    assert re.search(r"piccolo_raphael, 2 experts: [+-]\d+% on the clock", said)
    assert re.search(r"piccolo_raphael, 1 experts: ", said)
    times = re.findall(r"a call takes (\S+) ms with them and (\S+) ms with none", said)
    assert len(times) == 2 and all(float(ms) > 0 for pair in times for ms in pair)
    for num, at_work, shares in zip(
        (1, 2),
        re.findall(r"(\S+) of \d experts at work at a position", said),
        re.findall(r"active pairs (\d+)%; block by block (.*)", said),
        strict=True,
    ):
        assert float(at_work) == pytest.approx(num * int(shares[0]) / 100, abs=0.02)
        assert len(shares[1].split()) == 16


def test_a_network_without_its_space_experts_is_otherwise_the_same(script):
    config = script.with_space_experts(script.PLANS["piccolo_raphael"](), 3)
    network = script.UNet(config)
    bare = script.without_space(network)
    assert all(block.space is None for block in bare.expert_blocks)
    assert all(block.space is not None for block in network.expert_blocks)
    left = {name for name, _ in bare.named_parameters()}
    assert left == {name for name, _ in network.named_parameters() if ".space." not in name}
