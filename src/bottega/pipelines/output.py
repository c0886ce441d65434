"""Pictures on disk: PNG files that carry what made them, written whole or not at all, and sheets of many pictures."""

import io
import struct
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from bottega.data.decoding import as_seen
from bottega.errors import InputError
from bottega.rundir import check_place, write_atomically
from bottega.shapes import Images

CHUNK = "bottega"
"""The keyword of the PNG text chunk, and the key in a picture's ``info``."""

MAX_METADATA_BYTES = 4 << 20
"""Longer descriptions are neither written nor read."""

MAX_PIXELS = 64_000_000
"""Larger pictures are not opened."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is read of others' pictures. Pillow would read more, and start Ghostscript for a file that holds PostScript."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 100_000
_GAP = 4
_LETTER = 11
_LINE = _LETTER + 2
_CAPTION_LINES = 3
_CAPTION_WIDTH = 96


def to_pictures(images: Images) -> list[Image.Image]:
    """Tensors in [-1, 1] as RGB pictures; values outside are clipped."""
    scaled = ((images.float() + 1) * 127.5).round().clamp(0, 255).byte()
    return [Image.fromarray(np.ascontiguousarray(p.permute(1, 2, 0).cpu())) for p in scaled]


def encode(picture: Image.Image, *, metadata: bool = True) -> bytes:
    """A picture as the bytes of a PNG file, with the description in ``picture.info["bottega"]`` if it has one.

    Args:
        picture: What to encode; not changed.
        metadata: Whether to say what made it.

    Raises:
        InputError: When the description is too long to be read again.
    """
    info = PngInfo()
    text = picture.info.get(CHUNK)
    if metadata and text is not None:
        if len(text) > MAX_METADATA_BYTES:
            raise InputError(
                f"what made this picture takes {len(text):,} bytes to say, more than {MAX_METADATA_BYTES:,}; "
                "paint fewer prompts per sheet, or leave the metadata out"
            )
        info.add_text(CHUNK, text)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def save_picture(picture: Image.Image, path: Path | str, *, metadata: bool = True) -> Path:
    """Write a picture as PNG under its final name only when it is complete.

    Raises:
        InputError: When it cannot be written there.
    """
    path = Path(path)
    data = encode(picture, metadata=metadata)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    return path


def check_writable(path: Path | str) -> Path:
    """Refuse an output that could not be written, before the work of painting it.

    Raises:
        InputError: For a name that does not end in .png, a folder, or a place where no file can be made.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        better = path.with_suffix(".png") if path.name else "picture.png"
        raise InputError(f"pictures are written as PNG; name the output {better}, not {path}")
    return check_place(path)


def read_metadata(path: Path | str) -> str:
    """The description inside a PNG, without decoding the picture or anything compressed.

    Raises:
        InputError: When the file is no PNG, says nothing of bottega, or says more than is sane.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return _find_text(stream, path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _find_text(stream: io.BufferedReader, path: Path) -> str:
    if stream.read(len(_SIGNATURE)) != _SIGNATURE:
        raise InputError(f"{path} is not a PNG file")
    keyword = CHUNK.encode() + b"\0"
    for _ in range(_MAX_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:
            raise InputError(f"{path} is cut short")
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        start = (
            stream.read(min(length, len(keyword))) if kind in (b"tEXt", b"zTXt", b"iTXt") else b""
        )
        if start != keyword:
            stream.seek(length - len(start) + 4, io.SEEK_CUR)
            continue
        if kind != b"tEXt" or length - len(keyword) > MAX_METADATA_BYTES:
            raise InputError(
                f"{path}: what it says of its making is compressed or longer than {MAX_METADATA_BYTES:,} bytes, "
                "which bottega never writes"
            )
        text = stream.read(length - len(keyword))
        if len(text) < length - len(keyword):
            raise InputError(f"{path} is cut short")
        return text.decode("latin-1")
    raise InputError(
        f"{path} does not say how it was made; only pictures with bottega's metadata can be replayed"
    )


def open_picture(path: Path | str) -> Image.Image:
    """Read any picture as a viewer shows it: in RGB, turned as EXIF says, with what is transparent on white.

    Raises:
        InputError: When it cannot be read as a picture, or would unpack to more than is sane.
    """
    return as_seen(_opened(Path(path)))


def open_mask(path: Path | str) -> Image.Image:
    """Read any picture as grey, with its transparency if it has one, or in colour if it has some, turned as EXIF says.

    Raises:
        InputError: When it cannot be read as a picture.
    """
    mask = _opened(Path(path))
    if mask.mode.startswith("I"):  # 16 bits
        return as_seen(mask).convert("L")
    return mask if mask.mode in ("1", "L", "LA") else mask.convert("RGBA")


def _opened(path: Path) -> Image.Image:
    """The first picture of a file, turned as EXIF says."""
    try:
        with _strictly_opened(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise InputError(
                    f"{path} has {opened.width} x {opened.height} pixels, more than {MAX_PIXELS:,}"
                )
            if opened.mode == "F":
                raise InputError(
                    f"{path} has fractions for pixels, whose range is not known; save it with 8 bits per channel"
                )
            return ImageOps.exif_transpose(opened)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"cannot read {path}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"cannot read {path} as a picture: it is a folder") from None
    # Decoders raise whatever they please on damaged files; all of it means the same here.
    except Exception as error:
        raise InputError(f"cannot read {path} as a picture: {error}") from None


def _strictly_opened(path: Path) -> Image.Image:
    """Pillow's warning of a decompression bomb as an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)


def sheet(
    images: Sequence[Image.Image], columns: int | None = None, captions: Sequence[str] | None = None
) -> Image.Image:
    """All pictures on one, in reading order.

    Args:
        images: Of any sizes; each cell is as large as the largest, or as wide as a caption needs, and small ones stand
            in its middle.
        columns: Pictures in a row; by default as square as can be.
        captions: One line of words per picture, wrapped beneath it and cut after three lines.

    Raises:
        InputError: Without pictures, with fewer than one column, or captions that do not match in number.
    """
    if not images:
        raise InputError("a sheet needs at least one picture")
    if columns is not None and columns < 1:
        raise InputError(f"columns must be at least 1, got {columns}")
    if captions is not None and len(captions) != len(images):
        raise InputError(f"expected {len(images)} captions, one per picture, got {len(captions)}")
    across = min(default_columns(len(images)) if columns is None else columns, len(images))
    down = -(-len(images) // across)
    width, height = max(i.width for i in images), max(i.height for i in images)
    if captions is not None:
        width = max(width, _CAPTION_WIDTH)
    words = 0 if captions is None else _CAPTION_LINES * _LINE + 2
    page = Image.new(
        "RGB", (across * (width + _GAP) + _GAP, down * (height + words + _GAP) + _GAP), "white"
    )
    for place, image in enumerate(images):
        left = _GAP + place % across * (width + _GAP)
        top = _GAP + place // across * (height + words + _GAP)
        page.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))
        if captions is not None:
            _write(page, captions[place], (left, top + height + 1), width)
    return page


def default_columns(count: int) -> int:
    """The number of columns that makes a sheet of ``count`` pictures most nearly square."""
    return max(1, int((max(count, 1) - 1) ** 0.5) + 1)


def _write(page: Image.Image, caption: str, corner: tuple[int, int], width: int) -> None:
    letters = max(8, int(width / (_LETTER * 0.52)))
    shown = caption[: (_CAPTION_LINES + 1) * letters]  # a prompt may be very long
    lines = textwrap.wrap(shown, letters, max_lines=_CAPTION_LINES, placeholder=" ...")
    font = ImageFont.load_default(size=_LETTER)
    ImageDraw.Draw(page).multiline_text(corner, "\n".join(lines), "black", font, spacing=1)


__all__ = [
    "CHUNK",
    "FORMATS",
    "MAX_METADATA_BYTES",
    "MAX_PIXELS",
    "check_writable",
    "default_columns",
    "encode",
    "open_mask",
    "open_picture",
    "read_metadata",
    "save_picture",
    "sheet",
    "to_pictures",
]
