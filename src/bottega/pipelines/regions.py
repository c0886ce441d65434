"""Paint with words, as it is asked for: a phrase of the prompt, and where in the picture it is wanted or not wanted."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bottega.conditioning import Encoders, phrase_tokens
from bottega.errors import InputError
from bottega.models import PlacedPhrase
from bottega.pipelines import given
from bottega.pipelines.masks import StoredMask, store

MAX_MASK_SIDE_PX = 256
"""Masks of regions are kept at most this long: no layer that reads text sees finer ones."""

MAX_REGIONS = 64
"""More regions than this in one picture are taken for a mistake."""

MAX_STRENGTH = 100.0
"""A region is at most this strong; 1 is as strong as the largest logit."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle: where its edges lie, in fractions of the picture from its left and top edge."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            raise InputError(
                "a box is left,top,right,bottom in fractions of the picture, with 0 <= left < right <= 1 and "
                f"0 <= top < bottom <= 1; got {self.left:g},{self.top:g},{self.right:g},{self.bottom:g}"
            )

    def mask(self, height: int, width: int) -> Float[Tensor, "height width"]:
        """How much of every pixel lies inside, exactly."""
        down = _covered(self.top * height, self.bottom * height, height)
        across = _covered(self.left * width, self.right * width, width)
        return down[:, None] * across


def _covered(start: float, end: float, count: int) -> Float[Tensor, " count"]:
    edges = torch.arange(count + 1, dtype=torch.float64)
    covered = edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)
    return covered.clamp(0, 1).float()


Where = (
    Box
    | StoredMask
    | tuple[float | int, ...]
    | list[float | int]
    | Image.Image
    | np.ndarray
    | Tensor
)


@dataclass(frozen=True)
class Region:
    """A phrase of the prompt and where it is wanted.

    Attributes:
        phrase: Words as they stand in the prompt.
        where: A box (left, top, right, bottom) in fractions of the picture, or a mask of the picture's shape at any
            size: a grey picture, white where the phrase is wanted, or numbers from 0 to 1.
        strength: The paper's w'; 0 is nothing, and below 0 the phrase is kept away from there.
        occurrence: Which one is meant, from 0, when the phrase stands in the prompt more than once.

    Raises:
        InputError: For a place outside the picture, a mask that is none, or a strength that makes no sense.
    """

    phrase: str
    where: Where
    strength: float | int = 1.0
    occurrence: int = 0

    def __post_init__(self) -> None:
        given.text(self.phrase, "the phrase of a region")
        strength = given.number(self.strength, f"the strength of {self.phrase!r}")
        object.__setattr__(self, "strength", strength)
        given.whole(self.occurrence, f"the occurrence of {self.phrase!r}")
        object.__setattr__(self, "where", self._place())
        if not abs(self.strength) <= MAX_STRENGTH:
            raise InputError(
                f"the strength of a region is from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}, got {self.strength:g}"
            )

    def _place(self) -> Box | StoredMask:
        where = self.where
        if isinstance(where, (Box, StoredMask)):
            return where
        if isinstance(where, (tuple, list)):
            if len(where) != 4:
                raise InputError(
                    f"a box has four numbers, left,top,right,bottom, got {len(where)} for {self.phrase!r}"
                )
            edges = [given.number(edge, f"an edge of the box of {self.phrase!r}") for edge in where]
            left, top, right, bottom = edges
            return Box(left=left, top=top, right=right, bottom=bottom)
        return store(where, largest_px=MAX_MASK_SIDE_PX, what=f"the mask of {self.phrase!r}")

    @property
    def place(self) -> Box | StoredMask:
        """Where, as it is kept."""
        return cast(Box | StoredMask, self.where)

    def mask(self, height: int, width: int) -> Float[Tensor, "_ _"]:
        """The region as numbers: a box at this size, a mask at its own.

        Raises:
            InputError: For a mask of another shape than the picture's.
        """
        place = self.place
        if isinstance(place, Box):
            return place.mask(height, width)
        if abs(place.width * height / width - place.height) >= 1:
            raise InputError(
                f"the mask of {self.phrase!r} has the shape {place.width} x {place.height}, the picture "
                f"{width} x {height}; a mask has the picture's shape, at any size"
            )
        return place.tensor()


def parse_region(text: str, read_mask: Callable[[Path], Image.Image]) -> Region:
    """Read a region as the command line writes it.

    ``PHRASE@left,top,right,bottom`` is a box, ``PHRASE=mask.png`` a mask. ``*STRENGTH`` may follow either, and ``#2``
    after the phrase means its second occurrence.

    Args:
        text: What was written.
        read_mask: Opens a mask.

    Raises:
        InputError: When it is written otherwise.
    """
    head, separator, tail = _split(text)
    phrase, hash_, number = head.rpartition("#")
    if not hash_:
        phrase, number = head, "1"
    if not (number.isascii() and number.isdigit() and len(number) < 4 and int(number)):
        raise InputError(
            f"region {text!r}: after # stands which occurrence is meant, from 1, got {number!r}"
        )
    place, strength = _strength(text, tail)
    if separator == "=":
        where: Box | Image.Image = read_mask(Path(place))
    else:
        where = _box(text, place)
    return Region(phrase.strip(), where, strength=strength, occurrence=int(number) - 1)


def _split(text: str) -> tuple[str, str, str]:
    places = [(text.find(sign), sign) for sign in "@=" if sign in text]
    phrase, sign, tail = text.partition(min(places)[1]) if places else (text, "", "")
    if not phrase.strip() or not tail.strip():
        raise InputError(
            f"a region is written PHRASE@left,top,right,bottom or PHRASE=mask.png, perhaps with *STRENGTH, got {text!r}"
        )
    return phrase, sign, tail


def _strength(text: str, tail: str) -> tuple[str, float]:
    place, star, number = tail.rpartition("*")
    if not star:
        return tail.strip(), 1.0
    try:
        strength = float(number)
    except ValueError:
        raise InputError(
            f"region {text!r}: after * stands a strength, as in *0.5 or *-1, got {number!r}"
        ) from None
    if not math.isfinite(strength):
        raise InputError(f"region {text!r}: its strength is not finite")
    return place.strip(), strength


def _box(text: str, place: str) -> Box:
    try:
        left, top, right, bottom = (float(part) for part in place.split(","))
    except ValueError:
        raise InputError(
            f"region {text!r}: a box is four numbers, left,top,right,bottom, got {place!r}"
        ) from None
    return Box(left=left, top=top, right=right, bottom=bottom)


Tokens = Mapping[str, tuple[int, ...]]
"""The tokens of a phrase in every text stream."""


def find_tokens(
    prompt: str, regions: Sequence[Region], encoders: Encoders, heard: Sequence[str]
) -> tuple[Tokens, ...]:
    """The tokens of every region's phrase in the text streams that are heard.

    Raises:
        InputError: For a phrase that is not in the prompt, naming the words that are, one that an encoder does not
            read any more, or regions where no text is heard.
    """
    if not regions:
        return ()
    if len(regions) > MAX_REGIONS:
        raise InputError(f"a picture has at most {MAX_REGIONS} regions, got {len(regions)}")
    texts = {name: encoder for name, encoder in encoders.texts.items() if name in heard}
    if not texts:
        raise InputError(
            f"regions need an encoder that reads the prompt; choose from: {', '.join(encoders.texts)}"
        )
    cut = {name: encoder.tokenize([prompt]) for name, encoder in texts.items()}
    return tuple(
        phrase_tokens(prompt, region.phrase, cut, 0, occurrence=region.occurrence)
        for region in regions
    )


def placed(
    regions: Sequence[Region], tokens: Sequence[Tokens], height: int, width: int, factor: float
) -> tuple[PlacedPhrase, ...]:
    """Regions as a network is told of them.

    Args:
        regions: What was asked for.
        tokens: What `find_tokens` found.
        height: Of the picture to paint, in pixels.
        width: Of the picture to paint, in pixels.
        factor: Multiplies every strength.
    """
    return tuple(
        PlacedPhrase(
            tokens=found, mask=region.mask(height, width), strength=region.strength * factor
        )
        for region, found in zip(regions, tokens, strict=True)
    )


__all__ = [
    "MAX_MASK_SIDE_PX",
    "MAX_REGIONS",
    "MAX_STRENGTH",
    "Box",
    "Region",
    "find_tokens",
    "parse_region",
    "placed",
]
