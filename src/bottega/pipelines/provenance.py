"""What made a picture, as the JSON text that a PNG carries: enough to make it again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from bottega.config import from_json, to_json
from bottega.errors import ConfigError, InputError
from bottega.pipelines.canvas import Canvas
from bottega.pipelines.controls import ControlRecord, LoraRecord
from bottega.pipelines.edit import StartRecord
from bottega.pipelines.output import CHUNK, MAX_METADATA_BYTES, read_metadata, sheet
from bottega.pipelines.regions import Region
from bottega.pipelines.stage import StageSettings

FORMAT_VERSION = 1
"""The newest description this version reads, and the one it writes."""

RNG_SCHEME = 1
"""Counts the ways in which seeds became noise; it grows when `bottega.seeding` changes what a seed means."""

ENLARGED = "enlarged"
"""The kind of a note that says how another picture was enlarged."""

MAX_PICTURES = 4096
MAX_PROMPT_LETTERS = 1_000_000
_MAX_THREADS = 4096
_FACTS_BYTES = 120  # of a picture beside its prompts
_FRAME_BYTES = 20_000  # of a file beside its pictures


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one picture was asked to be; ``start`` is there when it began with another picture.

    ``controls`` are the control pictures that it followed.
    """

    prompt: str
    negative: str | None = None
    seed: int
    regions: tuple[Region, ...] = ()
    start: StartRecord | None = None
    controls: tuple[ControlRecord, ...] = ()

    def __post_init__(self) -> None:
        for text in (self.prompt, self.negative):
            if text is not None:
                check_text(text)
        if not -(2**63) <= self.seed < 2**63:
            raise InputError(f"a seed is a whole number of at most 63 bits, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class SheetLayout:
    """How the pictures of a sheet are laid out; ``captions`` tells whether prompts are written beneath."""

    columns: int
    captions: bool = False

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise InputError(f"columns must be at least 1, got {self.columns}")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it was painted: what the last bits of a picture depend on."""

    device: str
    dtype: str
    threads: int
    lanes: int
    torch: str
    pillow: str

    def __post_init__(self) -> None:
        if not (1 <= self.threads <= _MAX_THREADS and 1 <= self.lanes <= MAX_PICTURES):
            raise InputError(f"threads and lanes are not sane: {self.threads} and {self.lanes}")


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """The settings a stage was sampled with."""

    name: str
    settings: StageSettings


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything that made a picture, or a sheet of them when ``sheet`` is there.

    ``style`` is the digest of a reference picture, which itself is not kept; ``encoders`` are the streams heard;
    ``canvas`` is there when it is not the square that the model was trained on; ``loras`` were mixed into the model.
    """

    bottega: str
    model: str
    model_digest: str
    requests: tuple[Request, ...]
    stages: tuple[StageRecord, ...]
    encoders: tuple[str, ...]
    machine: Machine
    style: str | None = None
    canvas: Canvas | None = None
    loras: tuple[LoraRecord, ...] = ()
    sheet: SheetLayout | None = None
    rng_scheme: int = RNG_SCHEME
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format_version > FORMAT_VERSION or self.rng_scheme > RNG_SCHEME:
            raise InputError(
                f"it was made by bottega {self.bottega}, whose pictures this version cannot make again; upgrade bottega"
            )
        if not 1 <= len(self.requests) <= MAX_PICTURES:
            raise InputError(f"a file holds 1 to {MAX_PICTURES} pictures, got {len(self.requests)}")
        if self.sheet is None and len(self.requests) > 1:
            raise InputError("several pictures in one file need a sheet")

    def dumps(self) -> str:
        """As compact JSON text in plain ASCII, which any PNG reader can show."""
        return json.dumps(to_json(self), separators=(",", ":"), allow_nan=False)


def parse_provenance(text: str) -> Provenance:
    """Read what `Provenance.dumps` wrote.

    Raises:
        InputError: When it is not that.
    """
    try:
        facts = json.loads(text)
        if isinstance(facts, dict) and facts.get("kind") == ENLARGED:
            raise InputError(
                f"it was enlarged from a picture of SHA-256 {str(facts.get('picture'))[:12]}; replay that one and "
                "enlarge it again"
            )
        return from_json(Provenance, facts, where="its metadata")
    except (ConfigError, InputError) as error:
        raise InputError(str(error)) from None
    except (ValueError, RecursionError, TypeError) as error:
        raise InputError(f"its metadata is not JSON that bottega wrote: {error}") from None


def read_provenance(path: Path | str) -> Provenance:
    """What a PNG file says of its making.

    Raises:
        InputError: When it says nothing, or nothing that makes sense.
    """
    text = read_metadata(path)
    try:
        return parse_provenance(text)
    except InputError as error:
        raise InputError(f"{path} cannot be replayed: {error}") from None


def check_text(text: str) -> None:
    """Refuse a prompt that no encoder could read or no file could keep.

    Raises:
        InputError: For one that is no Unicode text, or longer than a book.
    """
    if len(text) > MAX_PROMPT_LETTERS:
        raise InputError(f"a prompt has at most {MAX_PROMPT_LETTERS:,} letters, got {len(text):,}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("the prompt is not valid Unicode text") from None


def check_describable(
    prompts: Sequence[str],
    negative: str | None = None,
    *,
    regions: Sequence[Region] = (),
    together: bool = False,
) -> None:
    """Refuse prompts whose description no file could hold, before the work of painting them.

    Args:
        prompts: One per picture.
        negative: What all of them keep away from.
        regions: What all of them have.
        together: Whether they go into one file.

    Raises:
        InputError: When they are too long.
    """
    places = len(json.dumps(to_json(regions)))
    sizes = [len(json.dumps([text, negative])) + places + _FACTS_BYTES for text in prompts]
    longest = sum(sizes) if together else max(sizes)
    if longest + _FRAME_BYTES > MAX_METADATA_BYTES:
        raise InputError(
            f"what made one file would take {longest:,} bytes to say, more than {MAX_METADATA_BYTES:,}; "
            "shorten the prompts, paint fewer on a sheet, or leave the metadata out"
        )


def sheet_of(
    pictures: Sequence[Image.Image], *, columns: int, captions: bool = False
) -> Image.Image:
    """Painted pictures on one sheet that knows how to make all of them again.

    Args:
        pictures: As `Painter.paint` gave them, of one painter and one set of settings.
        columns: Pictures in a row.
        captions: Whether to write each prompt beneath its picture.

    Raises:
        InputError: When a picture does not say what made it, or they were made differently.
    """
    if any(CHUNK not in picture.info for picture in pictures):
        raise InputError("a sheet that can be replayed needs pictures that say what made them")
    origins = [parse_provenance(picture.info[CHUNK]) for picture in pictures]
    requests = tuple(request for origin in origins for request in origin.requests)
    merged = [replace(origin, requests=requests[:1]) for origin in origins]
    begun = [(request.start, request.controls) for request in requests]
    if any(o != merged[0] for o in merged) or any(one != begun[0] for one in begun):
        raise InputError("pictures of one sheet must be made by one model with one set of settings")
    prompts = [request.prompt for request in requests] if captions else None
    page = sheet(pictures, columns, prompts)
    layout = SheetLayout(columns=columns, captions=captions)
    page.info[CHUNK] = replace(merged[0], requests=requests, sheet=layout).dumps()
    return page


__all__ = [
    "FORMAT_VERSION",
    "MAX_PICTURES",
    "MAX_PROMPT_LETTERS",
    "RNG_SCHEME",
    "Machine",
    "Provenance",
    "Request",
    "SheetLayout",
    "StageRecord",
    "check_describable",
    "check_text",
    "parse_provenance",
    "read_provenance",
    "sheet_of",
]
