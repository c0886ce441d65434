"""Stops a run whose loss is not a number, and says on which pictures it happened."""

import json
import math
from dataclasses import asdict, dataclass

import torch

from bottega.errors import TrainingError
from bottega.rundir import RunDir
from bottega.training.state import StepReport

_SHOWN = 4
"""How many of a step's pictures the message names; the file names them all."""


class FiniteGuard:
    """Looks at each step's loss and gradient length.

    On a CPU a step is judged before the weights move. On an accelerator it is judged one step later, when its numbers
    have arrived anyway, and always before anything is saved: the checkpoints on disk never hold what is not finite.
    """

    def __init__(self, run: RunDir, *, rank: int = 0) -> None:
        """Write what went wrong into ``run``; every process of several has a file of its own."""
        self._run = run
        self._suffix = "" if rank == 0 else f"-rank{rank}"
        self._pending: tuple[StepReport, torch.Tensor] | None = None

    def watch(self, report: StepReport) -> None:
        """Take note of a step, and judge it or the one before.

        Raises:
            TrainingError: If that step's loss or gradient is not finite.
        """
        numbers = torch.stack([report.loss.detach().float(), report.grad_norm.detach().float()])
        self.settle()
        self._pending = (report, numbers)
        if numbers.device.type == "cpu":
            self.settle()

    def settle(self) -> None:
        """Judge the step that is still waiting, if one is."""
        if self._pending is None:
            return
        report, numbers = self._pending
        self._pending = None
        loss, grad_norm = numbers.tolist()
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise TrainingError(self._describe(report, loss, grad_norm))

    def _describe(self, report: StepReport, loss: float, grad_norm: float) -> str:
        rows = _rows(report)
        guilty = [row for row in rows if not math.isfinite(row.loss)]
        facts = {
            "images_seen": report.images_seen,
            "loss": str(loss),
            "grad_norm": str(grad_norm),
            "pictures": [{**asdict(row), "loss": str(row.loss)} for row in rows],
        }
        path = self._run.write_text(
            f"failure-images-{report.images_seen:09d}{self._suffix}.json",
            json.dumps(facts, indent=2) + "\n",
        )
        what = "loss" if not math.isfinite(loss) else "gradient"
        named = "; ".join(_name(row) for row in guilty[:_SHOWN])
        where = f"on: {named}" if guilty else "though each picture's own loss was"
        return (
            f"the {what} was not finite at images_seen {report.images_seen} (loss {loss:g}, gradient length "
            f"{grad_norm:g}), {where}. All of the step's pictures are listed in {path}. The last checkpoint is "
            "intact: resume with a lower learning_rate or a smaller clip_norm"
        )


@dataclass(frozen=True)
class _Row:
    index: int
    caption: str
    sigma: float | None
    loss: float


def _rows(report: StepReport) -> list[_Row]:
    """One row per picture; a loss that is not known counts as guilty."""
    count = len(report.indices)
    losses = [math.nan] * count if report.per_image is None else report.per_image.tolist()
    sigmas = [None] * count if report.sigma is None else report.sigma.tolist()
    rows = zip(report.indices, report.captions, sigmas, losses, strict=True)
    return [_Row(*row) for row in rows]


def _name(row: _Row) -> str:
    noise = "" if row.sigma is None else f" at sigma {row.sigma:.4g}"
    return f"index {row.index} {row.caption!r}{noise}"


__all__ = ["FiniteGuard"]
