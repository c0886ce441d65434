"""Captions from the web without what is no caption: addresses, markup, letters that cannot be seen.

Source: RAPHAEL (arXiv:2305.18295), section 4, which removes URLs, HTML tags and e-mail addresses and does not say how.
"""

import html
import re
import unicodedata

_HIDDEN = re.compile(
    r"<(script|style)\b[^<>]{0,2000}>.{0,20000}?</\1\s*>", re.DOTALL | re.IGNORECASE
)
_COMMENT = re.compile(r"<!--.{0,2000}?-->", re.DOTALL)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,2000}>")
_EMAIL = re.compile(r"(?:mailto:)?[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+", re.IGNORECASE)
_URL = re.compile(r"(?:\b(?:https?|ftp)://|\bwww\.)[^\s<>\"()\[\]]+", re.IGNORECASE)
_DOMAIN = re.compile(
    r"\b(?:[a-z0-9-]{1,63}\.){1,8}(?:com|net|org|edu|gov|info|biz|io)\b(?:/[^\s<>\"()\[\]]*)?",
    re.IGNORECASE,
)
_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]|\{\s*\}|\"\s*\"")
_LONELY = re.compile(r"^[\s|,;:/\\\u2013\u2014-]+|[\s|,;:/\\\u2013\u2014-]+$")
_SPACE_BEFORE = re.compile(r"\s+([,.;:!?)\]])")


def clean_caption(text: str) -> str:
    """A caption without HTML tags and entities, URLs, e-mail addresses and invisible letters, on one line.

    What only stood around them goes too: empty brackets, and separators at the ends. Cleaning twice changes nothing.
    """
    while True:
        cleaned = _once(text)
        if cleaned == text:
            return cleaned
        text = cleaned


def _once(text: str) -> str:
    text = html.unescape(text)
    for unwanted in (_HIDDEN, _COMMENT, _TAG, _EMAIL, _URL, _DOMAIN):
        text = unwanted.sub(" ", text)
    text = unicodedata.normalize("NFC", text)
    text = "".join(c if c.isprintable() else " " for c in text)
    text = _EMPTY_BRACKETS.sub(" ", text)
    text = _SPACE_BEFORE.sub(r"\1", " ".join(text.split()))
    return _LONELY.sub("", text)


__all__ = ["clean_caption"]
