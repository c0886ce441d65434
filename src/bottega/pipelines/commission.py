"""What the painter is asked for, one commission per picture: checked before anything is painted."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from PIL import Image

from bottega.errors import InputError
from bottega.pipelines.controls import StageControl
from bottega.pipelines.edit import Start, record
from bottega.pipelines.masks import StoredMask
from bottega.pipelines.provenance import Request
from bottega.pipelines.regions import Region
from bottega.pipelines.style import style_digest

T = TypeVar("T")

Regions = Sequence[Region] | Sequence[Sequence[Region]]
"""Regions for every picture, or a list of them for each."""

Styles = Image.Image | Sequence[Image.Image | None]
"""A reference picture for every picture, or one or None for each."""

MAX_MASKS_BYTES = 1 << 20
"""The masks of one picture take at most this much of its description."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Commission:
    """Everything one picture is asked to be: what its file will say, and the pictures that the file only names."""

    request: Request
    style: Image.Image | None
    start: Start | None
    controls: tuple[StageControl, ...] = ()

    @property
    def style_digest(self) -> str | None:
        """A fingerprint of the reference picture."""
        return None if self.style is None else style_digest(self.style)


def commissions(
    prompts: str | Sequence[str],
    *,
    negative: str | Sequence[str | None] | None = None,
    seeds: int | Sequence[int] | None = None,
    regions: Regions | None = None,
    style: Styles | None = None,
    start: Start | None = None,
    controls: tuple[StageControl, ...] = (),
) -> list[Commission]:
    """One commission per prompt; see `Painter.paint`.

    Raises:
        InputError: Without prompts, or for anything that should be one per prompt and is not.
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise InputError(
            "there is nothing to paint: give at least one prompt (an empty one paints freely)"
        )
    count = len(texts)
    negatives: list[str | None] = (
        [negative] * count if negative is None or isinstance(negative, str) else list(negative)
    )
    first = 0 if seeds is None else seeds
    numbers = [first + i for i in range(count)] if isinstance(first, int) else [*first]
    places = _regions(regions, count)
    styles: list[Image.Image | None] = (
        [style] * count if style is None or isinstance(style, Image.Image) else list(style)
    )
    for what, values in (
        ("negative prompts", negatives),
        ("seeds", numbers),
        ("lists of regions", places),
        ("style pictures", styles),
    ):
        if len(values) != count:
            raise InputError(f"expected {count} {what}, one per prompt, got {len(values)}")
    begun = record(start)
    return [
        Commission(
            request=Request(
                prompt=text,
                negative=avoid,
                seed=operator.index(seed),
                regions=where,
                start=begun,
                controls=tuple(control.record for control in controls),
            ),
            style=picture,
            start=start,
            controls=controls,
        )
        for text, avoid, seed, where, picture in zip(
            texts, negatives, numbers, places, styles, strict=True
        )
    ]


def _regions(regions: Regions | None, count: int) -> list[tuple[Region, ...]]:
    given = [] if regions is None else list(regions)
    if all(isinstance(region, Region) for region in given):
        found = [tuple(cast(list[Region], given))] * count
    elif any(isinstance(region, Region) for region in given):
        raise InputError("regions are one list for all pictures, or one list for each, not both")
    else:
        found = [tuple(of_one) for of_one in cast(list[Sequence[Region]], given)]
    for of_one in found:
        masks = [r.place for r in of_one if isinstance(r.place, StoredMask)]
        size = sum(len(mask.data) for mask in masks)
        if size > MAX_MASKS_BYTES:
            raise InputError(
                f"the masks of one picture take {size:,} bytes to write down, more than {MAX_MASKS_BYTES:,}; "
                "use fewer or simpler ones, or boxes"
            )
    return found


__all__ = ["Commission", "Regions", "Styles", "commissions"]
