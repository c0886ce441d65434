"""Which noise an expert denoiser is for: nodes of a tree over probability, what they leave over, or two sigmas.

The tree cuts the noise of *training* into shares of equal probability, so its bounds in sigma are quantiles of whatever
the parent was trained with: a log-normal, or timesteps drawn evenly. Index 0 is the lowest noise.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch

from bottega.diffusion.noise import LogNormal, float32_from
from bottega.diffusion.timesteps import TrainingNoise
from bottega.errors import ConfigError

Interval = tuple[float, float]
"""A share of the training noise: from one probability to another, both in [0, 1]."""

MAX_LEVEL = 20
"""Deeper nodes would hold less than a millionth of the training noise, and are taken for a mistake."""

_SAME = 1e-6
"""Bounds that differ by less than this share are one: no float32 sigma lies between them."""

_PART = re.compile(r"(?P<kind>[a-z]+)\((?P<inside>[^()]*)\)")


@dataclass(frozen=True)
class Node:
    """The ``index``-th of 2^``level`` equal shares of the training noise; ``Node(0, 0)`` is all of it.

    Source: eDiff-I (arXiv:2211.01324), section 4.1, where it is written E with ``level`` above and ``index`` below;
    E^9_511 is the strongest noise of level 9.
    """

    level: int
    index: int

    def __post_init__(self) -> None:
        if not 0 <= self.level <= MAX_LEVEL:
            raise ConfigError(f"the level of a node is 0 to {MAX_LEVEL}, got {self.level}")
        if not 0 <= self.index < 2**self.level:
            raise ConfigError(
                f"level {self.level} has the nodes 0 to {2**self.level - 1}, got {self.index}"
            )

    @classmethod
    def parse(cls, text: str) -> "Node":
        """Read ``9/511``.

        Raises:
            ConfigError: If it is not written so, or there is no such node.
        """
        level, slash, index = text.strip().partition("/")
        if not (slash and level.isdecimal() and index.isdecimal()):
            raise ConfigError(f"a node is written LEVEL/INDEX, like 9/511, got {text!r}")
        return cls(int(level), int(index))

    def __str__(self) -> str:
        return f"{self.level}/{self.index}"

    @property
    def probability(self) -> tuple[Interval, ...]:
        """The share of the training noise that is this node's, as one interval of probability; exact."""
        return ((self.index / 2**self.level, (self.index + 1) / 2**self.level),)

    @property
    def parent(self) -> "Node | None":
        """The node that this one is a half of; None at the root."""
        return None if self.level == 0 else Node(self.level - 1, self.index // 2)

    @property
    def ancestors(self) -> "tuple[Node, ...]":
        """The parent, its parent, and so on up to the root."""
        return () if self.parent is None else (self.parent, *self.parent.ancestors)

    @property
    def children(self) -> "tuple[Node, Node]":
        """The half with less noise and the half with more."""
        return Node(self.level + 1, 2 * self.index), Node(self.level + 1, 2 * self.index + 1)

    def contains(self, other: "Node") -> bool:
        """Whether all of ``other``'s noise is this node's too; a node contains itself."""
        return other == self or self in other.ancestors


@dataclass(frozen=True)
class Complement:
    """All training noise but that of ``nodes``, which are kept in order of rising noise.

    Source: eDiff-I (arXiv:2211.01324), Tables 5 and 6, where -(9, 511) is everything but that leaf.
    """

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.nodes, key=lambda node: node.probability))
        if not ordered:
            raise ConfigError("a complement leaves out at least one node; Node(0, 0) is everything")
        for first, second in pairwise(ordered):
            if first.contains(second) or second.contains(first):
                raise ConfigError(f"a complement leaves out {first} and {second}, which overlap")
        object.__setattr__(self, "nodes", ordered)
        if not self.probability:
            raise ConfigError(f"{self} leaves nothing over")

    @classmethod
    def parse(cls, text: str) -> "Complement":
        """Read ``complement(3/0,9/511)``, with the nodes in any order.

        Raises:
            ConfigError: If it is not written so, or a node is unknown.
        """
        match = _PART.fullmatch(text.strip())
        if match is None or match["kind"] != "complement":
            raise ConfigError(f"a complement is written complement(3/0,9/511), got {text!r}")
        return cls(tuple(Node.parse(node) for node in match["inside"].split(",")))

    def __str__(self) -> str:
        return f"complement({','.join(map(str, self.nodes))})"

    @property
    def probability(self) -> tuple[Interval, ...]:
        """What is left over, as intervals of probability in rising order; exact."""
        inner = [end for node in self.nodes for end in node.probability[0]]
        edges = [0.0, *inner, 1.0]
        return tuple(
            (low, high) for low, high in zip(edges[::2], edges[1::2], strict=True) if low < high
        )


@dataclass(frozen=True)
class Between:
    """The noise from ``sigma_low`` up to but without ``sigma_high``; None is no upper end, and infinity becomes that.

    This is how models with two experts and a boundary say it; sigmas are those of the training noise's own units.
    """

    sigma_low: float = 0.0
    sigma_high: float | None = None

    def __post_init__(self) -> None:
        low, high = float(self.sigma_low), self.sigma_high
        if high is not None:
            high = None if high == math.inf else float(high)
        if not (0 <= low < math.inf and (high is None or low < high)):
            raise ConfigError(
                f"an interval of noise needs 0 <= sigma_low < sigma_high, got {low} and {high}"
            )
        if high is not None and _float32(low) >= _float32(high):
            raise ConfigError(f"no float32 sigma lies between {low} and {high}")
        object.__setattr__(self, "sigma_low", low)
        object.__setattr__(self, "sigma_high", high)

    @classmethod
    def parse(cls, text: str) -> "Between":
        """Read ``between(0,0.9)`` or ``between(0.9,inf)``.

        Raises:
            ConfigError: If it is not written so, or the sigmas do not rise.
        """
        match = _PART.fullmatch(text.strip())
        inside = match["inside"] if match is not None and match["kind"] == "between" else ""
        low, _, high = inside.partition(",")
        try:
            bounds = float(low), float(high)
        except ValueError:
            raise ConfigError(
                f"an interval of noise is written between(0.9,inf), got {text!r}"
            ) from None
        return cls(*bounds)

    def __str__(self) -> str:
        high = "inf" if self.sigma_high is None else f"{self.sigma_high!r}"
        return f"between({self.sigma_low!r},{high})"


Part = Node | Complement | Between
"""The noise that one expert denoiser is for."""


def parse_part(text: str) -> Part:
    """Read a part as it writes itself: ``9/511``, ``complement(3/0,9/511)`` or ``between(0.9,inf)``.

    Raises:
        ConfigError: If it is none of the three.
    """
    plain = text.strip()
    if plain.startswith("complement"):
        return Complement.parse(plain)
    if plain.startswith("between"):
        return Between.parse(plain)
    if "/" in plain:
        return Node.parse(plain)
    raise ConfigError(
        "a part of the noise is written 9/511, complement(3/0,9/511) or between(0.9,inf), "
        f"got {text!r}"
    )


def leftmost(level: int) -> tuple[Node, ...]:
    """The chain from level 1 down to the leaf of lowest noise at ``level``."""
    return tuple(Node(depth, 0) for depth in range(1, level + 1))


def rightmost(level: int) -> tuple[Node, ...]:
    """The chain from level 1 down to the leaf of strongest noise at ``level``."""
    return tuple(Node(depth, 2**depth - 1) for depth in range(1, level + 1))


def sigma_bounds(part: Part, noise: TrainingNoise) -> tuple[Interval, ...]:
    """Where a part's noise begins and ends, as intervals of sigma in rising order; 0 and infinity at the ends.

    Args:
        part: A node, what some nodes leave over, or two sigmas.
        noise: What the parent was trained with.

    Raises:
        ConfigError: When a share of it is so small that none of the parent's timesteps lies in it.
    """
    if isinstance(part, Between):
        return ((part.sigma_low, math.inf if part.sigma_high is None else part.sigma_high),)
    found = [(noise.quantile(low), noise.quantile(high)) for low, high in part.probability]
    bounds = tuple((low, high) for low, high in found if low < high)
    if not bounds:
        raise ConfigError(f"none of the timesteps lies in {part}; choose a node of a lower level")
    return bounds


def probability_intervals(part: Part, noise: TrainingNoise) -> tuple[Interval, ...]:
    """A part's shares of the training noise, as ``LogNormal.sample(intervals=...)`` takes them."""
    if isinstance(part, Between):
        low, high = sigma_bounds(part, noise)[0]
        return ((_share_below(low, noise), _share_below(high, noise)),)
    return part.probability


class Tile(NamedTuple):
    """One interval ``low <= sigma < high`` of a tiling, and which of the parts it belongs to.

    Both bounds are float32 numbers, so that a sigma is routed alike whether it comes as a Python float or in a tensor.
    """

    low: float
    high: float
    part: int


def tiles(parts: Sequence[Part], noise: TrainingNoise) -> tuple[Tile, ...]:
    """Lay the parts side by side from sigma 0 to infinity.

    Returns:
        The intervals in rising order; each begins where the one before ends.

    Raises:
        ConfigError: When some sigma belongs to no part or to two, saying which, or when there are no parts.
    """
    pieces = sorted(
        (low, high, index)
        for index, part in enumerate(parts)
        for low, high in sigma_bounds(part, noise)
    )
    if not pieces:
        raise ConfigError("an ensemble needs at least one part of the noise")
    reached, before = 0.0, -1
    for low, high, index in pieces:
        if not math.isclose(low, reached, rel_tol=_SAME):
            _refuse(parts, reached, before, low, high, index)
        reached, before = high, index
    if reached != math.inf:
        raise ConfigError(f"sigma from {reached:.6g} up belongs to no expert denoiser")
    lows = [_routed_from(low, parts[index]) for low, _, index in pieces]
    return tuple(
        Tile(low, high, index)
        for low, high, (_, _, index) in zip(lows, [*lows[1:], math.inf], pieces, strict=True)
    )


def find_tile(tiling: Sequence[Tile], sigma: float) -> Tile:
    """The tile that a noise level falls into, as a network called with it in float32 would be routed.

    Raises:
        ConfigError: When ``sigma`` is negative or not a number.
    """
    level = _float32(sigma)
    for tile in reversed(tiling):
        if level >= tile.low:
            return tile
    raise ConfigError(f"a noise level is 0 or more, got {sigma}")


def _refuse(
    parts: Sequence[Part], reached: float, before: int, low: float, high: float, index: int
) -> None:
    if low > reached:
        raise ConfigError(f"sigma from {reached:.6g} to {low:.6g} belongs to no expert denoiser")
    raise ConfigError(
        f"sigma from {low:.6g} to {min(high, reached):.6g} belongs to both {parts[before]} and "
        f"{parts[index]}"
    )


def _routed_from(low: float, part: Part) -> float:
    """The smallest float32 sigma that is routed to a part that begins at ``low``.

    A node's own draws never lie below its quantile, so it is rounded up; a sigma that someone wrote down is rounded as
    a tensor would round it, so that a call at exactly that sigma is on its upper side.
    """
    return _float32(low) if isinstance(part, Between) else float32_from(low)


def _share_below(sigma: float, noise: TrainingNoise) -> float:
    """The share of the training noise below ``sigma``, never so large that a draw of it would lie above."""
    if sigma == math.inf:
        return 1.0
    sigma = _float32(sigma)
    share = noise.cdf(sigma)
    while isinstance(noise, LogNormal) and noise.quantile(share) > sigma:
        share = math.nextafter(share, 0.0)
    return share


def _float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


__all__ = [
    "MAX_LEVEL",
    "Between",
    "Complement",
    "Interval",
    "Node",
    "Part",
    "Tile",
    "find_tile",
    "leftmost",
    "parse_part",
    "probability_intervals",
    "rightmost",
    "sigma_bounds",
    "tiles",
]
