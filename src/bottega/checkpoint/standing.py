"""What is left to an expert denoiser once narrower ones have been trained inside its part of the noise."""

import math
from collections.abc import Sequence
from itertools import combinations

from bottega.diffusion import TrainingNoise
from bottega.ensemble import Between, Complement, Interval, Node, Part, sigma_bounds
from bottega.errors import ConfigError

Intervals = tuple[Interval, ...]


def is_within(inner: Part, outer: Part, noise: TrainingNoise) -> bool:
    """Whether all of one part's noise is the other's too, and not all of the other's its own."""
    wide = sigma_bounds(outer, noise)
    narrow = sigma_bounds(inner, noise)
    return not subtract(narrow, wide) and bool(subtract(wide, narrow))


def check_nested(parts: Sequence[Part], noise: TrainingNoise) -> None:
    """Refuse parts that overlap without one being inside the other.

    Raises:
        ConfigError: Naming the two.
    """
    for first, second in combinations(parts, 2):
        one = sigma_bounds(first, noise)
        apart = subtract(one, sigma_bounds(second, noise)) == one
        if not (apart or is_within(first, second, noise) or is_within(second, first, noise)):
            raise ConfigError(
                f"{first} and {second} overlap, and neither lies inside the other: an ensemble of both would not know "
                "who paints"
            )


def remaining_part(part: Part, others: Sequence[Part], noise: TrainingNoise) -> Part | None:
    """What of ``part`` no narrower part among ``others`` covers.

    Returns:
        ``part`` itself when there is none inside it, and None when nothing is left.

    Raises:
        ConfigError: If what is left cannot be said as one part.
    """
    own = sigma_bounds(part, noise)
    inside = [other for other in others if is_within(other, part, noise)]
    if not inside:
        return part
    left = own
    for other in inside:
        left = subtract(left, sigma_bounds(other, noise))
    return None if not left else _said(part, inside, left)


def subtract(wide: Intervals, cut: Intervals) -> Intervals:
    """The intervals of ``wide`` without those of ``cut``; both in rising order."""
    left: list[Interval] = []
    for low, high in wide:
        reached = low
        for cut_low, cut_high in cut:
            if cut_high <= reached or cut_low >= high:
                continue
            if cut_low > reached:
                left.append((reached, cut_low))
            reached = max(reached, cut_high)
        if reached < high:
            left.append((reached, high))
    return tuple(left)


def _said(part: Part, inside: Sequence[Part], left: Intervals) -> Part:
    """The intervals ``left`` as a part: exactly, by nodes, where there are only nodes; else by its two sigmas."""
    narrower = [p for p in inside if not isinstance(p, Between)]
    if not isinstance(part, Between) and len(narrower) == len(inside):
        taken: Intervals = ((0.0, 1.0),)
        for low, high in part.probability:
            taken = subtract(taken, ((low, high),))
        for other in narrower:
            taken = _united(taken, other.probability)
        return Complement(tuple(node for low, high in taken for node in nodes_of(low, high)))
    if len(left) == 1:
        low, high = left[0]
        return Between(low, None if high == math.inf else high)
    raise ConfigError(
        f"what {', '.join(map(str, inside))} leave of {part} lies on both sides of them; train an expert for one side "
        "first"
    )


def _united(first: Intervals, second: Intervals) -> Intervals:
    merged: list[Interval] = []
    for low, high in sorted((*first, *second)):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def nodes_of(low: float, high: float) -> tuple[Node, ...]:
    """The fewest nodes that make up an interval of probability between two multiples of a power of a half."""
    nodes: list[Node] = []
    while low < high:
        level = 0
        while not (low * 2**level).is_integer() or low + 2.0**-level > high:
            level += 1
        nodes.append(Node(level, int(low * 2**level)))
        low += 2.0**-level
    return tuple(nodes)


__all__ = ["check_nested", "is_within", "nodes_of", "remaining_part", "subtract"]
