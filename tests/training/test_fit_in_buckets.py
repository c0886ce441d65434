"""A run over pictures of several shapes resumes bit for bit, and splits into microbatches and processes as ever."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy import ShapedSource, ToyNetwork, denoise_a_little, reconstruct

from bottega.checkpoint import load_tensors
from bottega.rundir import RunDir
from bottega.training import EmaConfig, TrainConfig, fit
from bottega.training.limits import StopHook


def config(**changes) -> TrainConfig:
    return TrainConfig(
        **{
            "total_images": 96,
            "batch_size": 8,
            "checkpoint_images": 24,
            "precision": "fp32",
            "ema": EmaConfig(stds=(0.1,), every_images=16),
            **changes,
        }
    )


def run(folder, source, objective=denoise_a_little, hooks=(), resume=False, **changes):
    return fit(
        ToyNetwork(),
        objective,
        source,
        config(**changes),
        RunDir(folder),
        hooks=hooks,
        resume=resume,
    )


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path):
    whole_source, source = ShapedSource(), ShapedSource()
    whole = run(tmp_path / "whole", whole_source)
    first = run(tmp_path / "parts", source, hooks=[StopHook(images=40)])
    assert not first.finished
    seen = source.asked[: first.images_seen]
    source.asked.clear()
    second = run(tmp_path / "parts", source, resume=True)
    assert second.finished and second.digest() == whole.digest()
    assert seen + source.asked[: 96 - len(seen)] == whole_source.asked[:96]
    assert {index % 3 for index in whole_source.asked[:96]} == {0, 1, 2}


def test_microbatches_change_no_more_than_rounding(tmp_path):
    whole = run(tmp_path / "whole", ShapedSource(), reconstruct)
    parts = run(tmp_path / "parts", ShapedSource(), reconstruct, microbatch=2)
    ours, theirs = whole.network.state_dict(), parts.network.state_dict()
    for name in ("first.weight", "second.weight"):
        assert torch.allclose(ours[name], theirs[name], atol=1e-5)


def launched(run: Path, world_size: int) -> None:
    """Train in so many processes."""
    order = {
        "run": str(run),
        "accelerate": world_size > 1,
        "plain": True,
        "shaped": True,
        "config": {
            "total_images": 64,
            "batch_size": 16,
            "microbatch": 4,
            "checkpoint_images": 64,
            "precision": "fp32",
            "clip_norm": None,
            "optimizer": {"kind": "AdamW", "eps": 1e-3},
        },
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("toy.py")), json.dumps(order)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in range(world_size)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=600)
        assert worker.returncode == 0, errors


@pytest.mark.slow
def test_two_processes_train_in_buckets_as_one(tmp_path):
    launched(tmp_path / "two", 2)
    launched(tmp_path / "one", 1)
    name = "checkpoints/images-000000064"
    two, one = (load_tensors(tmp_path / which / name, "network") for which in ("two", "one"))
    assert set(two) == set(one)
    for key in ("first.weight", "first.bias", "second.weight", "second.bias"):
        torch.testing.assert_close(two[key], one[key], atol=1e-6, rtol=1e-5)
