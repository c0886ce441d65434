"""Stopping a run early on purpose: after so many images, or so much time."""

import signal
import time

from bottega.errors import ConfigError
from bottega.training.hooks import Hook
from bottega.training.state import StepReport, TrainState


class StopHook(Hook):
    """Asks a run to stop as SIGTERM would: it saves its state, and can be resumed.

    Of several processes one may reach its time first; the signal lets the loop bring them to agree on a step.
    """

    def __init__(self, *, images: int | None = None, seconds: int | float | None = None) -> None:
        """Stop once ``images`` have been seen in all, or ``seconds`` have passed since the run began or resumed."""
        super().__init__(every_images=1)
        if images is not None and images < 1:
            raise ConfigError(f"a run stops after at least 1 image, got {images}")
        if seconds is not None and not 0 < seconds < float("inf"):
            raise ConfigError(f"a time limit is positive and finite, got {seconds} seconds")
        self._images = images
        self._seconds = seconds
        self._began = time.monotonic()
        self._asked = False

    def begin(self, state: TrainState) -> None:
        """Start the clock."""
        self._began = time.monotonic()
        self._asked = False

    def observe(self, state: TrainState, report: StepReport) -> None:
        """Ask once, when it is time."""
        if not self._asked and self._is_time(report.images_seen):
            self._asked = True
            if state.engine.world_size == 1:  # also where signals cannot be caught, as in a thread
                state.stopped_by = "its limit"
            else:
                signal.raise_signal(signal.SIGTERM)

    def _is_time(self, images_seen: int) -> bool:
        if self._images is not None and images_seen >= self._images:
            return True
        return self._seconds is not None and time.monotonic() - self._began >= self._seconds


__all__ = ["StopHook"]
