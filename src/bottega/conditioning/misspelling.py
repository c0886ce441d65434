"""Slips of the pen, made on purpose: with them the encoders learn that a misspelt word means something."""

import random
import re

_WORD = re.compile(r"[a-zA-Z]{4,}")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def misspell(text: str, rng: random.Random) -> str:
    """Spoil one word of at least four letters: a letter lost, doubled, replaced, or swapped with its neighbour.

    The first letter stays, as it mostly does when people type. A text without such a word comes back as it was.
    """
    words = list(_WORD.finditer(text))
    if not words:
        return text
    word = rng.choice(words)
    return text[: word.start()] + _spoil(word.group(), rng) + text[word.end() :]


def _spoil(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word))
    slip = rng.randrange(4)
    if slip == 0:
        return word[:at] + word[at + 1 :]
    if slip == 1:
        return word[: at + 1] + word[at:]
    if slip == 2:
        return word[:at] + rng.choice(_LETTERS) + word[at + 1 :]
    at = min(at, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


__all__ = ["misspell"]
