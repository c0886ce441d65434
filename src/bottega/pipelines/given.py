"""What a caller passed in, as what it has to be, or an error that says what that is."""

import operator
from collections.abc import Sequence
from typing import Any, cast

from PIL import Image

from bottega.errors import InputError


def number(value: Any, what: str) -> float:
    """A number of any kind as a float.

    Raises:
        InputError: For anything else, text too.
    """
    if not isinstance(value, (str, bytes)):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    raise InputError(f"{what} is a number, got {shown(value)}")


def whole(value: Any, what: str) -> int:
    """A whole number.

    Raises:
        InputError: For anything else, 2.0 too.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{what} is a whole number, got {shown(value)}") from None


def picture(value: Any, what: str) -> Image.Image:
    """A picture.

    Raises:
        InputError: For anything else, and what to do with a path.
    """
    if isinstance(value, Image.Image):
        return value
    raise InputError(
        f"{what} is a PIL picture, as bottega.pipelines.open_picture(path) gives, got {shown(value)}"
    )


def text(value: Any, what: str) -> str:
    """A text.

    Raises:
        InputError: For anything else.
    """
    if isinstance(value, str):
        return value
    raise InputError(f"{what} is text, got {shown(value)}")


def listed(value: Any, what: str) -> list[Any]:
    """Several of something; text is one of something.

    Raises:
        InputError: For what cannot be gone through.
    """
    try:
        if not isinstance(value, (str, bytes)):
            return list(cast(Sequence[Any], value))
    except TypeError:
        pass
    raise InputError(f"{what} come as a list, got {shown(value)}")


def shown(value: Any) -> str:
    """Numbers and text as they are, and of everything else only what it is."""
    if isinstance(value, (str, int, float, bytes)) or value is None:
        said = repr(value)
        return said if len(said) <= 60 else f"{said[:60]}..."
    return f"a {type(value).__name__}"


__all__ = ["listed", "number", "picture", "shown", "text", "whole"]
