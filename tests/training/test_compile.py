"""A compiled network trains like the plain one, in a program of its own: the shape hook cannot be compiled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bottega.checkpoint import load_tensors

TOY = Path(__file__).with_name("toy.py")


@pytest.mark.slow
@pytest.mark.compiled
def test_a_compiled_network_trains_like_the_plain_one(tmp_path):
    weights = {}
    for compiled in (True, False):
        run = tmp_path / str(compiled)
        config = {"total_images": 64, "batch_size": 16, "precision": "fp32", "compile": compiled}
        done = subprocess.run(
            [sys.executable, str(TOY), json.dumps({"run": str(run), "config": config})],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        weights[compiled] = load_tensors(run / "checkpoints" / "images-000000064", "network")
    assert set(weights[True]) == set(weights[False])
    for name, tensor in weights[False].items():
        torch.testing.assert_close(weights[True][name], tensor, atol=1e-4, rtol=1e-3)
