"""Pictures in WebDataset's shards: tar files whose members of one name before the first dot belong together.

::

    00000.tar    000.jpg  000.txt  000.json  001.jpg  001.txt  ...

Only pictures, texts and JSON are read, never a pickle. Shards are an index to read from at will, not a stream: which
picture comes when is the training's own order, and a run goes on where it stopped.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from bottega.data.buckets import Buckets
from bottega.data.decoding import ENDINGS, MAX_PIXELS, Check, Shape, probe
from bottega.data.stored import FolderExample, Rejected, StoredSource, is_writable
from bottega.errors import DataError

MAX_PICTURE_BYTES = 256 << 20
"""Larger picture files in a shard are refused."""
MAX_WORDS_BYTES = 1 << 20
"""Larger texts and JSON in a shard are refused."""
ENDING = ".tar"

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 1_000_000


class Member(NamedTuple):
    """Where the bytes of a file lie in a shard."""

    shard: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Those bytes."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def open(self) -> io.BufferedReader:
        """Those bytes as a file, of which only what is asked for is read."""
        return io.BufferedReader(_Window(self))


class _Window(io.RawIOBase):
    """A part of a shard as a file of its own."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self._file = member.shard.open("rb", buffering=0)
        self._first, self._size = member.offset, member.size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._place))
        self._file.seek(self._first + self._place)
        count = self._file.readinto(memoryview(buffer)[:wanted])
        self._place += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class ShardListing(NamedTuple):
    """Pictures with captions, not opened yet, where they lie, and what is neither."""

    examples: tuple[FolderExample, ...]
    members: tuple[Member, ...]
    rejected: tuple[Rejected, ...]


class ShardSource(StoredSource):
    """Batches from shards, in their order; see `StoredSource` for how pictures are made to fit."""

    def __init__(
        self,
        place: Path | str,
        size: int,
        *,
        caption_field: str = "text",
        check: Check = "pixels",
        max_pixels: int = MAX_PIXELS,
        buckets: Buckets | None = None,
    ) -> None:
        """Look through shards.

        Args:
            place: A shard, a folder of them, or ``shards/{00000..00009}.tar``.
            size: Pixels of a batch's pictures; with buckets, the side of the square that they are scaled to.
            caption_field: Under which key JSON holds captions, where there is no text; ``caption`` is looked at too.
            check: Whether to decode every picture now, as for `FolderSource`.
            max_pixels: The most pixels a picture may claim.
            buckets: Keep pictures whole, each in the bucket nearest its shape.

        Raises:
            DataError: When a shard is missing, or there is nothing that can be used.
        """
        listing = list_shards(place, caption_field)
        rejected = list(listing.rejected)
        found: list[tuple[FolderExample, Shape]] = []
        where: dict[str, Member] = {}
        for example, member in zip(listing.examples, listing.members, strict=True):
            with member.open() as file:
                shape = probe(file, check, max_pixels)
            if isinstance(shape, str):
                rejected.append(Rejected(example.file, shape))
            else:
                where[example.file] = member
                found.append((example, shape))
        super().__init__(Path(place), found, rejected, size=size, buckets=buckets)
        self._members_of = [where[example.file] for example in self.examples]

    def open(self, index: int) -> io.BufferedIOBase:
        """The bytes of picture ``index``."""
        return self._members_of[index].open()


def is_shards(place: Path | str) -> bool:
    """Whether a place is meant as shards: its name says so, or it is a folder that holds some at its top."""
    path = Path(place)
    return path.name.endswith(ENDING) or (path.is_dir() and any(path.glob(f"*{ENDING}")))


def find_shards(place: Path | str) -> list[Path]:
    """The shards that a place means, in order.

    Raises:
        DataError: When one is missing.
    """
    path = Path(place)
    if path.is_dir():
        return sorted(path.glob(f"*{ENDING}"))
    braces = _BRACES.search(path.name)
    if braces is None:
        shards = [path]
    else:
        first, last = int(braces[1]), int(braces[2])
        if not first <= last < first + _MOST_SHARDS:
            raise DataError(f"{place}: shards are counted upwards, got {braces[0]}")
        digits = len(braces[1])
        shards = [
            path.with_name(
                f"{path.name[: braces.start()]}{n:0{digits}d}{path.name[braces.end() :]}"
            )
            for n in range(first, last + 1)
        ]
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"there is no shard {shard}")
    return shards


def list_shards(place: Path | str, caption_field: str = "text") -> ShardListing:
    """What shards hold, in their order; nothing is unpacked.

    Raises:
        DataError: When a shard is missing.
    """
    shards = find_shards(place)
    rejected = [Rejected(name, "beside the shards, and in none of them") for name in _loose(place)]
    found: list[tuple[FolderExample, Member]] = []
    names: set[str] = set()
    for shard in shards:
        for sample in _samples(shard, rejected):
            name = f"{shard.name}/{sample.name}"
            example = _example(name, sample, caption_field)
            if isinstance(example, str):
                rejected.append(Rejected(name, example))
            elif example.file in names:
                rejected.append(Rejected(example.file, "another picture of the shard has its name"))
            elif sample.picture is not None:
                names.add(example.file)
                found.append((example, sample.picture[1]))
    examples, members = zip(*found, strict=True) if found else ((), ())
    return ShardListing(tuple(examples), tuple(members), tuple(rejected))


def _loose(place: Path | str) -> list[str]:
    """Pictures that lie in a folder of shards."""
    if not Path(place).is_dir():
        return []
    return sorted(path.name for path in Path(place).iterdir() if path.suffix.lower() in ENDINGS)


@dataclass(kw_only=True)
class _Sample:
    """The members of one name."""

    name: str
    picture: tuple[str, Member] | None = None
    words: dict[str, Member] = field(default_factory=dict[str, Member])
    fault: str | None = None


def _samples(shard: Path, rejected: list[Rejected]) -> Iterator[_Sample]:
    """Members that stand beside each other under one name."""
    sample: _Sample | None = None
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                if not info.isfile():
                    if not info.isdir():
                        rejected.append(Rejected(f"{shard.name}/{info.name}", "not a plain file"))
                    continue
                name, ending = _split(info.name)
                if sample is None or sample.name != name:
                    if sample is not None:
                        yield sample
                    sample = _Sample(name=name)
                _take(sample, ending, Member(shard, info.offset_data, info.size))
    except (tarfile.TarError, OSError, ValueError) as error:
        rejected.append(Rejected(shard.name, f"damaged, or not a tar file: {error}"))
    if sample is not None:
        yield sample


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, ending.lower()


def _take(sample: _Sample, ending: str, member: Member) -> None:
    if f".{ending}" in ENDINGS:
        if sample.picture is not None:
            sample.fault = "two pictures under one name"
        elif member.size > MAX_PICTURE_BYTES:
            sample.fault = f"its picture takes more than {MAX_PICTURE_BYTES:,} bytes"
        sample.picture = (ending, member)
    elif ending in ("txt", "json"):
        if member.size > MAX_WORDS_BYTES:
            sample.fault = f"its {ending} takes more than {MAX_WORDS_BYTES:,} bytes"
        else:
            sample.words[ending] = member


def _example(name: str, sample: _Sample, caption_field: str) -> FolderExample | str:
    """The picture with its caption, or why it has none."""
    if sample.fault is not None:
        return sample.fault
    if sample.picture is None:
        return "no picture under this name"
    facts: Mapping[str, Any] = {}
    try:
        text = sample.words["txt"].read().decode("utf-8-sig") if "txt" in sample.words else None
        if "json" in sample.words:
            facts = json.loads(sample.words["json"].read())
    except UnicodeDecodeError:
        return "its text is not UTF-8"
    except (ValueError, RecursionError):  # numbers of thousands of digits too
        return "its json is not JSON"
    if not isinstance(facts, dict):
        return "its json is not an object"
    for key in (caption_field, "caption"):
        if text is None and isinstance(facts.get(key), str):
            text = facts[key]
    caption = "" if text is None else " ".join(text.split())
    if not caption:
        return "no caption"
    if not is_writable(caption):
        return "its caption is not Unicode text"
    facts = {k: v for k, v in facts.items() if k not in (caption_field, "caption")}
    return FolderExample(f"{name}.{sample.picture[0]}", caption, facts)


__all__ = [
    "Member",
    "ShardListing",
    "ShardSource",
    "find_shards",
    "is_shards",
    "list_shards",
]
