"""The files of an embedding cache: append-only data, and an index whose entries are valid only when complete.

A part is two files. ``part-N.data`` holds float16 features, one entry after the other: the pooled vector, then the
real tokens. ``part-N.index`` holds a fixed-size record per entry: key, offset, tokens, tokens cut off, checksum of the
entry, checksum of the record. Data is written before its record, so a process that is killed leaves at most a torn
record, which readers pass over. Every process writes parts of its own.
"""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bottega.condition import Stream
from bottega.errors import DataError

FORMAT_VERSION = 1
_RECORD = np.dtype(
    [
        ("key", "V16"),
        ("offset", "<u8"),
        ("tokens", "<u4"),
        ("truncated", "<u4"),
        ("entry_crc", "<u4"),
        ("record_crc", "<u4"),
    ]
)
_PART_BYTES = 1 << 30


def text_key(text: str) -> bytes:
    """The 16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, eq=False)
class Entry:
    """One text's features as bytes."""

    key: bytes
    data: bytes
    tokens: int
    truncated: int

    @classmethod
    def of(cls, key: bytes, stream: Stream, row: int, truncated: int) -> "Entry":
        """Pack row ``row`` of a stream: pooled vector, then real tokens, as float16."""
        count = int(stream.mask[row].sum())
        features = [stream.tokens[row, :count].flatten()]
        if stream.pooled is not None:
            features.insert(0, stream.pooled[row])
        packed = torch.cat(features).cpu().to(torch.float16)
        if not bool(packed.isfinite().all()):
            raise DataError("an encoder gave features that are not finite in float16")
        return cls(key, packed.numpy().astype("<f2").tobytes(), count, truncated)


class CacheStore:
    """One encoder's entries on disk."""

    def __init__(
        self, folder: Path, *, max_tokens: int, width: int, pooled_width: int, digest: str
    ) -> None:
        """Open the folder, or begin it."""
        self._folder = folder
        self._max_tokens, self._width, self._pooled = max_tokens, width, pooled_width
        self._places: dict[bytes, tuple[int, int, int, int]] = {}  # part, offset, tokens, checksum
        self._parts: list[_Part] = []
        self._writer: _Writer | None = None
        self.truncated = 0
        self._check_manifest(
            {
                "format_version": FORMAT_VERSION,
                "digest": digest,
                "max_tokens": max_tokens,
                "width": width,
                "pooled_width": pooled_width,
            }
        )
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, data and index."""
        return sum(part.size_bytes for part in self._parts)

    def refresh(self) -> None:
        """Read the records that are new on disk."""
        known = {part.path: part for part in self._parts}
        for index in sorted(self._folder.glob("part-*.index")):
            if index not in known:
                self._parts.append(_Part(index))
        for number, part in enumerate(self._parts):
            for record in part.new_records():
                self._note(number, record)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries; they are on disk, and found by `gather`, when this returns."""
        if self._writer is None or self._writer.written >= _PART_BYTES:
            self._writer = _Writer(self._folder)
        self._writer.append(entries)
        self.refresh()

    def gather(self, keys: Sequence[bytes], dtype: torch.dtype) -> Stream:
        """The entries of ``keys``, padded to the fixed length."""
        tokens = np.zeros((len(keys), self._max_tokens * self._width), np.float16)
        pooled = np.zeros((len(keys), self._pooled), np.float16)
        counts = np.zeros(len(keys), np.int64)
        for row, key in enumerate(keys):
            part, offset, count, crc = self._places[key]
            entry = self._parts[part].read(offset, self._entry_bytes(count))
            if zlib.crc32(entry) != crc:
                raise DataError(
                    f"{self._parts[part].data_path} is damaged at byte {offset}: "
                    f"verify the cache with repair, or delete that folder"
                )
            values = np.frombuffer(entry, "<f2")
            pooled[row] = values[: self._pooled]
            tokens[row, : count * self._width] = values[self._pooled :]
            counts[row] = count
        mask = torch.from_numpy(np.arange(self._max_tokens)[None] < counts[:, None])
        shaped = torch.from_numpy(tokens).view(len(keys), self._max_tokens, self._width)
        return Stream(
            tokens=shaped.to(dtype),
            mask=mask,
            pooled=torch.from_numpy(pooled).to(dtype) if self._pooled else None,
        )

    def verify(self, *, repair: bool) -> int:
        """Count the entries whose bytes do not match their checksum; forget them when asked to."""
        damaged = {
            key
            for key, (part, offset, count, crc) in self._places.items()
            if zlib.crc32(self._parts[part].read(offset, self._entry_bytes(count))) != crc
        }
        if repair and damaged:
            for part in self._parts:
                part.forget(damaged)
            self._places, self._parts, self._writer, self.truncated = {}, [], None, 0
            self.refresh()
        return len(damaged)

    def _entry_bytes(self, tokens: int) -> int:
        return 2 * (self._pooled + tokens * self._width)

    def _note(self, part: int, record: Any) -> None:
        key = bytes(record["key"])
        if key in self._places:  # another process encoded the same text
            return
        tokens = int(record["tokens"])
        self._places[key] = (part, int(record["offset"]), tokens, int(record["entry_crc"]))
        self.truncated += int(record["truncated"] > 0)

    def _check_manifest(self, expected: dict[str, Any]) -> None:
        path = self._folder / "manifest.json"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            _write_atomically(path, (json.dumps(expected, indent=2) + "\n").encode())
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != expected:
            raise DataError(
                f"{path} does not describe this encoder's cache: expected {expected}, got {found}; "
                f"delete the folder to begin it anew"
            )


class _Part:
    """A pair of files, read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data_path = path.with_suffix(".data")
        self._records_read = 0
        self._map = np.zeros(0, np.uint8)

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size + self.data_path.stat().st_size

    def new_records(self) -> Any:
        """Complete records after those read before."""
        with self.path.open("rb") as file:
            file.seek(self._records_read * _RECORD.itemsize)
            raw = file.read()
        raw = raw[: len(raw) - len(raw) % _RECORD.itemsize]
        self._records_read += len(raw) // _RECORD.itemsize
        records = np.frombuffer(raw, _RECORD)
        right = np.array([_record_crc(record) == record["record_crc"] for record in records], bool)
        return records[right]

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the data file; fewer where it is cut off."""
        if offset + length > len(self._map):
            size = self.data_path.stat().st_size
            if size:  # a file may have grown since it was mapped; an empty one cannot be mapped
                self._map = np.memmap(self.data_path, np.uint8, mode="r")
        return self._map[offset : offset + length].tobytes()

    def forget(self, keys: set[bytes]) -> None:
        """Write the index anew without these entries, and without torn records."""
        self._records_read = 0
        kept = b"".join(
            record.tobytes() for record in self.new_records() if bytes(record["key"]) not in keys
        )
        _write_atomically(self.path, kept)


class _Writer:
    """A new pair of files, which this process alone writes."""

    def __init__(self, folder: Path) -> None:
        number = len(list(folder.glob("part-*.index")))
        while True:
            path = folder / f"part-{number:05d}.index"
            with contextlib.suppress(FileExistsError):
                path.touch(exist_ok=False)
                break
            number += 1
        self._index = path
        self._data = path.with_suffix(".data")
        self._data.touch()
        self.written = 0

    def append(self, entries: Sequence[Entry]) -> None:
        records = np.zeros(len(entries), _RECORD)
        for record, entry in zip(records, entries, strict=True):
            record["key"] = np.void(entry.key)
            record["offset"] = self.written
            record["tokens"] = entry.tokens
            record["truncated"] = entry.truncated
            record["entry_crc"] = zlib.crc32(entry.data)
            record["record_crc"] = _record_crc(record)
            self.written += len(entry.data)
        _append(self._data, b"".join(entry.data for entry in entries))
        _append(self._index, records.tobytes())


def _record_crc(record: Any) -> int:
    return zlib.crc32(record.tobytes()[: -_RECORD["record_crc"].itemsize])


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


__all__ = ["FORMAT_VERSION", "CacheStore", "Entry", "text_key"]
