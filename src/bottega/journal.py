"""A run's journal: one JSON object per line, in the order of images seen."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Journal:
    """Appends records to a JSON-lines file; a line is either whole or, after a crash, ignored."""

    def __init__(self, path: Path) -> None:
        """Speak for the journal at ``path``; nothing is opened before the first record."""
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record; numbers that are not finite become null, because JSON has no word for them."""
        line = json.dumps(_plain(record), allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as stream:
            stream.write(line + "\n")

    def read(self) -> list[Record]:
        """Every whole record; a line that a crash cut short is left out."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as stream:
            records = [_parse(line) for line in stream]
        return [record for record in records if record is not None]

    def rewind(self, images_seen: int) -> None:
        """Forget what happened after ``images_seen``, since a resumed run will live it again.

        Records are in order, so this only ever shortens the file.
        """
        if not self.path.exists():
            return
        kept_bytes = 0
        with self.path.open("rb") as stream:
            for line in stream:
                record = _parse(line)
                if record is None or record.get("images_seen", 0) > images_seen:
                    break
                kept_bytes += len(line)
        os.truncate(self.path, kept_bytes)


def _parse(line: bytes) -> Record | None:
    """The record of one line; None for a line that a crash cut short."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


__all__ = ["Journal", "Record"]
