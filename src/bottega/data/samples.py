"""Pictures with captions one after the other, wherever they lie, for whoever looks through them once."""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bottega.data.decoding import ENDINGS, MAX_PIXELS, Check, Shape, decoded, probe
from bottega.data.folders import list_folder
from bottega.data.shards import is_shards, list_shards
from bottega.data.stored import FolderExample, Rejected
from bottega.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One picture and its caption.

    ``name`` is its path inside the folder, or its shard and key. ``facts`` is what was noted of it where it lies,
    ``scores`` what was measured since.
    """

    name: str
    caption: str
    shape: Shape
    read: Callable[[], bytes]
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    scores: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def ending(self) -> str:
        """Of its file, as ``.png``."""
        return PurePosixPath(self.name).suffix.lower()

    def picture(self) -> Any:
        """The picture, upright and in RGB, as Pillow has it.

        Raises:
            DataError: When it was damaged or removed since it was looked at.
        """
        try:
            return decoded(io.BytesIO(self.read()))
        # Decoders raise whatever they please on damaged files; all of it means the same here.
        except Exception as error:
            raise DataError(f"{self.name} cannot be read: {error}") from error


def read_samples(
    place: Path | str,
    *,
    caption_field: str = "text",
    check: Check = "pixels",
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Sample | Rejected]:
    """Everything in a folder or in shards: what can be used, in order, and what cannot, with its reason.

    Args:
        place: A folder, a shard, a folder of shards, or ``{00..09}.tar``.
        caption_field: Under which key ``metadata.jsonl`` or a sample's JSON holds captions.
        check: Whether pictures are decoded, so that damage is found here.
        max_pixels: The most pixels a picture may claim.

    Raises:
        DataError: When the place is no folder and no shard.
    """
    if is_shards(place):
        shards = list_shards(place, caption_field)
        yield from shards.rejected
        for example, member in zip(shards.examples, shards.members, strict=True):
            yield _looked_at(example, member.read, check, max_pixels)
        return
    listing = list_folder(Path(place), caption_field)
    yield from listing.rejected
    for example in listing.examples:
        path = Path(place) / example.file
        yield _looked_at(example, path.read_bytes, check, max_pixels)


def _looked_at(
    example: FolderExample, read: Callable[[], bytes], check: Check, max_pixels: int
) -> Sample | Rejected:
    try:
        shape = probe(io.BytesIO(read()), check, max_pixels)
    except OSError as error:
        shape = str(error.strerror)
    if PurePosixPath(example.file).suffix.lower() not in ENDINGS:
        shape = "not a picture, by its ending"
    if isinstance(shape, str):
        return Rejected(example.file, shape)
    return Sample(
        name=example.file, caption=example.caption, shape=shape, read=read, facts=example.facts
    )


__all__ = ["Sample", "read_samples"]
