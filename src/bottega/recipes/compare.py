"""A child beside its parent: the same pictures, the same noise, the parent's loss and the child's.

The two differ by far less than either varies from picture to picture, so it is the difference that is averaged, pair by
pair, and its standard error says how much of it is luck.
"""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bottega import seeding
from bottega.checkpoint import load_tensors
from bottega.conditioning import Encoders
from bottega.data import Batch
from bottega.journal import Journal
from bottega.recipes.denoisers import denoiser_objective
from bottega.recipes.latents import open_space
from bottega.recipes.run import DenoiserTask, RunConfig
from bottega.recipes.sources import preview_batch
from bottega.training import Hook, TrainState

NUM_PICTURES = 128
"""Pictures that both are asked about, none of which was trained on where the world is drawn."""

_AT_ONCE = 32
_TIMES = 20
"""How often in a run the two are compared."""


class CompareHook(Hook):
    """Compares a child's averaged weights with its parent's on the child's part of the noise, by fixed draws.

    The verdict goes into the journal and beside the progress.
    """

    def __init__(
        self, config: RunConfig, task: DenoiserTask, encoders: Encoders, start: Path
    ) -> None:
        """Compare the run of ``config`` with the weights in ``start``, which are its parent's."""
        every = config.train.total_images // _TIMES
        super().__init__(every_images=max(config.train.batch_size, every))
        self._config, self._task, self._encoders, self._start = config, task, encoders, start
        self._space = open_space(task)
        self._asked: list[Batch] = []
        self._parent: Tensor | None = None

    def begin(self, state: TrainState) -> None:
        """Choose the pictures and measure the parent."""
        if state.engine.rank == 0:
            self._asked = [
                self._told(b, state) for b in _pieces(preview_batch(self._config, NUM_PICTURES))
            ]
            weights = load_tensors(self._start)
            device = state.engine.device
            with holding(state, [weights[name].to(device) for name in state.masters.names]):
                self._parent = self._losses(state)

    def fire(self, state: TrainState) -> None:
        """Measure the child and say how it compares."""
        if state.engine.rank == 0 and self._parent is not None:
            with averaged(state):
                losses = self._losses(state)
            record = compared(losses, self._parent)
            entry = {"event": "compare", "images_seen": state.images_seen, "part": self._part}
            Journal(state.run.journal).append({**entry, **record})
            state.remark = (
                f"{self._part} {record['loss']:.4f}, its parent {record['parent_loss']:.4f}"
            )
        state.engine.wait()

    @property
    def _part(self) -> str:
        return str(self._task.part)

    def _told(self, batch: Batch, state: TrainState) -> Batch:
        """The batch with what the encoders say of its captions, where the network lives."""
        device = state.engine.device
        condition = self._encoders.condition(batch.captions).to(device=device)
        return dataclasses.replace(batch, images=batch.images.to(device), condition=condition)

    def _losses(self, state: TrainState) -> Tensor:
        """Each picture's loss, in the order of the pictures; all draws are the same every time."""
        objective = denoiser_objective(self._task, self._space, dropout=False)
        parts: list[Tensor] = []
        was_training = state.network.training
        state.network.eval()
        try:
            with torch.no_grad():
                for number, batch in enumerate(self._asked):
                    draws = seeding.generator(self._config.train.seed, "compare", number)
                    loss = objective(state.network, batch, draws).per_image
                    assert loss is not None  # this objective always tells
                    parts.append(loss.double().cpu())
        finally:
            state.network.train(was_training)
        return torch.cat(parts)


def compared(child: Tensor, parent: Tensor) -> dict[str, Any]:
    """Both mean losses, the mean of the differences picture by picture, and that mean's standard error."""
    difference = child - parent
    error = difference.std().item() / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return {
        "loss": child.mean().item(),
        "parent_loss": parent.mean().item(),
        "difference": difference.mean().item(),
        "standard_error": error,
    }


@contextmanager
def averaged(state: TrainState) -> Iterator[None]:
    """The network holds the first average that is kept, and afterwards, bit for bit, what it held before."""
    averages = list(state.ema.averages.values())
    if not averages:
        yield
        return
    with holding(state, averages[0]):
        yield


@contextmanager
def holding(state: TrainState, weights: list[Tensor]) -> Iterator[None]:
    """The network holds other weights, in the order of the masters' names, and afterwards its own, bit for bit."""
    before = [tensor.detach().clone() for tensor in state.masters.tensors]
    state.masters.fill(weights)
    try:
        yield
    finally:
        state.masters.fill(before)


def _pieces(batch: Batch) -> Iterator[Batch]:
    for at in range(0, len(batch), _AT_ONCE):
        span = slice(at, at + _AT_ONCE)
        yield dataclasses.replace(
            batch,
            images=batch.images[span],
            captions=batch.captions[span],
            indices=batch.indices[span],
            examples=batch.examples[span],
        )


__all__ = ["NUM_PICTURES", "CompareHook", "averaged", "compared", "holding"]
