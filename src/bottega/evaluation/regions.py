"""Does what is painted with words stand where it was painted? Random layouts, judged by place."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from bottega.data.emoji_world import (
    PlacedObject,
    Plan,
    Thing,
    describe,
    is_held_out_triple,
)
from bottega.data.emoji_world.draws import Draws
from bottega.errors import InputError
from bottega.evaluation.judge import Reading
from bottega.evaluation.study import Held, Task

_TRIES = 20_000
_SHADE = (142, 144, 148)

Box = tuple[float, float, float, float]
"""Left, top, right and bottom as parts of the picture's side, y downwards."""


@dataclass(frozen=True, kw_only=True)
class LayoutPrompt:
    """Words that say nothing of places, and the place of each thing they name; ``plan`` is a picture of both."""

    text: str
    places: tuple[tuple[str, Box], ...]
    plan: Plan

    @property
    def task(self) -> Task:
        """How a picture of it is judged."""
        return Task(name=self.text, verdict=lambda reading: landed(self.places, reading))


def layout_prompts(
    things: Sequence[Thing], count: int = 500, *, seed: int = 0
) -> list[LayoutPrompt]:
    """Two and three things in turn, in random places that do not overlap, which training never shows together so.

    The first two stand in a relation that is held out of training; the words do not tell it.

    Raises:
        InputError: With fewer than three things, or no prompts asked for.
    """
    if len(things) < 3 or count < 1:
        raise InputError(f"layouts need at least 3 things and 1 prompt, got {len(things)}, {count}")
    draws = Draws(seed, "layouts")
    return [_prompt(things, 2 + number % 2, draws) for number in range(count)]


def landed(places: Sequence[tuple[str, Box]], reading: Reading) -> Held:
    """What became of each thing and its place.

    Returns:
        ``found`` (the judge sees such a thing at all), ``landed`` (the middle of one lies in the thing's box, of all
        things), ``landed of found`` (the same, of those found), and ``all landed`` (of pictures).
    """
    found: list[bool] = []
    inside: list[bool] = []
    for thing, (left, top, right, bottom) in places:
        seen = [d for d in reading.detections if d.thing == thing]
        found.append(bool(seen))
        inside.append(any(left <= d.x <= right and top <= d.y <= bottom for d in seen))
    of_found = [here for here, there in zip(inside, found, strict=True) if there]
    return {
        "found": found,
        "landed": inside,
        "landed of found": of_found,
        "all landed": [all(inside)],
    }


def _prompt(things: Sequence[Thing], number: int, draws: Draws) -> LayoutPrompt:
    boxes = _boxes(number, draws)
    chosen = _things(things, boxes, draws)
    objects = tuple(
        PlacedObject(
            thing=thing.name, x=(b[0] + b[2]) / 2, y=(b[1] + b[3]) / 2, size=(b[2] - b[0]) * 0.96
        )
        for thing, b in zip(chosen, boxes, strict=True)
    )
    plan = Plan(objects=objects, background="grey", shade=_SHADE)
    text = describe(plan).removesuffix(" on a grey background")
    places = tuple((thing.name, box) for thing, box in zip(chosen, boxes, strict=True))
    return LayoutPrompt(text=text, places=places, plan=plan)


def _things(things: Sequence[Thing], boxes: Sequence[Box], draws: Draws) -> list[Thing]:
    relation = _relation(boxes[0], boxes[1])
    chosen: list[Thing] = []
    for _ in range(_TRIES):
        chosen = [draws.pick(things) for _ in boxes]
        names = [thing.name for thing in chosen]
        # One name inside another would make the phrase of a region ambiguous.
        apart = not any(a in b for i, a in enumerate(names) for b in names[:i] + names[i + 1 :])
        if apart and is_held_out_triple(names[0], relation, names[1]):
            return chosen
    raise InputError(f"these {len(things)} things have no relation that training never shows")


def _relation(first: Box, second: Box) -> str:
    across = second[0] + second[2] - first[0] - first[2]
    down = second[1] + second[3] - first[1] - first[3]
    if abs(across) >= abs(down):
        return "left of" if across > 0 else "right of"
    return "above" if down > 0 else "below"


def _boxes(number: int, draws: Draws) -> list[Box]:
    low, high = (0.36, 0.5) if number == 2 else (0.3, 0.4)
    for _ in range(_TRIES):
        boxes: list[Box] = []
        for _ in range(number):
            side = draws.between(low, high)
            left, top = draws.between(0.0, 1 - side), draws.between(0.0, 1 - side)
            boxes.append((left, top, left + side, top + side))
        if not any(_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]):
            return boxes
    raise AssertionError("two or three small boxes always find room")


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def on_another_ground(plan: Plan, seed: int) -> Plan:
    """The same things in the same places on a background that the seed chooses, since the words name none."""
    from bottega.data.emoji_world import BACKGROUNDS

    background, shade = Draws(seed, "ground", describe(plan)).pick(tuple(BACKGROUNDS.items()))
    return dataclasses.replace(plan, background=background, shade=shade)


__all__ = ["Box", "LayoutPrompt", "landed", "layout_prompts", "on_another_ground"]
