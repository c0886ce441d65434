"""The benchmark against diffusers runs on tiny networks, and judges what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_suite_prints_a_row_for_every_contest_that_agrees():
    command = [sys.executable, str(BENCHMARKS / "foreign.py"), "--suite", "--tiny"]
    command += ["--minutes", "0.1", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, _, *rows = done.stdout.splitlines()
    assert [row.split()[1:3] for row in rows] == [
        ["sd-tiny", "bf16,"],
        ["sd-tiny", "fp32,"],
        ["if-tiny", "bf16,"],
        ["if-tiny", "fp32,"],
    ]
    for row in rows:
        ratio, low, high = (float(n) for n in re.findall(r"(\d\.\d{3})", row)[:3])
        assert low <= ratio <= high
        shares = [int(n) for n in re.findall(r"(\d+)%", row)]
        assert len(shares) == 2 and all(0 <= share < 100 for share in shares)
    peaks = [re.findall(r"\| ([\d,]+) / ([\d,]+) \|", row) for row in rows]
    assert all(100 < int(n.replace(",", "")) < 20_000 for (pair,) in peaks for n in pair)
