"""What a picture of the world holds: a plan small enough for JSON, from which it can be drawn again."""

from dataclasses import dataclass
from typing import Literal

from bottega.config import Json, from_json, to_json
from bottega.data.emoji_world.vocabulary import thing_named
from bottega.errors import ConfigError, nearest

Style = Literal["plain", "ink", "pixel art", "neon", "watercolour", "sketch"]
STYLES: tuple[Style, ...] = ("plain", "ink", "pixel art", "neon", "watercolour", "sketch")
"""The drawing styles, plain first."""

Tint = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink"]
TINTS: tuple[Tint, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
"""The colours a thing can be dyed in."""

RelationName = Literal[
    "left of", "right of", "above", "below", "between", "in the corner", "larger than"
]

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (246, 246, 246),
    "black": (22, 22, 24),
    "grey": (142, 144, 148),
    "red": (214, 48, 49),
    "orange": (248, 150, 48),
    "yellow": (250, 222, 84),
    "green": (62, 160, 76),
    "blue": (52, 106, 214),
    "purple": (128, 68, 176),
    "pink": (250, 158, 196),
}
"""The ten background colours at their middle shade, RGB from 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class PlacedObject:
    """One thing in a picture.

    ``x`` and ``y`` are the centre, ``size`` the longer side, all as parts of the picture's side (0 to 1, y
    downwards). ``size_word`` is what the caption may say of its size.
    """

    thing: str
    x: float
    y: float
    size: float
    tint: Tint | None = None
    size_word: Literal["big", "small"] | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of its square, as parts of the picture's side."""
        half = self.size / 2
        return self.x - half, self.y - half, self.x + half, self.y + half


@dataclass(frozen=True, kw_only=True)
class PlacedWord:
    """A written word: its centre, the width of its letters as a part of the picture's side, and its plate."""

    text: str
    x: float
    y: float
    width: float
    plate: bool = True


@dataclass(frozen=True, kw_only=True)
class Relation:
    """What the caption states of objects, by their places in the plan: ``subject`` is left of ``others[0]``.

    ``between`` has two others; ``in the corner`` has none, and ``corner`` says which.
    """

    subject: int
    name: RelationName
    others: tuple[int, ...] = ()
    corner: Literal["top left", "top right", "bottom left", "bottom right"] | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole picture. ``shade`` is the exact background colour, near that of ``background``.

    A plan whose objects all are the same thing and that states no relation is a count.
    """

    objects: tuple[PlacedObject, ...]
    background: str
    shade: tuple[int, int, int]
    relations: tuple[Relation, ...] = ()
    style: Style = "plain"
    word: PlacedWord | None = None

    @property
    def is_count(self) -> bool:
        """Whether the picture shows several of one thing."""
        return len(self.objects) > 1 and len({o.thing for o in self.objects}) == 1


def plan_to_json(plan: Plan) -> Json:
    """The plan as plain JSON values; `parse_plan` reads them back to an equal plan."""
    return to_json(plan)


def parse_plan(data: Json) -> Plan:
    """A plan from plain JSON values, checked.

    Raises:
        ConfigError: For an unknown thing, colour or setting, an object that leaves the picture, or a relation
            that names an object that is not there.
    """
    plan = from_json(Plan, data)
    if plan.background not in BACKGROUNDS:
        raise ConfigError(
            f"background {plan.background!r} is not known{nearest(plan.background, BACKGROUNDS)}"
        )
    if not all(0 <= level <= 255 for level in plan.shade):
        raise ConfigError(f"a shade has levels from 0 to 255, got {plan.shade}")
    for placed in plan.objects:
        thing_named(placed.thing)
        left, top, right, bottom = placed.box
        if not (placed.size > 0 and min(left, top) >= -1e-6 and max(right, bottom) <= 1 + 1e-6):
            raise ConfigError(f"the {placed.thing} leaves the picture: {placed.box}")
    for relation in plan.relations:
        wrong = [i for i in (relation.subject, *relation.others) if not 0 <= i < len(plan.objects)]
        if wrong:
            raise ConfigError(
                f"relation {relation.name!r} names object {wrong[0]} of {len(plan.objects)}"
            )
    return plan


__all__ = [
    "BACKGROUNDS",
    "STYLES",
    "TINTS",
    "PlacedObject",
    "PlacedWord",
    "Plan",
    "Relation",
    "RelationName",
    "Style",
    "Tint",
    "parse_plan",
    "plan_to_json",
]
