"""The benchmark of the space-MoE runs, at a size that says nothing about speed."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from tiny_moe import given, layer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module, without running it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("moe")
    for name in ("moe", "contenders"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("more", [["--no-bias"], ["--train", "--images", "2"]])
def test_it_compares_the_layer_with_its_three_peers(benchmark, monkeypatch, capsys, more):
    tiny = ["--size", "8", "--width", "8", "--tokens", "5", "--experts", "2", "--ratio", "2"]
    once = ["--rounds", "1", "--warmup", "1", "--literal-rounds", "1", "--attention", "usual"]
    monkeypatch.setattr("sys.argv", ["moe.py", *tiny, *once, *more])
    benchmark.main()
    said = capsys.readouterr().out
    for dtype in ("float32", "bfloat16"):
        assert re.search(rf"usual attention, torch.{dtype}, forward.*: \d+% of pairs active", said)
    for peer in ("pairs", "dense", "literal"):
        assert len(re.findall(rf"[\d.]+ of {peer} \(", said)) == 4


def test_a_layer_that_computes_something_else_is_not_timed(benchmark):
    moe = layer()
    x, attention_map, tokens, mask = given()
    route = moe.route(tokens[:1], mask[:1])
    ours = moe(x, attention_map, route)
    printed = benchmark.literal(moe, x, attention_map, route)
    torch.testing.assert_close(ours, printed, rtol=0, atol=1e-6)
    benchmark.check(ours, printed, torch.float32)
    with pytest.raises(SystemExit, match="the counted form differs from the printed sum"):
        benchmark.check(ours + 0.1, printed, torch.float32)
