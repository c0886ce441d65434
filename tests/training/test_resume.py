"""A run that is killed at any moment and resumed ends with the same bits as one that never stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bottega.checkpoint import list_checkpoints
from bottega.journal import Journal

TOY = Path(__file__).with_name("toy.py")
KILLS = 10


def start(run: Path, config: dict, **more) -> subprocess.Popen:
    order = json.dumps({"run": str(run), "config": config, **more})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(TOY), order],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def place(process: subprocess.Popen) -> int:
    """How many images the process says it has seen; waits for its next word."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return int(line.split()[1])


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Wait for the end: images seen, what stopped it, and the digest of everything."""
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    _, images, stopped_by, digest = output.splitlines()[-1].split()
    return int(images), stopped_by, digest


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_bit_identical(tmp_path):
    config = {
        "total_images": 16 * 160,
        "batch_size": 16,
        "microbatch": 8,
        "checkpoint_images": 32,
        "ema": {"every_images": 48},
        "warmup_images": 640,
        "schedule": {"kind": "Cosine"},
    }
    whole = finish(start(tmp_path / "whole", config))
    dice = random.Random(0)
    resumed_at = []
    while len(resumed_at) < KILLS:
        process = start(tmp_path / "killed", config)
        resumed_at.append(place(process))
        for _ in range(dice.randrange(12)):
            place(process)
        time.sleep(dice.uniform(0, 0.01))  # anywhere in a step, or in the writing of a checkpoint
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
        process.communicate()
    assert finish(start(tmp_path / "killed", config)) == whole
    assert resumed_at == sorted(resumed_at)
    assert len(set(resumed_at)) > KILLS // 2, "the kills did not fall into different places"
    seen = [r["images_seen"] for r in Journal(tmp_path / "killed" / "journal.jsonl").read()]
    assert seen == sorted(seen)


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_told_to_stop_saves_where_it_is_and_can_go_on(tmp_path, signal_number):
    config = {"total_images": 16 * 60, "batch_size": 16, "checkpoint_images": 10**9}
    process = start(tmp_path, config)
    for _ in range(5):
        place(process)
    process.send_signal(signal_number)
    images, stopped_by, _ = finish(process)
    assert stopped_by == signal.Signals(signal_number).name
    assert 0 < images < 16 * 60
    assert [p.name for p in list_checkpoints(tmp_path / "checkpoints")] == [f"images-{images:09d}"]
    assert Journal(tmp_path / "journal.jsonl").read()[-1]["stopped_by"] == stopped_by
    resumed = start(tmp_path, config)
    assert place(resumed) == images
    done, stopped_by, digest = finish(resumed)
    assert (done, stopped_by) == (16 * 60, "None")
    assert finish(start(tmp_path / "whole", config))[2] == digest
