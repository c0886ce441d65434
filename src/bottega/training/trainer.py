"""The training loop: draw a batch, ask the objective, move the weights, run the hooks that are due.

Progress is counted in images. Every random draw, those of dropout layers too, is a function of (seed, rank,
images_seen), and the order of examples of the position, so a run that was killed and resumed ends with the same bits as
one that never stopped.
"""

import dataclasses
import signal
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import torch
from torch import nn

from bottega import seeding
from bottega.checkpoint import latest_good, list_checkpoints
from bottega.data import Batch, Source
from bottega.errors import CheckpointError, ConfigError
from bottega.journal import Journal
from bottega.rundir import RunDir
from bottega.training.config import TrainConfig
from bottega.training.engine import Engine, LocalEngine
from bottega.training.finite import FiniteGuard
from bottega.training.hooks import CheckpointHook, Hook
from bottega.training.loader import Loader, order_of
from bottega.training.objective import Loss, Objective
from bottega.training.optim import set_learning_rate
from bottega.training.precision import clip_gradients
from bottega.training.schedules import learning_rate
from bottega.training.state import (
    StepReport,
    TrainState,
    about_json,
    join,
    new_state,
    restore_state,
)

_AGREE_EVERY = 16
"""Steps between two looks at whether another process was told to stop."""


def fit(
    network: nn.Module,
    objective: Objective,
    source: Source,
    config: TrainConfig,
    run: RunDir,
    *,
    engine: Engine | None = None,
    hooks: Sequence[Hook] = (),
    resume: bool = False,
    about: Any = None,
) -> TrainState:
    """Train a network until it has seen ``config.total_images``, and leave checkpoints in ``run``.

    Args:
        network: Trained in place; any module that the objective can call.
        objective: The loss of a batch.
        source: Where examples come from, by index.
        config: How long, how fast and how exactly.
        run: The folder of this run; one process group at a time may train in it.
        engine: The machine; one process on the CPU when not given.
        hooks: What happens along the way. A `CheckpointHook` is added when there is none.
        resume: Go on from the newest checkpoint that is whole; start afresh when there is none.
        about: Plain JSON or a configuration that goes into every checkpoint.

    Returns:
        The state at the end, or where SIGINT or SIGTERM asked to stop; a checkpoint of it is on the disk.

    Raises:
        TrainingError: When a loss or gradient is not finite.
        CheckpointError: When the checkpoint to resume from does not fit, or every one is damaged.
        ConfigError: When ``resume`` is False and the run holds checkpoints already.
    """
    engine = LocalEngine() if engine is None else engine
    microbatch = config.microbatch_for(engine.world_size)
    with (
        run.locked() if engine.rank == 0 else _nothing(),
        _stop_signals() as stop,
        _randomness_of_its_own(engine.device),
        ExitStack() as opened,
    ):
        state = new_state(network, config, run, engine, about_json(about))
        _start(state, resume=resume)
        if config.compile:
            network.compile()
        loader = Loader(
            source,
            order_of(
                source,
                seeding.derive(config.seed, "order"),
                batch_size=config.batch_size,
                start=state.images_seen,
            ),
            start=state.images_seen,
            batch_size=config.batch_size,
            microbatch=microbatch,
            rank=engine.rank,
            world_size=engine.world_size,
            prefetch=config.prefetch,
        )
        every_hook = _with_checkpoints(hooks, config)
        guard = FiniteGuard(run, rank=engine.rank)
        network.train()
        with loader:
            for hook in every_hook:
                opened.callback(hook.close)
                hook.begin(state)
            while not state.finished and state.stopped_by is None:
                before = state.images_seen
                report = _step(state, objective, loader, microbatch, guard)
                for hook in every_hook:
                    hook.observe(state, report)
                if state.stopped_by is None:  # a hook may stop the run too
                    state.stopped_by = _asked_to_stop(state, stop)
                due = [h for h in every_hook if _is_due(h, before, state)]
                if due:
                    guard.settle()
                for hook in due:
                    hook.fire(state)
        guard.settle()
        for hook in every_hook:
            hook.end(state)
    return state


def _step(
    state: TrainState, objective: Objective, loader: Loader, microbatch: int, guard: FiniteGuard
) -> StepReport:
    """One update of the weights, from as many microbatches as a process's share of the batch takes."""
    config, engine, masters = state.config, state.engine, state.masters
    count = config.batch_size // engine.world_size // microbatch
    generator = seeding.generator(config.seed, "train", engine.rank, state.images_seen)
    # What the objective draws comes from its generator; layers such as dropout know only the global ones.
    torch.manual_seed(seeding.derive(config.seed, "layers", engine.rank, state.images_seen))
    masters.clear_gradients()
    batches: list[Batch] = []
    losses: list[Loss] = []
    for _ in range(count):
        batch = _placed(loader.next(), engine.device)
        loss = objective(state.network, batch, generator)
        (loss.total / count if count > 1 else loss.total).backward()
        masters.collect_gradients()
        batches.append(batch)
        losses.append(_detached(loss))
    images_seen = state.images_seen + config.batch_size
    rate = learning_rate(
        config.schedule,
        config.learning_rate,
        images_seen,
        total_images=config.total_images,
        warmup_images=config.warmup_images,
    )
    with torch.no_grad():
        # A parameter may take part in one process and not in another; all must average the same list.
        gradients = masters.gradients(of_all=engine.world_size > 1)
        engine.average(gradients)
        report = StepReport(
            images_seen=images_seen,
            loss=torch.stack([loss.total for loss in losses]).mean(),
            grad_norm=clip_gradients(gradients, config.clip_norm),
            learning_rate=rate,
            per_image=join(loss.per_image for loss in losses),
            sigma=join(loss.sigma for loss in losses),
            metrics={
                k: torch.stack([x.metrics[k] for x in losses]).mean(0) for k in losses[0].metrics
            },
            captions=tuple(c for b in batches for c in b.captions),
            indices=tuple(i for b in batches for i in b.indices),
        )
    guard.watch(report)
    set_learning_rate(state.optimizer, rate)
    state.optimizer.step()
    masters.publish()
    state.images_seen = images_seen
    state.ema.update(masters.tensors, images_seen)
    return report


def _start(state: TrainState, *, resume: bool) -> None:
    """Put the state where the run left off, or make sure that there is nothing to overwrite."""
    run = state.run
    found = list_checkpoints(run.checkpoints)
    if found and not resume:
        raise ConfigError(
            f"{run.path} already holds {found[-1].name}: resume it, or choose another folder"
        )
    path, problems = latest_good(run.checkpoints)
    if found and path is None:
        raise CheckpointError(f"no checkpoint of {run.path} is whole: {'; '.join(problems)}")
    state.warnings.extend(f"{problem} (passed over)" for problem in problems)
    if path is not None:
        restore_state(state, path)
    if state.engine.rank == 0:
        Journal(run.journal).rewind(state.images_seen)
    state.engine.wait()


def _with_checkpoints(hooks: Sequence[Hook], config: TrainConfig) -> list[Hook]:
    if any(isinstance(hook, CheckpointHook) for hook in hooks):
        return list(hooks)
    return [
        CheckpointHook(every_images=config.checkpoint_images, retention=config.retention),
        *hooks,
    ]


def _is_due(hook: Hook, before: int, state: TrainState) -> bool:
    every = hook.every_images
    if state.finished or state.stopped_by is not None:
        return True
    return before // every != state.images_seen // every


def _placed(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    return dataclasses.replace(
        batch,
        images=batch.images.to(device, non_blocking=True),
        condition=None if batch.condition is None else batch.condition.to(device=device),
        latents=None if batch.latents is None else batch.latents.to(device, non_blocking=True),
        edges=None if batch.edges is None else batch.edges.to(device, non_blocking=True),
    )


def _detached(loss: Loss) -> Loss:
    return Loss(
        total=loss.total.detach(),
        per_image=None if loss.per_image is None else loss.per_image.detach(),
        sigma=loss.sigma,
        metrics={name: value.detach() for name, value in loss.metrics.items()},
    )


def _asked_to_stop(state: TrainState, stop: list[str]) -> str | None:
    engine = state.engine
    if engine.world_size == 1:
        return stop[0] if stop else None
    steps = state.images_seen // state.config.batch_size
    if steps % _AGREE_EVERY == 0 and engine.any(bool(stop)):
        return stop[0] if stop else "another process"
    return None


@contextmanager
def _stop_signals() -> Generator[list[str]]:
    """Collect SIGINT and SIGTERM instead of dying of them; the second SIGINT interrupts as usual."""
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, _frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _randomness_of_its_own(device: torch.device) -> Generator[None]:
    """Leave the global random state of a caller as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def _nothing() -> Generator[None]:
    yield


__all__ = ["fit"]
