"""Filters through which samples go: each keeps a sample, perhaps changed, or drops it and says why.

Every filter judges each sample alone. It is given several at a time, because networks are faster so.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

from bottega.data.buckets import Buckets
from bottega.data.cleaning import clean_caption
from bottega.data.samples import Sample
from bottega.errors import ConfigError, InputError


class Dropped(NamedTuple):
    """A sample that is not kept: ``reason`` is the same for all that fail alike, ``detail`` is about this one."""

    name: str
    reason: str
    detail: str = ""


Verdicts = list[Sample | Dropped]


@runtime_checkable
class Filter(Protocol):
    """One thing that is asked of samples."""

    def __call__(self, samples: Sequence[Sample]) -> Verdicts:
        """A verdict for each, in their order."""
        ...


@dataclass(frozen=True, kw_only=True)
class CleanCaption:
    """Removes markup, addresses and invisible letters; a caption of fewer words than ``min_words`` is dropped."""

    min_words: int = 1

    def __post_init__(self) -> None:
        if self.min_words < 1:
            raise ConfigError(f"min_words must be at least 1, got {self.min_words}")

    def __call__(self, samples: Sequence[Sample]) -> Verdicts:
        """A verdict for each, in their order."""
        return [self._one(sample) for sample in samples]

    def _one(self, sample: Sample) -> Sample | Dropped:
        caption = clean_caption(sample.caption)
        if len(caption.split()) < self.min_words:
            some = "no word" if self.min_words == 1 else f"fewer than {self.min_words} words"
            return Dropped(sample.name, f"{some} left of the caption", sample.caption[:200])
        return replace(sample, caption=caption)


@dataclass(frozen=True, kw_only=True)
class MinSide:
    """Keeps pictures whose shorter side has at least so many pixels."""

    pixels: int

    def __post_init__(self) -> None:
        if self.pixels < 1:
            raise ConfigError(f"the shorter side must be at least 1 pixel, got {self.pixels}")

    def __call__(self, samples: Sequence[Sample]) -> Verdicts:
        """A verdict for each, in their order."""
        return [
            sample
            if min(sample.shape) >= self.pixels
            else Dropped(sample.name, f"shorter side below {self.pixels} px", _written(sample))
            for sample in samples
        ]


@dataclass(frozen=True, kw_only=True)
class FitsBucket:
    """Keeps pictures that a bucket takes without stretching them too far, and notes which."""

    buckets: Buckets
    size: int

    def __call__(self, samples: Sequence[Sample]) -> Verdicts:
        """A verdict for each, in their order."""
        return [self._one(sample) for sample in samples]

    def _one(self, sample: Sample) -> Sample | Dropped:
        bucket = self.buckets.place(self.size, *sample.shape)
        if bucket is None:
            reason = f"stretched by more than {self.buckets.max_stretch:g} in every bucket"
            return Dropped(sample.name, reason, _written(sample))
        return replace(sample, facts={**sample.facts, "bucket": str(bucket)})


@dataclass(frozen=True, kw_only=True)
class Within:
    """Keeps samples with a number in a range: one that was noted where they lie, or measured by an earlier filter."""

    name: str
    at_least: float = -math.inf
    at_most: float = math.inf

    def __post_init__(self) -> None:
        if not self.at_least <= self.at_most:
            raise ConfigError(
                f"{self.name}: no number is at least {self.at_least:g} and at most {self.at_most:g}"
            )

    def __call__(self, samples: Sequence[Sample]) -> Verdicts:
        """A verdict for each, in their order."""
        return [self.judged(sample, self._number(sample)) for sample in samples]

    def judged(self, sample: Sample, value: float | None) -> Sample | Dropped:
        """The verdict for one, by its number."""
        if value is None or math.isnan(value):
            return Dropped(sample.name, f"no number {self.name}")
        if value < self.at_least:
            return Dropped(sample.name, f"{self.name} below {self.at_least:g}", f"{value:.4g}")
        if value > self.at_most:
            return Dropped(sample.name, f"{self.name} above {self.at_most:g}", f"{value:.4g}")
        return sample

    def _number(self, sample: Sample) -> float | None:
        value = sample.scores.get(self.name, sample.facts.get(self.name))
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        try:
            return float(value)
        except OverflowError:  # JSON's whole numbers know no bounds
            return math.inf if value > 0 else -math.inf


Score = Callable[[Sequence[Sample]], list[float]]
"""What measures samples, each alone."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Measures samples, notes the number, and keeps those whose number is in the range; see `Within`."""

    score: Score
    limits: Within

    def __call__(self, samples: Sequence[Sample]) -> Verdicts:
        """A verdict for each, in their order."""
        name = self.limits.name
        return [
            self.limits.judged(replace(sample, scores={**sample.scores, name: value}), value)
            for sample, value in zip(samples, self.score(samples), strict=True)
        ]


def parse_limit(text: str) -> Within:
    """Read ``pwatermark<=0.5`` or ``similarity>=0.3``.

    Raises:
        InputError: When it is written otherwise.
    """
    found = re.fullmatch(r"\s*([^<>=\s]+)\s*(<=|>=)\s*(\S+)\s*", text)
    try:
        limit = math.nan if found is None else float(found[3])
    except ValueError:
        limit = math.nan
    if found is None or math.isnan(limit):
        raise InputError(f"a limit is written NAME<=NUMBER or NAME>=NUMBER, got {text!r}")
    if found[2] == "<=":
        return Within(name=found[1], at_most=limit)
    return Within(name=found[1], at_least=limit)


def _written(sample: Sample) -> str:
    return f"{sample.shape.height} x {sample.shape.width}"


__all__ = [
    "CleanCaption",
    "Dropped",
    "Filter",
    "FitsBucket",
    "MinSide",
    "Score",
    "Scored",
    "Verdicts",
    "Within",
    "parse_limit",
]
