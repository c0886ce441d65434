"""A folder of your own pictures: captions in ``.txt`` files beside them, or in a ``metadata.jsonl``.

The second form is that of Hugging Face's imagefolder: one JSON object a line with ``file_name`` (relative to the
folder) and the caption, by default under ``text``. Where there is a ``metadata.jsonl``, only it is read.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

from bottega.data.batch import Batch
from bottega.errors import DataError, InputError

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Endings of files that are taken for pictures."""
MAX_PIXELS = 64_000_000
"""Pictures that claim more pixels than this are refused before anything is unpacked."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What a picture may be by its contents. Pillow would read more, and start Ghostscript for PostScript."""
_METADATA = "metadata.jsonl"


class Rejected(NamedTuple):
    """A file that cannot be used, by its path inside the folder, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class FolderReport:
    """What was found in a folder of pictures."""

    num_usable: int
    rejected: tuple[Rejected, ...]

    def __str__(self) -> str:
        """One line in all, then one per file that cannot be used."""
        lines = [f"{self.num_usable} pictures can be used, {len(self.rejected)} files cannot"]
        return "\n".join([*lines, *(f"  {file}: {reason}" for file, reason in self.rejected)])


class FolderExample(NamedTuple):
    """One picture of a folder: its path inside the folder and its caption."""

    file: str
    caption: str


class FolderSource:
    """Batches from a folder: shorter side resized to ``size`` with antialiasing, centre kept.

    The order is that of the files' paths. Transparency is laid on white, EXIF rotation is applied, of animations
    the first frame is taken. ``report`` names every file that cannot be used.
    """

    def __init__(
        self,
        folder: Path | str,
        size: int,
        *,
        caption_field: str = "text",
        check: Literal["pixels", "headers"] = "pixels",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Look through a folder.

        Args:
            folder: Where the pictures are, in it or in folders inside it.
            size: Pixels of a batch's pictures.
            caption_field: Under which key ``metadata.jsonl`` holds captions.
            check: "pixels" decodes every picture now, so that damage is found before training; "headers" reads
                only their first bytes, which is quicker on large folders, and meets damage when it comes to it.
            max_pixels: The most pixels a picture may claim.

        Raises:
            DataError: When the folder cannot be read or holds nothing that can be used.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is not a folder")
        if size < 1:
            raise InputError(f"pictures are at least 1 pixel wide, got {size}")
        self.size = size
        rejected: list[Rejected] = []
        found = (
            _listed(self.folder, caption_field, rejected)
            if (self.folder / _METADATA).is_file()
            else _beside(self.folder, rejected)
        )
        usable: list[FolderExample] = []
        for example in found:
            reason = _fault(self.folder / example.file, check == "pixels", max_pixels)
            if reason is None:
                usable.append(example)
            else:
                rejected.append(Rejected(example.file, reason))
        self.examples = tuple(sorted(usable))
        self.report = FolderReport(len(usable), tuple(sorted(rejected)))
        if not usable:
            raise DataError(f"{self.folder} holds no picture that can be used: {self.report}")

    @property
    def num_examples(self) -> int:
        """How many pictures can be used."""
        return len(self.examples)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The pictures at ``indices``, in that order.

        Raises:
            DataError: When a file was damaged or removed since the folder was looked through.
        """
        pictures = np.empty((len(indices), 3, self.size, self.size), np.uint8)
        chosen = tuple(self.examples[i] for i in indices)
        for place, example in enumerate(chosen):
            path = self.folder / example.file
            try:
                pictures[place] = _fitted(path, self.size).transpose(2, 0, 1)
            # Decoders raise whatever they please on damaged files; all of it means the same here.
            except Exception as error:
                raise DataError(f"{path} cannot be read: {_words(error)}") from error
        return Batch(
            images=torch.from_numpy(pictures),
            captions=tuple(example.caption for example in chosen),
            indices=tuple(indices),
            examples=chosen,
        )


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files inside, in order; hidden ones are passed over."""
    paths = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    yield from sorted(p.as_posix() for p in paths if not any(q.startswith(".") for q in p.parts))


def _beside(folder: Path, rejected: list[Rejected]) -> Iterator[FolderExample]:
    """Pictures with a text file of the same name."""
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
            rejected.append(Rejected(file, f"its caption already belongs to {stems[stem]}"))
            continue
        stems[stem] = file
        path = folder / f"{stem}.txt"
        try:
            caption = " ".join(path.read_text(encoding="utf-8-sig").split())
        except FileNotFoundError:
            rejected.append(Rejected(file, f"no caption: {path.name} is missing"))
            continue
        except UnicodeDecodeError:
            rejected.append(Rejected(file, f"{path.name} is not UTF-8 text"))
            continue
        except OSError as error:
            rejected.append(Rejected(file, f"{path.name} cannot be read: {error.strerror}"))
            continue
        if caption:
            yield FolderExample(file, caption)
        else:
            rejected.append(Rejected(file, f"no caption: {path.name} is empty"))
    for file in files:
        if file.lower().endswith(".txt") and str(PurePosixPath(file).with_suffix("")) not in stems:
            rejected.append(Rejected(file, "a caption without a picture"))


def _listed(folder: Path, field: str, rejected: list[Rejected]) -> Iterator[FolderExample]:
    """Pictures that ``metadata.jsonl`` names."""
    seen: set[str] = set()
    text = (folder / _METADATA).read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{_METADATA} line {number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            rejected.append(Rejected(where, "not JSON"))
            continue
        name = row.get("file_name") if isinstance(row, Mapping) else None
        if not isinstance(name, str) or not name:
            rejected.append(Rejected(where, "no file_name"))
            continue
        reason = _listing_fault(folder, name, row.get(field), field, seen)
        seen.add(PurePosixPath(name).as_posix())
        if reason is None:
            yield FolderExample(PurePosixPath(name).as_posix(), " ".join(row[field].split()))
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
    if not (folder / name).is_file():
        return "named but missing"
    if not isinstance(caption, str) or not caption.strip():
        return f"no caption: {field!r} is missing or empty"
    return None


def _fault(path: Path, decode: bool, max_pixels: int) -> str | None:
    """Why a picture cannot be used, or nothing. Its claimed size is judged before anything is unpacked."""
    from PIL import Image

    bomb = f"it claims more than {max_pixels:,} pixels, which could be meant to exhaust the memory"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    return bomb
                if decode:
                    image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return bomb
    # Decoders raise whatever they please on damaged files; all of it means the same here.
    except Exception as error:
        return _words(error)
    return None


def _fitted(path: Path, size: int) -> UInt8[ndarray, "height width 3"]:
    from PIL import Image, ImageOps

    with Image.open(path, formats=FORMATS) as opened:
        opened.draft("RGB", (2 * size, 2 * size))
        upright = ImageOps.exif_transpose(opened)
        image = Image.new("RGB", upright.size, "white")
        if upright.mode.startswith("I"):
            upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
        if upright.has_transparency_data:
            layer = upright.convert("RGBA")
            image.paste(layer, mask=layer)
        else:
            image = upright.convert("RGB")
        fitted = ImageOps.fit(image, (size, size), method=Image.Resampling.LANCZOS)
        return np.asarray(fitted).copy()


def _words(error: Exception) -> str:
    """What went wrong in one line; without the path, which the report already names."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a picture, by its contents"
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


__all__ = [
    "ENDINGS",
    "FORMATS",
    "MAX_PIXELS",
    "FolderExample",
    "FolderReport",
    "FolderSource",
    "Rejected",
]
