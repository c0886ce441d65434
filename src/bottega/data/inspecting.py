"""What a data set holds, before anyone trains on it: shapes, buckets, captions, and what cannot be used."""

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bottega.data.buckets import Bucket, Buckets
from bottega.data.cleaning import clean_caption
from bottega.data.samples import Sample
from bottega.data.stored import Rejected

_BAR = 40


@dataclass(kw_only=True)
class Inspection:
    """What was found. ``shorter_sides`` and ``words`` have one number per usable picture.

    ``buckets`` are those of a run of ``size`` pixels, ``fitting`` counts pictures in each, ``homeless`` those that
    every bucket would stretch too far, ``smaller`` those that their bucket enlarges. ``unclean`` counts captions that
    cleaning would change, ``repeated`` those that stood before.
    """

    size: int
    buckets: tuple[Bucket, ...]
    rejected: Counter[str] = field(default_factory=Counter[str])
    shorter_sides: list[int] = field(default_factory=list[int])
    fitting: Counter[Bucket] = field(default_factory=Counter[Bucket])
    homeless: int = 0
    smaller: int = 0
    words: list[int] = field(default_factory=list[int])
    unclean: int = 0
    repeated: int = 0
    names: dict[Bucket, list[str]] = field(default_factory=dict[Bucket, list[str]])

    @property
    def usable(self) -> int:
        """Pictures with captions."""
        return len(self.words)

    def facts(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "usable": self.usable,
            "rejected": dict(self.rejected.most_common()),
            "shorter_side": _spread(self.shorter_sides),
            "size": self.size,
            "smaller_than_their_bucket": self.smaller,
            "buckets": {str(bucket): self.fitting[bucket] for bucket in self.buckets},
            "no_bucket": self.homeless,
            "caption_words": _spread(self.words),
            "captions_to_clean": self.unclean,
            "captions_repeated": self.repeated,
        }

    def __str__(self) -> str:
        """A page."""
        facts = self.facts()
        cannot = sum(self.rejected.values())
        lines = [f"{self.usable:,} pictures can be used, {cannot:,} files cannot"]
        lines += [f"{count:>9,}  {reason}" for reason, count in self.rejected.most_common()]
        lines.append(f"shorter side   {_line(facts['shorter_side'])} px")
        words = _line(facts["caption_words"])
        lines.append(
            f"captions       {words} words; {self.unclean:,} to clean, {self.repeated:,} repeated"
        )
        lines.append(
            f"buckets at {self.size} px; {self.smaller:,} pictures are smaller than theirs"
        )
        most = max(self.fitting.values(), default=0)
        for bucket in self.buckets:
            count = self.fitting[bucket]
            bar = "#" * -(-_BAR * count // most) if count else ""
            lines.append(f"  {bucket!s:>9}  {count:>9,}  {bar}".rstrip())
        if self.homeless:
            lines.append(
                f"  {'none':>9}  {self.homeless:>9,}  every bucket would stretch them too far"
            )
        return "\n".join(lines)


def inspect_samples(
    samples: Iterable[Sample | Rejected], buckets: Buckets, size: int
) -> Inspection:
    """Look through samples.

    Args:
        samples: As `read_samples` gives them.
        buckets: Which shapes a run would have.
        size: Of the run's square.
    """
    found = Inspection(size=size, buckets=buckets.at(size))
    captions: set[str] = set()
    for sample in samples:
        if isinstance(sample, Rejected):
            found.rejected[sample.reason.partition(": ")[0].partition(" (")[0]] += 1
            continue
        found.shorter_sides.append(min(sample.shape))
        found.words.append(len(sample.caption.split()))
        found.unclean += clean_caption(sample.caption) != sample.caption
        found.repeated += sample.caption in captions
        captions.add(sample.caption)
        bucket = buckets.place(size, *sample.shape)
        if bucket is None:
            found.homeless += 1
            continue
        found.fitting[bucket] += 1
        found.smaller += sample.shape.height < bucket.height or sample.shape.width < bucket.width
        found.names.setdefault(bucket, []).append(sample.name)
    return found


def _spread(values: list[int]) -> dict[str, int | float]:
    if not values:
        return {}
    return {"least": min(values), "median": statistics.median(values), "most": max(values)}


def _line(spread: dict[str, int | float]) -> str:
    if not spread:
        return "-"
    return f"{spread['least']:g} to {spread['most']:g}, half at most {spread['median']:g}"


__all__ = ["Inspection", "inspect_samples"]
