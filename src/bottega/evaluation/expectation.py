"""What a prompt asks for, in a form that a reading of a picture can be held against.

Places and sizes are shares of the picture's side, with the origin at the top left.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bottega.data.emoji_world.plan import RelationName, Style, Tint
from bottega.errors import ConfigError
from bottega.evaluation.judge import Detection, Reading

COLOURLESS: tuple[Style, ...] = ("ink", "sketch")
"""Styles that do not show what colour a thing was."""

_CLEARLY_LARGER = 1.25


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A thing that must be there: one or more of it, or exactly ``count`` where a number was asked for."""

    thing: str
    count: int | None = None
    tint: Tint | None = None


@dataclass(frozen=True, kw_only=True)
class WantedRelation:
    """``things[subject]`` stands in this relation to ``things[other]``."""

    name: RelationName
    subject: int = 0
    other: int = 1


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """All that a prompt states; None where it states nothing."""

    things: tuple[Wanted, ...] = ()
    relation: WantedRelation | None = None
    background: str | None = None
    style: Style | None = None
    word: str | None = None

    def __post_init__(self) -> None:
        relation = self.relation
        if relation is not None:
            places = (relation.subject, relation.other)
            if len(set(places)) < 2 or not all(0 <= i < len(self.things) for i in places):
                raise ConfigError(
                    f"a relation joins two of the {len(self.things)} wanted things, got {places}"
                )
            if relation.name not in _HOLDS:
                raise ConfigError(
                    f"{relation.name!r} cannot be checked; choose from: {', '.join(_HOLDS)}"
                )


def check(expected: Expectation, reading: Reading) -> dict[str, bool]:
    """Hold a reading against an expectation.

    Returns:
        One entry per claim that the prompt makes, of ``things`` (each wanted thing is there, as often as asked),
        ``tints``, ``relation``, ``background``, ``style`` and ``word``; and always ``nothing_else`` (no other thing,
        and none too often) and ``right`` (every claim of the prompt holds; ``nothing_else`` is not one).

    Source: Ghosh et al. 2023 (arXiv:2310.11513), GenEval; theirs compares boxes found by a detector of photographs.
    """
    claims: dict[str, bool] = {}
    if expected.things:
        claims["things"] = all(_is_there(wanted, reading) for wanted in expected.things)
    if any(wanted.tint is not None for wanted in expected.things):
        claims["tints"] = all(_is_tinted(wanted, reading) for wanted in expected.things)
    if expected.relation is not None:
        claims["relation"] = _stands(expected.relation, expected.things, reading.detections)
    if expected.background is not None:
        claims["background"] = reading.background == expected.background
    if expected.style is not None:
        claims["style"] = reading.style == expected.style
    if expected.word is not None:
        claims["word"] = reading.word == expected.word
    asked = {wanted.thing: wanted.count or 1 for wanted in expected.things}
    surplus = any(number > asked.get(thing, 0) for thing, number in reading.counts().items())
    return claims | {"nothing_else": not surplus, "right": all(claims.values())}


def _is_there(wanted: Wanted, reading: Reading) -> bool:
    number = reading.counts()[wanted.thing]
    return number >= 1 if wanted.count is None else number == wanted.count


def _is_tinted(wanted: Wanted, reading: Reading) -> bool:
    """Whether every one of a thing is dyed as asked; what was to keep its own colours is not asked about."""
    if wanted.tint is None:
        return True
    tints = [d.tint for d in reading.detections if d.thing == wanted.thing]
    return bool(tints) and all(tint == wanted.tint for tint in tints)


def _stands(
    relation: WantedRelation, things: Sequence[Wanted], detections: Sequence[Detection]
) -> bool:
    """Whether the surest detections of two things stand as asked; a thing that is missing stands nowhere."""
    best: dict[str, Detection] = {}
    for detection in detections:
        best.setdefault(detection.thing, detection)
    subject, other = (best.get(things[i].thing) for i in (relation.subject, relation.other))
    if subject is None or other is None:
        return False
    return _HOLDS[relation.name](subject, other)


def _left_of(one: Detection, other: Detection) -> bool:
    """Further left, and by more than it is higher or lower: what stands above is not left of."""
    return other.x > one.x and other.x - one.x >= abs(other.y - one.y)


def _above(one: Detection, other: Detection) -> bool:
    return other.y > one.y and other.y - one.y >= abs(other.x - one.x)


def _larger(one: Detection, other: Detection) -> bool:
    return one.size >= _CLEARLY_LARGER * other.size


_HOLDS: Mapping[str, Callable[[Detection, Detection], bool]] = {
    "left of": _left_of,
    "right of": lambda one, other: _left_of(other, one),
    "above": _above,
    "below": lambda one, other: _above(other, one),
    "larger than": _larger,
}

__all__ = ["COLOURLESS", "Expectation", "Wanted", "WantedRelation", "check"]
