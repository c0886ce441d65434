"""Sentences that say one word in many ways: what is told apart when paths of experts are classified by their word."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bottega.data.emoji_world import BACKGROUNDS, Thing
from bottega.data.emoji_world.draws import Draws
from bottega.errors import InputError

WordKind = Literal["nouns", "adjectives"]

SIZES = ("big", "large", "huge", "small", "little", "tiny")
"""The world's words for sizes."""

ADJECTIVES = (*BACKGROUNDS, *SIZES)
"""Colours and sizes: all that the world says of how a thing is."""

FRAMES = (
    "{it}",
    "{it} on {ground}",
    "{it} against {ground}",
    "{it}, {other} and {third}",
    "{other} and {it}",
    "{other}, {third} and {it} on {ground}",
    "{it} to the left of {other}",
    "{other} to the right of {it}",
    "{other} left of {it} on {ground}",
    "{it} above {other}",
    "{other} below {it} on {ground}",
    "under {other} there is {it}",
    "{other} with {it} to its left",
    "{other} on the left and {it} on the right",
    "{it} at the top and {other} at the bottom",
    "{it} between {other} and {third}",
    "{it} in the top left corner",
    "{it} larger than {other}",
    "a picture of {it} on {ground}",
    "an ink drawing of {it}",
    "a sketch of {it} and {other}",
    "a watercolour of {it} on {ground}",
    "pixel art of {other} above {it}",
    'the word "hello" with {it} below it',
)
"""What is said around a word. ``it`` is what the word stands in, ``other`` and ``third`` are other things."""

_SLOT = "\x00"


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence, and in it the word (characters ``start`` to ``end``) of class ``label``, in frame ``frame``."""

    text: str
    start: int
    end: int
    label: int
    frame: int


def make_sentences(
    kind: WordKind, words: Sequence[str], things: Sequence[Thing], per_word: int, *, seed: int = 0
) -> list[Sentence]:
    """So many sentences for each word, all frames about equally often; the same for the same seed.

    Args:
        kind: Whether the words are names of things, or stand before them.
        words: What is to be told apart; a word's place is its label.
        things: What else is spoken of, never the word itself.
        per_word: Sentences of each word.
        seed: Chooses everything but the word and the frame.

    Raises:
        InputError: With fewer than two words, no sentences, or fewer than four things to speak of.
    """
    if len(words) < 2 or len(set(words)) < len(words) or per_word < 1 or len(things) < 4:
        raise InputError(
            "sentences need at least 2 different words, 1 sentence of each and 4 things, got "
            f"{len(words)}, {per_word} and {len(things)}"
        )
    sentences: list[Sentence] = []
    for label, word in enumerate(words):
        draws = Draws(seed, "routes", kind, word)
        for number in range(per_word):
            frame = number % len(FRAMES)
            text, start = _said(kind, word, FRAMES[frame], things, draws)
            sentences.append(
                Sentence(text=text, start=start, end=start + len(word), label=label, frame=frame)
            )
    return sentences


def _said(
    kind: WordKind, word: str, frame: str, things: Sequence[Thing], draws: Draws
) -> tuple[str, int]:
    """One sentence, and where the word begins in it."""
    others = [thing for thing in things if thing.name != word]
    first = draws.pick(others)
    second = draws.pick([thing for thing in others if thing is not first])
    third = draws.pick([thing for thing in others if thing not in (first, second)])
    before, after = _around(kind, word, third.name, draws)
    ground = draws.pick(tuple(BACKGROUNDS))
    is_colour = kind == "adjectives" and word in BACKGROUNDS
    if is_colour and "{ground}" in frame and draws.chance(0.5):
        frame = frame.replace("{it}", "{noun}").replace("{ground}", "{it}")
        before, after = f"{_article(word)} ", " background"
    text = frame.format(
        it=_SLOT,
        noun=_phrase(third, draws),
        other=_phrase(first, draws),
        third=_phrase(second, draws),
        ground=f"{_article(ground)} {ground} background",
    )
    start = text.index(_SLOT) + len(before)
    return text.replace(_SLOT, f"{before}{word}{after}"), start


def _around(kind: WordKind, word: str, thing: str, draws: Draws) -> tuple[str, str]:
    """What stands before and after the word in its own phrase."""
    if kind == "adjectives":
        return f"{_article(word)} ", f" {thing}"
    words = _qualities(draws)
    return " ".join([_article(" ".join([*words, word])), *words, ""]), ""


def _phrase(thing: Thing, draws: Draws) -> str:
    words = [*_qualities(draws), thing.name]
    return f"{_article(' '.join(words))} {' '.join(words)}"


def _qualities(draws: Draws) -> list[str]:
    """No word about a thing, one or two."""
    said = [draws.pick(SIZES)] if draws.chance(0.3) else []
    return [*said, draws.pick(tuple(BACKGROUNDS))] if draws.chance(0.4) else said


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" and not words.startswith("uni") else "a"


__all__ = ["ADJECTIVES", "FRAMES", "SIZES", "Sentence", "WordKind", "make_sentences"]
