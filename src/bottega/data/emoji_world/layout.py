"""Invent scenes: which things, where, how large, on what, in which style."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

from bottega.data.emoji_world.draws import Draws
from bottega.data.emoji_world.held_out import (
    holds_unseen,
    is_held_out_tint,
    is_held_out_triple,
)
from bottega.data.emoji_world.mixture import KINDS, EmojiWorldConfig
from bottega.data.emoji_world.plan import (
    BACKGROUNDS,
    STYLES,
    TINTS,
    PlacedObject,
    PlacedWord,
    Plan,
    Relation,
    RelationName,
    Tint,
)
from bottega.data.emoji_world.vocabulary import Thing, vocabulary
from bottega.errors import ConfigError

Area = tuple[float, float, float, float]
Corner = Literal["top left", "top right", "bottom left", "bottom right"]
WHOLE: Area = (0.0, 0.0, 1.0, 1.0)
PLACES: tuple[RelationName, ...] = ("left of", "right of", "above", "below")
CORNERS: tuple[Corner, ...] = ("top left", "top right", "bottom left", "bottom right")
WORDS = (
    "HELLO", "HI", "YES", "NO", "OPEN", "STOP", "GO", "LOVE", "SALE", "EXIT", "TAXI", "CAFE", "ART", "ZOO",
    "PARTY", "MUSIC", "BOOK", "FREE", "NEW", "HOT", "COLD", "WOW", "OK", "BYE", "JOY", "SUN", "MOON", "RUN",
    "EAT", "PLAY", "HOME", "FUN",
)  # fmt: skip
"""What signs may say."""

_TRIES = 400


class Scenes:
    """Draws plans for one world."""

    def __init__(self, config: EmojiWorldConfig) -> None:
        """Prepare the lists of things that this world chooses from."""
        self.config = config
        self.mixture = config.mixture
        self.things = vocabulary(config.vocabulary, config.num_things)
        self.countable = tuple(t for t in self.things if t.countable)
        if self.mixture.count > 0 and not self.countable:
            raise ConfigError("this vocabulary holds nothing that can be counted")
        most = 4 if self.mixture.several > 0 else 3 if self.mixture.between > 0 else 2
        if len(self.things) < most:
            raise ConfigError(f"scenes of {most} things need as many in the vocabulary")
        if config.split == "held_out" and self.mixture.pair + self.mixture.tint <= 0:
            raise ConfigError("a held-out world needs pairs or tints in its mixture")
        self._colours = tuple(BACKGROUNDS.items())

    def plan(self, draws: Draws) -> Plan:
        """The next scene from a stream of choices, within the world's split."""
        for _ in range(_TRIES):
            plan = self._free(draws) if self.config.split != "held_out" else self._unseen(draws)
            if self.config.split == "all" or holds_unseen(plan) == (
                self.config.split == "held_out"
            ):
                return plan
        raise ConfigError(
            f"no scene of these {len(self.things)} things belongs to split {self.config.split!r}"
        )

    def _free(self, draws: Draws) -> Plan:
        kind = KINDS[draws.weighted(self.mixture.cumulative)]
        return self._compose(kind, draws)

    def _unseen(self, draws: Draws) -> Plan:
        """A scene chosen so that it is likely to state an unseen fact."""
        if self.mixture.tint > 0 and (self.mixture.pair <= 0 or draws.chance(0.25)):
            pairs = _unseen_tints(self.things)
            if pairs:
                tint, thing = draws.pick(pairs)
                plan = self._compose("single", draws)
                dyed = dataclasses.replace(plan.objects[0], thing=thing.name, tint=tint)
                return dataclasses.replace(plan, objects=(dyed,))
        return self._compose("pair", draws)

    def _compose(self, kind: str, draws: Draws) -> Plan:
        objects, relations, word = getattr(self, f"_{kind}")(draws)
        background, middle = draws.pick(self._colours)
        j = self.mixture.shade_jitter
        red, green, blue = (
            min(255, max(0, level + draws.below(2 * j + 1) - j)) for level in middle
        )
        style = STYLES[1 + draws.below(5)] if draws.chance(self.mixture.style) else "plain"
        return Plan(
            objects=objects,
            background=background,
            shade=(red, green, blue),
            relations=relations,
            style=style,
            word=word,
        )

    def _different(self, draws: Draws, count: int) -> list[Thing]:
        chosen: list[Thing] = []
        while len(chosen) < count:
            thing = draws.pick(self.things)
            if thing not in chosen:
                chosen.append(thing)
        return chosen

    def _tint(self, draws: Draws, thing: Thing) -> Tint | None:
        if not draws.chance(self.mixture.tint):
            return None
        tint = draws.pick(TINTS)
        unwanted = self.config.split == "train" and is_held_out_tint(tint, thing.name)
        return None if unwanted else tint

    def _place(
        self,
        draws: Draws,
        thing: Thing,
        area: Area,
        size: float,
        *,
        tint: Tint | None = None,
        size_word: Literal["big", "small"] | None = None,
    ) -> PlacedObject:
        """Put a thing somewhere inside an area, on the lattice."""
        grid = self.mixture.grid
        steps = max(1, round(size * grid))

        def start(low: float, high: float) -> int:
            first = -int(-low * grid // 1)
            room = max(0, int(high * grid + 1e-9) - steps - first)
            used = round(room * self.mixture.freedom)
            step = draws.below(used + 1) if used > 0 else 0
            return min(grid - steps, first + (room - used) // 2 + step)

        left, top = start(area[0], area[2]), start(area[1], area[3])
        return PlacedObject(
            thing=thing.name,
            x=(left + steps / 2) / grid,
            y=(top + steps / 2) / grid,
            size=steps / grid,
            tint=tint,
            size_word=size_word,
        )

    def _put(self, draws: Draws, thing: Thing, area: Area, low: float, high: float) -> PlacedObject:
        middle, used = (low + high) / 2, (high - low) / 2 * self.mixture.freedom
        size = draws.between(middle - used, middle + used)
        return self._place(draws, thing, area, size, tint=self._tint(draws, thing))

    def _single(self, draws: Draws) -> "Scene":
        return (self._put(draws, draws.pick(self.things), WHOLE, 0.55, 0.92),), (), None

    def _pair(self, draws: Draws) -> "Scene":
        relation = draws.pick(PLACES)
        wanted = self.config.split == "held_out"
        first, second = self._different(draws, 2)
        for _ in range(_TRIES if self.config.split != "all" else 0):
            if is_held_out_triple(first.name, relation, second.name) == wanted:
                break
            first, second = self._different(draws, 2)
        areas = _halves(draws, relation, self.mixture.freedom)
        objects = tuple(
            self._put(draws, t, a, 0.38, 0.5) for t, a in zip((first, second), areas, strict=True)
        )
        return objects, (Relation(subject=0, name=relation, others=(1,)),), None

    def _together(self, draws: Draws) -> "Scene":
        things = self._different(draws, 2)
        areas = _halves(draws, draws.pick(PLACES), self.mixture.freedom)
        objects = [self._put(draws, t, a, 0.38, 0.5) for t, a in zip(things, areas, strict=True)]
        return tuple(objects), (), None

    def _count(self, draws: Draws) -> "Scene":
        thing = draws.pick(self.countable)
        areas = draws.pick(_ARRANGEMENTS[2 + draws.below(3)])
        room = min(min(a[2] - a[0], a[3] - a[1]) for a in areas)
        size = room * draws.between(0.82, 1.0)
        tint = self._tint(draws, thing)
        return tuple(self._place(draws, thing, a, size, tint=tint) for a in areas), (), None

    def _between(self, draws: Draws) -> "Scene":
        things = self._different(draws, 3)
        thirds = (0.0, 0.34, 0.66, 1.0)
        across = draws.chance(0.5)
        objects: list[PlacedObject] = []
        for thing, low, high in zip(things, thirds, thirds[1:], strict=False):
            area = (low, 0.2, high, 0.8) if across else (0.2, low, 0.8, high)
            objects.append(self._put(draws, thing, area, 0.27, 0.33))
        return tuple(objects), (Relation(subject=1, name="between", others=(0, 2)),), None

    def _corner(self, draws: Draws) -> "Scene":
        corner = draws.pick(CORNERS)
        top = 0.0 if corner.startswith("top") else 0.5
        left = 0.0 if corner.endswith("left") else 0.5
        thing = draws.pick(self.things)
        placed = self._put(draws, thing, (left, top, left + 0.5, top + 0.5), 0.36, 0.48)
        return (placed,), (Relation(subject=0, name="in the corner", corner=corner),), None

    def _sizes(self, draws: Draws) -> "Scene":
        if draws.chance(0.4):
            thing = draws.pick(self.things)
            size = draws.between(0.25, 0.36)
            return (self._place(draws, thing, WHOLE, size, size_word="small"),), (), None
        large, small = self._different(draws, 2)
        big_first, little_first = (0.0, 0.0, 0.66, 1.0), (0.66, 0.0, 1.0, 1.0)
        if draws.chance(0.5):
            big_first, little_first = (0.34, 0.0, 1.0, 1.0), (0.0, 0.0, 0.34, 1.0)
        big = self._place(draws, large, big_first, draws.between(0.56, 0.64), size_word="big")
        little = self._place(
            draws, small, little_first, draws.between(0.25, 0.31), size_word="small"
        )
        return (big, little), (Relation(subject=0, name="larger than", others=(1,)),), None

    def _several(self, draws: Draws) -> "Scene":
        count = 3 + draws.below(2)
        things = self._different(draws, count)
        upper = 1 + draws.below(2) if count == 3 else 2
        areas = (*_row(upper, 0.0, 0.5), *_row(count - upper, 0.5, 1.0))
        objects = [self._put(draws, t, a, 0.36, 0.46) for t, a in zip(things, areas, strict=True)]
        relations: list[Relation] = []
        if draws.chance(0.5):
            relations = [
                Relation(subject=i, name="above", others=(j,))
                for i in range(upper)
                for j in range(upper, count)
            ]
        return tuple(objects), tuple(relations), None

    def _words(self, draws: Draws) -> "Scene":
        text = draws.pick(WORDS)
        plate = draws.chance(0.6)
        if draws.chance(0.5):
            width = min(0.9, 0.24 * len(text)) * draws.between(0.9, 1.0)
            y = draws.between(0.35, 0.65)
            return (), (), PlacedWord(text=text, x=0.5, y=y, width=width, plate=plate)
        width = min(0.84, 0.2 * len(text))
        above = draws.chance(0.5)
        area = (0.1, 0.36, 0.9, 1.0) if above else (0.1, 0.0, 0.9, 0.64)
        placed = self._put(draws, draws.pick(self.things), area, 0.5, 0.62)
        y = 0.17 if above else 0.83
        return (placed,), (), PlacedWord(text=text, x=0.5, y=y, width=width, plate=plate)


Scene = tuple[tuple[PlacedObject, ...], tuple[Relation, ...], PlacedWord | None]


@functools.lru_cache(maxsize=8)
def _unseen_tints(things: tuple[Thing, ...]) -> tuple[tuple[Tint, Thing], ...]:
    return tuple((c, t) for c in TINTS for t in things if is_held_out_tint(c, t.name))


def _halves(draws: Draws, relation: RelationName, freedom: float) -> tuple[Area, Area]:
    """Two areas side by side that make ``relation`` true of the first; across it they differ little."""
    low = draws.between(0.18 - 0.18 * freedom, 0.18 + 0.18 * freedom)
    high = low + 0.64
    if relation in ("left of", "right of"):
        near, far = (0.0, low, 0.5, high), (0.5, low, 1.0, high)
    else:
        near, far = (low, 0.0, high, 0.5), (low, 0.5, high, 1.0)
    return (near, far) if relation in ("left of", "above") else (far, near)


def _row(count: int, top: float, bottom: float) -> Sequence[Area]:
    if count == 1:
        return ((0.2, top, 0.8, bottom),)
    return ((0.0, top, 0.5, bottom), (0.5, top, 1.0, bottom))


_ARRANGEMENTS: dict[int, tuple[tuple[Area, ...], ...]] = {
    2: (
        ((0.0, 0.2, 0.5, 0.8), (0.5, 0.2, 1.0, 0.8)),
        ((0.2, 0.0, 0.8, 0.5), (0.2, 0.5, 0.8, 1.0)),
        ((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)),
        ((0.5, 0.0, 1.0, 0.5), (0.0, 0.5, 0.5, 1.0)),
    ),
    3: (
        ((0.0, 0.2, 0.34, 0.8), (0.34, 0.2, 0.66, 0.8), (0.66, 0.2, 1.0, 0.8)),
        ((0.25, 0.0, 0.75, 0.5), (0.0, 0.5, 0.5, 1.0), (0.5, 0.5, 1.0, 1.0)),
        ((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5), (0.25, 0.5, 0.75, 1.0)),
    ),
    4: (((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5), (0.0, 0.5, 0.5, 1.0), (0.5, 0.5, 1.0, 1.0)),),
}

__all__ = ["CORNERS", "PLACES", "WORDS", "Scenes"]
