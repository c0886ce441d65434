"""What the world can hold: emoji with their English names, in an order that puts the plainest things first."""

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from bottega.errors import ConfigError, nearest

VocabularyName = Literal["core", "full"]


@dataclass(frozen=True)
class Thing:
    """One emoji and how English speaks of it.

    ``article`` is ``a``, ``an`` or ``some``; ``plural`` is empty for what is not counted (bread, scissors).
    ``synonyms`` are other names for exactly this; ``keywords`` are Unicode's loose associations.
    """

    char: str
    name: str
    article: str
    plural: str
    synonyms: tuple[str, ...]
    keywords: tuple[str, ...]

    @property
    def countable(self) -> bool:
        """Whether one can say "three" of it."""
        return self.plural != ""


@functools.cache
def _read() -> tuple[tuple[Thing, ...], int]:
    text = (
        resources.files("bottega.data.emoji_world")
        .joinpath("vocabulary.json")
        .read_text(encoding="utf-8")
    )
    data = json.loads(text)
    things = tuple(
        Thing(char, name, article, plural, tuple(synonyms), tuple(keywords))
        for char, name, article, plural, synonyms, keywords in data["things"]
    )
    return things, data["num_core"]


@functools.cache
def _by_name() -> dict[str, Thing]:
    return {thing.name: thing for thing in _read()[0]}


def vocabulary(name: VocabularyName = "core", num_things: int | None = None) -> tuple[Thing, ...]:
    """The things of a vocabulary, the most iconic first, or only its first ``num_things``.

    Raises:
        ConfigError: When ``num_things`` is not between 2 and the size of the vocabulary.
    """
    things, num_core = _read()
    chosen = things[:num_core] if name == "core" else things
    if num_things is None:
        return chosen
    if not 2 <= num_things <= len(chosen):
        raise ConfigError(
            f"num_things must lie between 2 and {len(chosen)} in the {name} vocabulary, got {num_things}"
        )
    return chosen[:num_things]


def thing_named(name: str) -> Thing:
    """The thing with exactly this name.

    Raises:
        ConfigError: When there is none; the message suggests the nearest.
    """
    thing = _by_name().get(name)
    if thing is None:
        raise ConfigError(f"Emoji World knows no {name!r}{nearest(name, _by_name())}")
    return thing


__all__ = ["Thing", "VocabularyName", "thing_named", "vocabulary"]
