"""From words to tokens: which tokens of a prompt belong to a phrase of it."""

import re
from collections.abc import Mapping, Sequence

from bottega.conditioning.encoders import EncodedText, Span, TokenizedText
from bottega.errors import InputError


def find_phrase(text: str, phrase: str, *, occurrence: int = 0) -> Span:
    """Where ``phrase`` stands in ``text``, as whole words, whatever their case and spacing.

    Args:
        text: The prompt.
        phrase: One or more words of it.
        occurrence: Which one, from 0, when the phrase occurs more than once.

    Raises:
        InputError: When it does not occur (that often); the message names the words there are.
    """
    words = phrase.split()
    if not words:
        raise InputError("a phrase needs at least one word")
    if occurrence < 0:
        raise InputError(f"occurrences are counted from 0, got {occurrence}")
    pattern = r"(?<!\w)" + r"\s+".join(re.escape(word) for word in words) + r"(?!\w)"
    found = list(re.finditer(pattern, text, re.IGNORECASE))
    if not found:
        there = ", ".join(dict.fromkeys(re.findall(r"\w[\w'-]*", text)))
        said = f"; its words are: {there}" if there else ", which has no words"
        raise InputError(f"the phrase {phrase!r} does not occur in the prompt{said}")
    if occurrence >= len(found):
        times = "once" if len(found) == 1 else f"{len(found)} times"
        raise InputError(
            f"the phrase {phrase!r} occurs {times} in the prompt, so there is no number {occurrence + 1} of it"
        )
    return found[occurrence].span()


def tokens_of(span: Span, offsets: Sequence[Span]) -> tuple[int, ...]:
    """The tokens that share a character with ``span``; none when the text was cut off before it."""
    start, end = span
    return tuple(at for at, (first, last) in enumerate(offsets) if first < end and last > start)


def phrase_tokens(
    text: str,
    phrase: str,
    encoded: Mapping[str, EncodedText | TokenizedText],
    row: int,
    *,
    occurrence: int = 0,
) -> dict[str, tuple[int, ...]]:
    """The tokens of a phrase in every text stream.

    Args:
        text: The prompt.
        phrase: Words of it.
        encoded: What `Encoders.encode_texts` gave, or every encoder's `TextEncoder.tokenize`.
        row: The prompt's place in that batch.
        occurrence: Which one, from 0, when the phrase occurs more than once.

    Raises:
        InputError: When the phrase does not occur, or an encoder cut the prompt off before it.
    """
    span = find_phrase(text, phrase, occurrence=occurrence)
    found = {name: tokens_of(span, result.offsets[row]) for name, result in encoded.items()}
    for name, tokens in found.items():
        if not tokens:
            raise InputError(
                f"the phrase {phrase!r} stands behind the last token that {name} reads; put it earlier"
            )
    return found


__all__ = ["find_phrase", "phrase_tokens", "tokens_of"]
