"""What happens along the way of a run: checkpoints, journal, curves, previews."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bottega.checkpoint import Retention, prune
from bottega.errors import ConfigError
from bottega.journal import Journal
from bottega.training.meter import Meter, Summary, single_numbers
from bottega.training.state import StepReport, TrainState, save_state


class Hook:
    """Something that happens every so many images; also at the end and where a run is stopped.

    `observe` sees every step and must be cheap. `fire` is called when ``every_images`` have passed. `close` is called
    however the run ends, by an error too.
    """

    def __init__(self, *, every_images: int) -> None:
        """Fire each time this many images have been seen."""
        if every_images < 1:
            raise ConfigError(f"every_images must be at least 1, got {every_images}")
        self.every_images = every_images

    def begin(self, state: TrainState) -> None:
        """Get ready, before the first step."""

    def observe(self, state: TrainState, report: StepReport) -> None:
        """See one step."""

    def fire(self, state: TrainState) -> None:
        """Do what is due."""

    def end(self, state: TrainState) -> None:
        """Finish, after the last step."""

    def close(self) -> None:
        """Let go of what `begin` opened."""


class CheckpointHook(Hook):
    """Saves the state and deletes what the policy does not keep."""

    def __init__(self, *, every_images: int, retention: Retention | None = None) -> None:
        """Save each time this many images have been seen."""
        super().__init__(every_images=every_images)
        self._retention = Retention() if retention is None else retention

    def fire(self, state: TrainState) -> None:
        """Save now; every process waits until it is done."""
        if state.engine.rank == 0:
            save_state(state)
            prune(state.run.checkpoints, self._retention)
        state.engine.wait()


class JournalHook(Hook):
    """Writes what happened since the last record as one line of the run's journal."""

    def __init__(self, *, every_images: int) -> None:
        """Write each time this many images have been seen."""
        super().__init__(every_images=every_images)
        self._meter = Meter()

    def begin(self, state: TrainState) -> None:
        """Start the clock, go on with the running loss, and note what was passed over on the way here."""
        journal = Journal(state.run.journal)
        self._meter = Meter(loss_ema=_last_loss_ema(journal))
        if state.engine.rank == 0:
            record: dict[str, Any] = {"event": "start", "images_seen": state.images_seen}
            if state.warnings:
                record["warnings"] = list(state.warnings)
            journal.append(record)

    def observe(self, state: TrainState, report: StepReport) -> None:
        """Collect the step's numbers."""
        self._meter.add(report)

    def fire(self, state: TrainState) -> None:
        """Write one record."""
        summary = self._meter.take(state.engine)
        if summary is not None and state.engine.rank == 0:
            Journal(state.run.journal).append({"event": "train", **summary.as_record()})

    def end(self, state: TrainState) -> None:
        """Write how the run ended."""
        if state.engine.rank == 0:
            Journal(state.run.journal).append(
                {
                    "event": "end",
                    "images_seen": state.images_seen,
                    "stopped_by": state.stopped_by,
                }
            )


class TensorBoardHook(Hook):
    """Draws the same numbers as curves over images seen."""

    def __init__(self, *, every_images: int) -> None:
        """Write each time this many images have been seen."""
        super().__init__(every_images=every_images)
        self._meter = Meter()
        self._writer: Any = None

    def begin(self, state: TrainState) -> None:
        """Open the event file; curves of a resumed run are cut where it goes on."""
        self._meter = Meter()
        if state.engine.rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(
                str(state.run.tensorboard), purge_step=state.images_seen + 1
            )

    def observe(self, state: TrainState, report: StepReport) -> None:
        """Collect the step's numbers."""
        self._meter.add(report)

    def fire(self, state: TrainState) -> None:
        """Write one point of each curve."""
        summary = self._meter.take(state.engine)
        if summary is None or self._writer is None:
            return
        for name, value in _curves(summary).items():
            self._writer.add_scalar(name, value, state.images_seen)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class PreviewHook(Hook):
    """Lets a function paint a sheet into the run's previews, with the network in evaluation mode."""

    def __init__(self, paint: Callable[[TrainState, Path], None], *, every_images: int) -> None:
        """Call ``paint(state, target)`` each time this many images have been seen; ``target`` ends in .png."""
        super().__init__(every_images=every_images)
        self._paint = paint

    def fire(self, state: TrainState) -> None:
        """Paint now."""
        if state.engine.rank == 0:
            state.run.previews.mkdir(exist_ok=True)
            state.network.eval()
            try:
                self._paint(state, state.run.previews / f"images-{state.images_seen:09d}.png")
            finally:
                state.network.train()
        state.engine.wait()


def _last_loss_ema(journal: Journal) -> float | None:
    """The running loss of the newest record that has one."""
    values = [record["loss_ema"] for record in journal.read() if "loss_ema" in record]
    return values[-1] if values else None


def _curves(summary: Summary) -> dict[str, float]:
    curves = {
        "loss": summary.loss,
        "learning_rate": summary.learning_rate,
        "grad_norm": summary.grad_norm,
        "images_per_s": summary.images_per_s,
    }
    for name, value in summary.metrics.items():
        curves.update(single_numbers(name, value))
    for number, loss in enumerate(summary.by_sigma, start=1):
        curves[f"loss_by_sigma/quartile_{number}"] = loss
    return curves


__all__ = ["CheckpointHook", "Hook", "JournalHook", "PreviewHook", "TensorBoardHook"]
