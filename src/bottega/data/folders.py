"""A folder of your own pictures: captions in ``.txt`` files beside them, or in a ``metadata.jsonl``.

The second form is that of Hugging Face's imagefolder: one JSON object a line with ``file_name`` (relative to the
folder) and the caption, by default under ``text``. Where there is a ``metadata.jsonl``, only it is read.
"""

import json
import re
from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from bottega.data.buckets import Buckets
from bottega.data.decoding import ENDINGS, MAX_PIXELS, Check, Shape, probe
from bottega.data.stored import (
    FolderExample,
    FolderReport,
    Rejected,
    StoredSource,
    is_writable,
)
from bottega.errors import DataError

_METADATA = "metadata.jsonl"


class FolderSource(StoredSource):
    """Batches from a folder, in the order of the files' paths; see `StoredSource` for how pictures are made to fit."""

    def __init__(
        self,
        folder: Path | str,
        size: int,
        *,
        caption_field: str = "text",
        caption: str | None = None,
        check: Check = "pixels",
        max_pixels: int = MAX_PIXELS,
        buckets: Buckets | None = None,
    ) -> None:
        """Look through a folder.

        Args:
            folder: Where the pictures are, in it or in folders inside it.
            size: Pixels of a batch's pictures; with buckets, the side of the square that they are scaled to.
            caption_field: Under which key ``metadata.jsonl`` holds captions.
            caption: For pictures without a text file; ``{name}`` in it is the file's name in words.
            check: "pixels" decodes every picture now, so that damage is found before training; "headers" reads
                only their first bytes, which is quicker on large folders, and meets damage when it comes to it.
            max_pixels: The most pixels a picture may claim.
            buckets: Keep pictures whole, each in the bucket nearest its shape.

        Raises:
            DataError: When the folder cannot be read or holds nothing that can be used.
        """
        self.folder = Path(folder)
        listing = list_folder(self.folder, caption_field, caption)
        rejected = list(listing.rejected)
        if rejected and not listing.examples and all(map(_lacks_caption, rejected)):
            raise DataError(
                f"{folder} holds no picture that can be used, for want of captions: write each into a .txt beside its "
                "picture, or give all one (data.caption, in which {name} is the file's name in words)"
            )
        found: list[tuple[FolderExample, Shape]] = []
        for example in listing.examples:
            shape = probe(self.folder / example.file, check, max_pixels)
            if isinstance(shape, str):
                rejected.append(Rejected(example.file, shape))
            else:
                found.append((example, shape))
        super().__init__(self.folder, found, rejected, size=size, buckets=buckets)

    def open(self, index: int) -> BufferedIOBase:
        """The file of picture ``index``."""
        return (self.folder / self.examples[index].file).open("rb")


class Listing(NamedTuple):
    """Pictures with captions, not opened yet, and what is neither."""

    examples: tuple[FolderExample, ...]
    rejected: tuple[Rejected, ...]


def list_folder(folder: Path, caption_field: str = "text", caption: str | None = None) -> Listing:
    """What a folder holds, in the order of the files' paths; ``caption`` is for pictures that have none.

    Raises:
        DataError: When it is no folder.
    """
    if not folder.is_dir():
        shard = "; shards end in .tar, and are not compressed" if folder.is_file() else ""
        raise DataError(f"{folder} is not a folder{shard}")
    rejected: list[Rejected] = []
    found = (
        _listed(folder, caption_field, rejected)
        if (folder / _METADATA).is_file()
        else _beside(folder, rejected, caption)
    )
    examples = sorted(found, key=lambda example: example.file)
    return Listing(tuple(examples), tuple(rejected))


def _lacks_caption(one: Rejected) -> bool:
    return one.reason.startswith("no caption")


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files inside, in order; hidden ones are passed over."""
    paths = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    yield from sorted(p.as_posix() for p in paths if not any(q.startswith(".") for q in p.parts))


def _beside(
    folder: Path, rejected: list[Rejected], template: str | None
) -> Iterator[FolderExample]:
    """Pictures with a text file of the same name, or with what the template makes of their own."""
    files = list(_files(folder))
    stems: dict[str, str] = {}
    for file in files:
        ending = PurePosixPath(file).suffix.lower()
        if ending == ".txt":
            continue
        if ending not in ENDINGS:
            rejected.append(Rejected(file, "not a picture, by its ending"))
            continue
        stem = str(PurePosixPath(file).with_suffix(""))
        if stem in stems:
            rejected.append(Rejected(file, f"no caption of its own: it belongs to {stems[stem]}"))
            continue
        stems[stem] = file
        path = folder / f"{stem}.txt"
        try:
            caption = " ".join(path.read_text(encoding="utf-8-sig").split())
        except FileNotFoundError:
            if template is None:
                rejected.append(Rejected(file, f"no caption: {path.name} is missing"))
            else:
                yield FolderExample(file, _captioned(template, PurePosixPath(file).stem))
            continue
        except UnicodeDecodeError:
            rejected.append(
                Rejected(file, f"its caption cannot be read: {path.name} is not UTF-8 text")
            )
            continue
        except OSError as error:
            rejected.append(
                Rejected(file, f"its caption cannot be read: {path.name}: {error.strerror}")
            )
            continue
        if caption:
            yield FolderExample(file, caption)
        else:
            rejected.append(Rejected(file, f"no caption: {path.name} is empty"))
    for file in files:
        if file.lower().endswith(".txt") and str(PurePosixPath(file).with_suffix("")) not in stems:
            rejected.append(Rejected(file, "a caption without a picture"))


def _captioned(template: str, stem: str) -> str:
    """``a drawing of {name}`` for ``a-red_car`` is: a drawing of a red car."""
    return " ".join(template.replace("{name}", re.sub(r"[-_]+", " ", stem)).split())


def _listed(folder: Path, field: str, rejected: list[Rejected]) -> Iterator[FolderExample]:
    """Pictures that ``metadata.jsonl`` names."""
    seen: set[str] = set()
    text = (folder / _METADATA).read_text(encoding="utf-8-sig", errors="replace")
    # Not splitlines, which also cuts at the line separators of Unicode that a caption may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{_METADATA} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # numbers of thousands of digits too
            rejected.append(Rejected(where, "not JSON"))
            continue
        name = row.get("file_name") if isinstance(row, Mapping) else None
        if not isinstance(name, str) or not name:
            rejected.append(Rejected(where, "no file_name"))
            continue
        reason = _listing_fault(folder, name, row.get(field), field, seen)
        seen.add(PurePosixPath(name).as_posix())
        if reason is None:
            facts = {k: v for k, v in row.items() if k not in ("file_name", field)}
            yield FolderExample(PurePosixPath(name).as_posix(), " ".join(row[field].split()), facts)
        else:
            rejected.append(Rejected(name, reason))
    for file in _files(folder):
        if PurePosixPath(file).suffix.lower() in ENDINGS and file not in seen:
            rejected.append(Rejected(file, f"no caption: {_METADATA} does not name it"))


def _listing_fault(folder: Path, name: str, caption: Any, field: str, seen: set[str]) -> str | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\x00" in name:
        return "its path leads out of the folder"
    if path.as_posix() in seen:
        return f"named twice in {_METADATA}"
    try:
        if not (folder / name).is_file():
            return "named but missing"
    except (OSError, ValueError):  # a name that no file can have
        return "named but missing"
    if not isinstance(caption, str) or not caption.strip():
        return f"no caption: {field!r} is missing or empty"
    return None if is_writable(caption) else "its caption is not Unicode text"


__all__ = ["FolderExample", "FolderReport", "FolderSource", "Listing", "Rejected", "list_folder"]
