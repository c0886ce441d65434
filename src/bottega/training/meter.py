"""Sums up the steps between two reports without making a device wait in between."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bottega.training.engine import Engine, LocalEngine
from bottega.training.state import StepReport

Metric = float | list[Any]
"""A number, or a table of them as nested lists."""

_SMOOTHING = 0.9
"""How much of the running loss stays from one report to the next."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What happened since the last report.

    ``loss_ema`` runs on from report to report. ``by_sigma`` holds the mean loss of each quarter of the pictures,
    from the least noisy to the noisiest, and ``sigma_bounds`` the noise levels between those quarters.
    """

    images_seen: int
    loss: float
    loss_ema: float
    grad_norm: float
    learning_rate: float
    images_per_s: float
    by_sigma: tuple[float, ...] = ()
    sigma_bounds: tuple[float, ...] = ()
    metrics: dict[str, Metric] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """Plain values for a journal."""
        record: dict[str, Any] = {
            "images_seen": self.images_seen,
            "loss": _rounded(self.loss),
            "loss_ema": _rounded(self.loss_ema),
            "grad_norm": _rounded(self.grad_norm),
            "learning_rate": self.learning_rate,
            "images_per_s": _rounded(self.images_per_s),
        }
        if self.by_sigma:
            record["loss_by_sigma"] = [_rounded(v) for v in self.by_sigma]
            record["sigma_bounds"] = [_rounded(v) for v in self.sigma_bounds]
        if self.metrics:
            record["metrics"] = {name: _rounded_each(v) for name, v in self.metrics.items()}
        return record


class Meter:
    """Collects step reports; `take` turns them into one summary and starts again."""

    def __init__(self, *, loss_ema: float | None = None) -> None:
        """Start the clock; the running loss goes on from ``loss_ema`` where there is one."""
        self._reports: list[StepReport] = []
        self._loss_ema = loss_ema
        self._since: float = time.perf_counter()
        self._images: int | None = None

    def add(self, report: StepReport) -> None:
        """Remember a step."""
        if self._images is None:
            self._images = report.images_seen - len(report.indices)
        self._reports.append(report)

    def take_local(self) -> Summary | None:
        """Like `take`, from this process alone; for what only one process does."""
        return self.take(LocalEngine())

    def take(self, engine: Engine) -> Summary | None:
        """Everything since the last time, over all processes; None when there was no step."""
        if not self._reports or self._images is None:
            return None
        reports = self._reports
        loss = _mean([r.loss for r in reports], engine)
        now = time.perf_counter()
        images_per_s = (reports[-1].images_seen - self._images) / max(now - self._since, 1e-9)
        kept = loss if self._loss_ema is None else self._loss_ema
        self._loss_ema = _SMOOTHING * kept + (1 - _SMOOTHING) * loss
        by_sigma, bounds = _quartiles(reports)
        summary = Summary(
            images_seen=reports[-1].images_seen,
            loss=loss,
            loss_ema=self._loss_ema,
            grad_norm=_mean([r.grad_norm for r in reports], engine),
            learning_rate=reports[-1].learning_rate,
            images_per_s=images_per_s,
            by_sigma=by_sigma,
            sigma_bounds=bounds,
            metrics={
                name: _mean_each([r.metrics[name] for r in reports if name in r.metrics], engine)
                for name in reports[-1].metrics
            },
        )
        self._reports, self._since, self._images = [], now, reports[-1].images_seen
        return summary


def _mean(values: Sequence[Tensor], engine: Engine) -> float:
    mean = torch.stack([v.float() for v in values]).mean().reshape(1)
    engine.average([mean])
    return mean.item()


def _mean_each(values: Sequence[Tensor], engine: Engine) -> Metric:
    """The mean of every number of a table."""
    mean = torch.stack([v.float() for v in values]).mean(0)
    flat = mean.reshape(-1)
    engine.average([flat])
    return flat.view(mean.shape).tolist()


def _quartiles(reports: Sequence[StepReport]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean loss of each quarter of this process's pictures, ordered by noise."""
    pairs = [
        (r.sigma, r.per_image) for r in reports if r.sigma is not None and r.per_image is not None
    ]
    if not pairs:
        return (), ()
    sigma = torch.cat([s.float() for s, _ in pairs]).cpu()
    loss = torch.cat([v.float() for _, v in pairs]).cpu()
    if len(sigma) < 4:
        return (), ()
    order = sigma.argsort()
    quarters = loss[order].tensor_split(4)
    bounds = [part[0].item() for part in sigma[order].tensor_split(4)[1:]]
    return tuple(q.mean().item() for q in quarters), tuple(bounds)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _rounded_each(value: Metric) -> Metric:
    if isinstance(value, list):
        return [_rounded_each(item) for item in value]
    return _rounded(value)


def single_numbers(name: str, value: Metric) -> Iterator[tuple[str, float]]:
    """A number under its name, or those of a table under names that say where they stand, counted from 1."""
    if isinstance(value, list):
        for place, item in enumerate(value, start=1):
            yield from single_numbers(f"{name}/{place}", item)
    else:
        yield name, value


__all__ = ["Meter", "Metric", "Summary", "single_numbers"]
