"""Pictures that lie in files, in one size or in buckets: what sources of folders and of shards have in common."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch

from bottega.data.batch import Batch
from bottega.data.buckets import Bucket, Buckets, Groups, grouped, one_bucket
from bottega.data.decoding import Shape, fitted, words
from bottega.errors import DataError, InputError

NO_FACTS: Mapping[str, Any] = MappingProxyType({})


class Rejected(NamedTuple):
    """A file that cannot be used, by its path inside the folder or shard, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class FolderReport:
    """What was found in a folder or in shards of pictures.

    ``buckets`` says how many pictures each bucket got, where there are buckets.
    """

    num_usable: int
    rejected: tuple[Rejected, ...]
    buckets: Mapping[Bucket, int] = field(default_factory=dict[Bucket, int])

    def __str__(self) -> str:
        """One line in all, then one per file that cannot be used."""
        lines = [f"{self.num_usable} pictures can be used, {len(self.rejected)} files cannot"]
        return "\n".join([*lines, *(f"  {file}: {reason}" for file, reason in self.rejected)])


def is_writable(text: str) -> bool:
    """Whether a text is Unicode throughout; JSON may hold half a character, which nothing can write or read aloud."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class FolderExample(NamedTuple):
    """One stored picture: its path inside its folder, or shard and key, its caption, and what else was noted of it."""

    file: str
    caption: str
    facts: Mapping[str, Any] = NO_FACTS


class StoredSource(ABC):
    """Batches from picture files: cut to a square, or each whole in its bucket.

    Without buckets the shorter side is resized to ``size`` with antialiasing, and the centre kept. With them a picture
    is resized whole to the bucket nearest its shape, and a batch holds pictures of one bucket only. Transparency is
    laid on white, EXIF rotation is applied, of animations the first frame is taken. ``report`` names every file that
    cannot be used.
    """

    def __init__(
        self,
        place: Path,
        found: Iterable[tuple[FolderExample, Shape]],
        rejected: Sequence[Rejected],
        *,
        size: int,
        buckets: Buckets | None,
    ) -> None:
        """Take what was found, in its order.

        Raises:
            DataError: When nothing of it can be used.
        """
        if size < 1:
            raise InputError(f"pictures are at least 1 pixel wide, got {size}")
        self.place, self.size, self.buckets = place, size, buckets
        faults = list(rejected)
        usable: list[FolderExample] = []
        places: dict[int, Bucket] = {}
        for example, shape in found:
            bucket = Bucket(size, size) if buckets is None else buckets.place(size, *shape)
            if buckets is not None and bucket is None:
                faults.append(Rejected(example.file, _no_bucket(shape, buckets)))
            elif bucket is not None:
                places[len(usable)] = bucket
                usable.append(example)
        self.examples = tuple(usable)
        self._places = places
        self._members = {} if buckets is None else grouped(places)
        shares = {bucket: len(members) for bucket, members in self._members.items()}
        self.report = FolderReport(len(usable), tuple(sorted(faults)), shares)
        if not usable:
            raise DataError(f"{place} holds no picture that can be used: {self.report}")

    @abstractmethod
    def open(self, index: int) -> BufferedIOBase:
        """The bytes of picture ``index``, from the start of its file."""

    @property
    def num_examples(self) -> int:
        """How many pictures can be used."""
        return len(self.examples)

    @functools.cached_property
    def groups(self) -> Groups | None:
        """The pictures of every bucket; None without buckets."""
        return None if self.buckets is None else tuple(self._members.values())

    def bucket(self, index: int) -> Bucket:
        """The size that picture ``index`` has in a batch."""
        return self._places[index]

    def batch(self, indices: Sequence[int]) -> Batch:
        """The pictures at ``indices``, in that order.

        Raises:
            DataError: When a file was damaged or removed since it was looked at.
            InputError: For pictures of several buckets.
        """
        bucket = one_bucket((self._places[i] for i in indices), Bucket(self.size, self.size))
        pictures = np.empty((len(indices), 3, *bucket), np.uint8)
        chosen = tuple(self.examples[i] for i in indices)
        for place, (index, example) in enumerate(zip(indices, chosen, strict=True)):
            try:
                with self.open(index) as file:
                    picture = fitted(file, bucket, crop=self.buckets is None)
            # Decoders raise whatever they please on damaged files; all of it means the same here.
            except Exception as error:
                raise DataError(
                    f"{self.place / example.file} cannot be read: {words(error)}; take it out, or look for all such "
                    "with bottega data inspect"
                ) from error
            pictures[place] = picture.transpose(2, 0, 1)
        return Batch(
            images=torch.from_numpy(pictures),
            captions=tuple(example.caption for example in chosen),
            indices=tuple(indices),
            examples=chosen,
        )


def _no_bucket(shape: Shape, buckets: Buckets) -> str:
    return (
        f"no bucket for {shape.height} x {shape.width} pixels: every one would stretch it by more than "
        f"{buckets.max_stretch:g}"
    )


__all__ = [
    "NO_FACTS",
    "FolderExample",
    "FolderReport",
    "Rejected",
    "StoredSource",
    "is_writable",
]
