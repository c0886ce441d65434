"""Pictures wherever they lie: in a folder, or in shards."""

from pathlib import Path

from bottega.data.buckets import Buckets
from bottega.data.decoding import Check
from bottega.data.folders import FolderSource
from bottega.data.shards import ShardSource, is_shards
from bottega.data.stored import StoredSource


def pictures_in(
    place: Path | str,
    size: int,
    *,
    caption_field: str = "text",
    caption: str | None = None,
    check: Check = "pixels",
    buckets: Buckets | None = None,
) -> StoredSource:
    """The pictures of a folder, or of shards where the place is a ``.tar``, ``{00..09}.tar`` or a folder of them.

    ``caption`` is for pictures of a folder that have none, see `FolderSource`; shards hold their captions.

    Raises:
        DataError: When there is nothing, or nothing that can be used.
    """
    if is_shards(place):
        return ShardSource(place, size, caption_field=caption_field, check=check, buckets=buckets)
    return FolderSource(
        place, size, caption_field=caption_field, caption=caption, check=check, buckets=buckets
    )


__all__ = ["pictures_in"]
