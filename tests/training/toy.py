"""A tiny network, source and objective that the training tests share; also a program that trains them."""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from bottega.checkpoint import Retention
from bottega.config import from_json
from bottega.data import Batch
from bottega.rundir import RunDir
from bottega.training import (
    AccelerateEngine,
    CheckpointHook,
    Hook,
    JournalHook,
    LocalEngine,
    Loss,
    TrainConfig,
    fit,
)


class ToySource:
    """Pictures of noise, each a function of its index; ``asked`` remembers who was drawn."""

    def __init__(self, num_examples: int | None = 100, size: int = 8) -> None:
        self.num_examples = num_examples
        self.size = size
        self.asked: list[int] = []

    def batch(self, indices) -> Batch:
        self.asked.extend(indices)
        pictures = [
            torch.randint(
                0,
                256,
                (3, self.size, self.size),
                generator=torch.Generator().manual_seed(index),
                dtype=torch.uint8,
            )
            for index in indices
        ]
        return Batch(
            images=torch.stack(pictures),
            captions=tuple(f"picture {index}" for index in indices),
            indices=tuple(indices),
        )


class ShapedSource(ToySource):
    """Noise in three shapes by index, of which a batch holds one."""

    shapes = ((8, 8), (6, 10), (10, 6))

    def __init__(self, num_examples: int = 60) -> None:
        super().__init__(num_examples)
        self.groups = tuple(tuple(range(first, num_examples, 3)) for first in range(3))

    def batch(self, indices) -> Batch:
        (shape,) = {self.shapes[index % 3] for index in indices}
        self.asked.extend(indices)
        draws = [torch.Generator().manual_seed(1000 + index) for index in indices]
        pictures = [
            torch.randint(0, 256, (3, *shape), generator=draw, dtype=torch.uint8) for draw in draws
        ]
        return Batch(
            images=torch.stack(pictures),
            captions=tuple(f"picture {index}" for index in indices),
            indices=tuple(indices),
        )


class ToyNetwork(nn.Module):
    """Two convolutions, a buffer and a frozen weight."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 3, 3, padding=1)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        hidden = nn.functional.silu(self.first(x.to(self.first.weight.dtype)))
        return self.second(hidden).float() * self.frozen.float()[:, None, None]


def denoise_a_little(network: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
    """Remove a random amount of noise."""
    clean = batch.clean()
    sigma = torch.rand(len(batch), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    error = network(clean + sigma[:, None, None, None] * noise) - clean
    per_image = error.square().flatten(1).mean(1)
    return Loss(
        total=per_image.mean(),
        per_image=per_image,
        sigma=sigma,
        metrics={"brightness": clean.mean()},
    )


def reconstruct(network: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
    """Give the picture back; no randomness, so that a batch may be split at will."""
    clean = batch.clean()
    per_image = (network(clean) - clean).square().flatten(1).mean(1)
    return Loss(total=per_image.mean(), per_image=per_image)


class Announce(Hook):
    """Says on standard output how far the run is, after each step."""

    def __init__(self) -> None:
        super().__init__(every_images=1)

    def begin(self, state) -> None:
        print(f"begin {state.images_seen}", flush=True)

    def observe(self, state, report) -> None:
        print(f"at {state.images_seen}", flush=True)


def main() -> None:
    """Train as told by a JSON object on the command line, and print the digest of the last state."""
    order = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    config = from_json(TrainConfig, order["config"])
    engine = AccelerateEngine(cpu=True) if order.get("accelerate") else LocalEngine()
    run = RunDir(Path(order["run"]))
    state = fit(
        ToyNetwork(seed=engine.rank),
        reconstruct if order.get("plain") else denoise_a_little,
        ShapedSource() if order.get("shaped") else ToySource(),
        config,
        run,
        engine=engine,
        hooks=[
            CheckpointHook(every_images=config.checkpoint_images, retention=Retention(keep_last=2)),
            JournalHook(every_images=64),
            Announce(),
        ],
        resume=True,
    )
    print(f"end {state.images_seen} {state.stopped_by} {state.digest()}", flush=True)


if __name__ == "__main__":
    main()
