"""Pictures of several shapes in one training run: each goes whole to the bucket nearest its own shape.

Source: RAPHAEL (arXiv:2305.18295), section 4: nine sizes, one of them per batch, no crop to a fixed size. The paper
does not say what nearest means, nor what becomes of pictures longer than the longest bucket: here it is the ratio of
the sides, and a picture that would be stretched too far is not used.
"""

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from bottega.errors import ConfigError, InputError, nearest

RAPHAEL_SHAPES = (
    "448x832",
    "512x768",
    "512x704",
    "640x640",
    "576x640",
    "640x576",
    "704x512",
    "768x512",
    "832x448",
)
"""The nine of the paper, height before width."""

RAPHAEL_SIDE = 640
"""The side of the paper's square."""


class Bucket(NamedTuple):
    """Pixels down and across."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    def stretch(self, height: int, width: int) -> float:
        """By how much the ratio of a picture's sides changes when it is resized to this; 1 is not at all."""
        ratio = self.height * width / (self.width * height)
        return max(ratio, 1 / ratio)


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Which shapes there are, for squares of ``side``; a run scales them to its own size.

    ``shapes`` are written HEIGHTxWIDTH. Scaled sides are rounded to multiples of ``multiple``, which must be what the
    network can halve as often as it does; shapes that fall together then count once. A picture that no bucket takes
    without stretching one of its sides by more than ``max_stretch`` against the other is left out.
    """

    shapes: tuple[str, ...] = RAPHAEL_SHAPES
    side: int = RAPHAEL_SIDE
    multiple: int = 8
    max_stretch: float = 1.25

    def __post_init__(self) -> None:
        if self.side < 1 or self.multiple < 1:
            raise ConfigError(
                f"buckets.side and buckets.multiple must be positive, got {self.side} and {self.multiple}"
            )
        if not 1 <= self.max_stretch < math.inf:
            raise ConfigError(
                f"buckets.max_stretch must be 1 or more and finite, got {self.max_stretch}"
            )
        if not self.shapes:
            raise ConfigError("buckets.shapes names no bucket; the paper's nine are the default")
        for shape in self.shapes:
            _parsed(shape)

    def check_multiple(self, unit: int) -> None:
        """Refuse sides that a network cannot halve as often as it does.

        Args:
            unit: What its pictures' sides must be multiples of.

        Raises:
            ConfigError: Saying what ``multiple`` must be.
        """
        if self.multiple % unit:
            raise ConfigError(
                f"buckets.multiple must be a multiple of {unit}, by which the network shrinks a picture, got "
                f"{self.multiple}"
            )

    def at(self, size: int) -> tuple[Bucket, ...]:
        """The buckets of a run whose square has ``size`` pixels along each side, wide ones first."""
        return _scaled(self, size)

    def place(self, size: int, height: int, width: int) -> Bucket | None:
        """The bucket of a picture of that shape; None when every one would stretch it too far."""
        found = min(self.at(size), key=lambda bucket: bucket.stretch(height, width))
        return found if found.stretch(height, width) <= self.max_stretch else None


@functools.lru_cache(maxsize=64)
def _scaled(buckets: Buckets, size: int) -> tuple[Bucket, ...]:
    def scaled(side: int) -> int:
        steps = math.floor(side * size / (buckets.side * buckets.multiple) + 0.5)
        return max(1, steps) * buckets.multiple

    found = {Bucket(*map(scaled, _parsed(shape))) for shape in buckets.shapes}
    return tuple(sorted(found, key=lambda bucket: (bucket.height / bucket.width, bucket)))


def find_bucket(name: str, buckets: Sequence[Bucket]) -> Bucket:
    """The bucket that is written so, as ``24x40``.

    Raises:
        InputError: When none is; the message names the nearest.
    """
    known = {str(bucket): bucket for bucket in buckets}
    if name not in known:
        raise InputError(f"bucket {name!r} is not known{nearest(name, known)}")
    return known[name]


def one_bucket(found: Iterable[Bucket], otherwise: Bucket) -> Bucket:
    """The bucket that all pictures of a batch have; ``otherwise`` for a batch of none.

    Raises:
        InputError: When they have several.
    """
    wanted = sorted(set(found))
    if len(wanted) > 1:
        raise InputError(
            f"a batch holds pictures of one bucket, got {' and '.join(map(str, wanted))}; see groups"
        )
    return wanted[0] if wanted else otherwise


def grouped(places: Mapping[int, Bucket]) -> dict[Bucket, tuple[int, ...]]:
    """The indices of every bucket, both in order; ``places`` says which index belongs where."""
    members: dict[Bucket, list[int]] = {}
    for index in sorted(places):
        members.setdefault(places[index], []).append(index)
    return {bucket: tuple(members[bucket]) for bucket in sorted(members)}


Groups = tuple[tuple[int, ...], ...]
"""Indices of a source by what may stand in one batch."""


@runtime_checkable
class Grouped(Protocol):
    """A source that may have pictures of several sizes."""

    @property
    def groups(self) -> Groups | None:
        """Which examples may stand in one batch; None where all may."""
        ...


def groups_of(source: object) -> Groups | None:
    """What a source says of that; one that says nothing has pictures of one size."""
    return source.groups if isinstance(source, Grouped) else None


def _parsed(shape: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", shape)
    if found is None:
        raise ConfigError(f"a bucket is written HEIGHTxWIDTH, as in 512x768, got {shape!r}")
    return int(found[1]), int(found[2])


__all__ = [
    "RAPHAEL_SHAPES",
    "RAPHAEL_SIDE",
    "Bucket",
    "Buckets",
    "Grouped",
    "Groups",
    "find_bucket",
    "grouped",
    "groups_of",
    "one_bucket",
]
