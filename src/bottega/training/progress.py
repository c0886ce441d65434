"""The run as it goes, for whoever watches: speed, time left, loss by noise level."""

import time
from typing import TYPE_CHECKING, Any

from bottega.errors import ConfigError
from bottega.training.hooks import Hook
from bottega.training.meter import Meter, Summary
from bottega.training.state import StepReport, TrainState

if TYPE_CHECKING:
    from rich.console import Console


class ProgressHook(Hook):
    """A live line on a terminal; elsewhere, one plain line every ``every_s`` seconds.

    Counts are absolute: a resumed run shows where it is, not how far it came since.
    """

    def __init__(
        self, *, console: "Console | None" = None, live_s: float = 1.0, every_s: float = 60.0
    ) -> None:
        """Report to ``console`` (standard error when not given), each ``live_s`` there or ``every_s`` in plain text."""
        super().__init__(every_images=2**62)
        if live_s <= 0 or every_s <= 0:
            raise ConfigError("the intervals of a progress display must be positive")
        self._console = console
        self._live_s, self._every_s = live_s, every_s
        self._meter = Meter()
        self._progress: Any = None
        self._task: Any = None
        self._next = 0.0

    def begin(self, state: TrainState) -> None:
        """Show the display."""
        from rich.console import Console

        if state.engine.rank != 0:
            return
        if self._console is None:
            self._console = Console(stderr=True)
        for warning in state.warnings:
            self._console.print(warning, style="yellow", markup=False, highlight=False)
        if state.images_seen > 0:
            self._console.print(f"resuming at {state.images_seen:,} images", highlight=False)
        if self._console.is_terminal:
            self._show(state, self._console)
        self._meter = Meter()
        self._next = time.perf_counter() + self._period

    def observe(self, state: TrainState, report: StepReport) -> None:
        """Collect the step, and speak when it is time."""
        if state.engine.rank != 0:
            return
        self._meter.add(report)
        if time.perf_counter() >= self._next:
            self._report(state)
            self._next = time.perf_counter() + self._period

    def end(self, state: TrainState) -> None:
        """Say the last figures and take the display down."""
        if state.engine.rank != 0:
            return
        self._report(state)
        self.close()
        if state.stopped_by is not None and self._console is not None:
            self._console.print(
                f"stopped by {state.stopped_by} at {state.images_seen:,} images; resume to go on",
                highlight=False,
            )

    def close(self) -> None:
        """Take the display down, so that an error leaves the terminal as it was."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @property
    def _period(self) -> float:
        return self._every_s if self._progress is None else self._live_s

    def _show(self, state: TrainState, console: "Console") -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            BarColumn(bar_width=24), TextColumn("{task.description}"), console=console
        )
        self._task = self._progress.add_task(
            _place(state), total=state.config.total_images, completed=state.images_seen
        )
        self._progress.start()

    def _report(self, state: TrainState) -> None:
        summary = self._meter.take_local()
        if summary is None or self._console is None:
            return
        text = _sentence(state, summary)
        if self._progress is None:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            self._progress.update(self._task, completed=state.images_seen, description=text)


def _place(state: TrainState) -> str:
    return f"{state.images_seen:,}/{state.config.total_images:,} images"


def _sentence(state: TrainState, summary: Summary) -> str:
    left = (state.config.total_images - state.images_seen) / max(summary.images_per_s, 1e-9)
    parts = [
        _place(state),
        f"{summary.images_per_s:,.1f} images/s",
        f"{duration(left)} left",
        f"loss {summary.loss_ema:.4f}",
    ]
    if summary.by_sigma:
        parts.append("by sigma " + " ".join(f"{loss:.3f}" for loss in summary.by_sigma))
    if state.remark:
        parts.append(state.remark)
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``45 s``, ``12 min``, ``3 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


__all__ = ["ProgressHook", "duration"]
