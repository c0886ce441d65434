"""What the painter is asked for, one commission per picture: checked before anything is painted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from PIL import Image

from bottega.errors import InputError, nearest
from bottega.pipelines import given
from bottega.pipelines.controls import StageControl
from bottega.pipelines.edit import FromPicture, Inpaint, Start, record
from bottega.pipelines.masks import StoredMask
from bottega.pipelines.provenance import Request
from bottega.pipelines.regions import Region
from bottega.pipelines.style import style_digest

Regions = Region | Sequence[Region] | Sequence[Sequence[Region]]
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
    texts = [prompts] if isinstance(prompts, str) else given.listed(prompts, "prompts")
    if not texts:
        raise InputError(
            "there is nothing to paint: give at least one prompt (an empty one paints freely)"
        )
    count = len(texts)
    negatives = _each(negative, str, count, "negative prompts")
    first = 0 if seeds is None else seeds
    numbers = (
        [first + i for i in range(count)]
        if isinstance(first, int)
        else given.listed(first, "seeds, when they are no whole number,")
    )
    places = _regions(regions, count)
    styles = _each(style, Image.Image, count, "style pictures")
    for what, values in (
        ("negative prompts", negatives),
        ("seeds", numbers),
        ("lists of regions", places),
        ("style pictures", styles),
    ):
        if len(values) != count:
            raise InputError(f"expected {count} {what}, one per prompt, got {len(values)}")
    begun = record(_start(start))
    return [
        Commission(
            request=Request(
                prompt=given.text(text, "a prompt"),
                negative=None if avoid is None else given.text(avoid, "a negative prompt"),
                seed=given.whole(seed, "a seed"),
                regions=where,
                start=begun,
                controls=tuple(control.record for control in controls),
            ),
            style=None if picture is None else given.picture(picture, "a style picture"),
            start=start,
            controls=controls,
        )
        for text, avoid, seed, where, picture in zip(
            texts, negatives, numbers, places, styles, strict=True
        )
    ]


def heard_streams(encoders: Sequence[str] | None, names: Sequence[str]) -> tuple[str, ...]:
    """The streams that are heard, of those with these ``names``; ``clip`` is both of CLIP's, and None is all.

    Raises:
        InputError: For an encoder that is not among them, naming the nearest.
    """
    if encoders is None:
        return tuple(names)
    asked = encoders.split("+") if isinstance(encoders, str) else given.listed(encoders, "encoders")
    known = {name: (name,) for name in names}
    both = tuple(name for name in names if name.startswith("clip"))
    known |= {"clip": both} if both else {}
    for name in asked:
        if name not in known:
            raise InputError(f"encoder {name!r} is not known here{nearest(str(name), known)}")
    wanted = {stream for name in asked for stream in known[name]}
    return tuple(name for name in names if name in wanted)


def _start(start: Any) -> Start | None:
    if start is None or isinstance(start, (FromPicture, Inpaint)):
        return start
    raise InputError(
        f"start is FromPicture(picture) or Inpaint(picture, mask), got {given.shown(start)}"
    )


def _each(value: Any, kind: type, count: int, what: str) -> list[Any]:
    """One for all, or one for each."""
    if value is None or isinstance(value, kind):
        return [value] * count
    return given.listed(value, what)


def _regions(regions: Regions | None, count: int) -> list[tuple[Region, ...]]:
    listed = (
        []
        if regions is None
        else [regions]
        if isinstance(regions, Region)
        else given.listed(regions, "regions")
    )
    if all(isinstance(region, Region) for region in listed):
        found = [tuple(cast(list[Region], listed))] * count
    elif any(isinstance(region, Region) for region in listed):
        raise InputError("regions are one list for all pictures, or one list for each, not both")
    else:
        found = [tuple(given.listed(of_one, "the regions of a picture")) for of_one in listed]
    for region in (region for of_one in found for region in of_one):
        if not isinstance(region, Region):
            raise InputError(f"a region is Region(phrase, where), got {given.shown(region)}")
    for of_one in found:
        masks = [r.place for r in of_one if isinstance(r.place, StoredMask)]
        size = sum(len(mask.data) for mask in masks)
        if size > MAX_MASKS_BYTES:
            raise InputError(
                f"the masks of one picture take {size:,} bytes to write down, more than {MAX_MASKS_BYTES:,}; "
                "use fewer or simpler ones, or boxes"
            )
    return found


__all__ = ["Commission", "Regions", "Styles", "commissions", "heard_streams"]
