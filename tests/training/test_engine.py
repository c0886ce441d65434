"""Two processes take the step that one would take on the joined batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from toy import ToyNetwork, ToySource, reconstruct

from bottega.checkpoint import load_tensors
from bottega.rundir import RunDir
from bottega.training import AccelerateEngine, Engine, LocalEngine, Loss, TrainConfig, fit
from bottega.training.engine import _buckets

TOY = Path(__file__).with_name("toy.py")


def test_one_process_is_its_own_mean():
    engine = LocalEngine()
    assert isinstance(engine, Engine)
    tensor = torch.ones(3)
    engine.average([tensor])
    engine.wait()
    assert torch.equal(tensor, torch.ones(3))
    assert (engine.any(True), engine.any(False)) == (True, False)
    assert (engine.rank, engine.world_size) == (0, 1)


def test_accelerate_alone_is_one_process_too():
    engine = AccelerateEngine(cpu=True)
    assert isinstance(engine, Engine)
    assert (engine.rank, engine.world_size, engine.device.type) == (0, 1, "cpu")
    network, tensor = nn.Linear(2, 2), torch.ones(3)
    engine.prepare(network)
    engine.average([tensor])
    engine.wait()
    assert torch.equal(tensor, torch.ones(3))
    assert (engine.any(True), engine.any(False)) == (True, False)


def test_buckets_hold_every_tensor_once_in_order():
    tensors = [torch.zeros(n) for n in (3 * 2**20, 7 * 2**20, 5, 9 * 2**20, 1)]
    buckets = _buckets(tensors)
    assert [t.numel() for bucket in buckets for t in bucket] == [t.numel() for t in tensors]
    assert [len(bucket) for bucket in buckets] == [1, 2, 1, 1]
    assert _buckets([]) == []


class OneOfTwo(LocalEngine):
    """One of two processes, which only notes what it is asked to average."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.world_size = rank, 2
        self.averaged: list[list[torch.Size]] = []

    def average(self, tensors) -> None:
        self.averaged.append([tensor.shape for tensor in tensors])


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_processes_average_the_same_list_even_where_one_left_a_layer_out(tmp_path, precision):
    def half(network, batch, generator):
        hidden = network.first(batch.clean().to(network.first.weight.dtype)).float()
        return Loss(total=hidden.square().mean())

    config = TrainConfig(total_images=16, batch_size=16, precision=precision)
    engines = []
    for rank, objective in enumerate((reconstruct, half)):
        engines.append(OneOfTwo(rank))
        fit(
            ToyNetwork(),
            objective,
            ToySource(),
            config,
            RunDir(tmp_path / str(rank)),
            engine=engines[rank],
        )
    assert len(engines[0].averaged[0]) == 4
    assert engines[0].averaged == engines[1].averaged


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(run: Path, world_size: int, *, accelerate: bool) -> None:
    order = {
        "run": str(run),
        "accelerate": accelerate,
        "plain": True,
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
    port = str(free_port())
    workers = [
        subprocess.Popen(
            [sys.executable, str(TOY), json.dumps(order)],
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
                "MASTER_PORT": port,
            },
        )
        for rank in range(world_size)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=600)
        assert worker.returncode == 0, errors


@pytest.mark.slow
def test_two_processes_train_as_one_on_the_joined_batch(tmp_path):
    launch(tmp_path / "two", 2, accelerate=True)
    launch(tmp_path / "one", 1, accelerate=False)
    name = "checkpoints/images-000000064"
    two, one = (load_tensors(tmp_path / which / name, "network") for which in ("two", "one"))
    assert set(two) == set(one)
    for key in ("first.weight", "first.bias", "second.weight", "second.bias"):
        torch.testing.assert_close(two[key], one[key], atol=1e-6, rtol=1e-5)
