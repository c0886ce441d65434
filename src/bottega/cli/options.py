"""Options that several commands share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME|FOLDER",
        help="A shipped model, a model or diffusers folder, or an id of the Hub.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32 or bfloat16.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Change a setting; may be repeated."),
]
Style = Annotated[
    Path | None, typer.Option("--style", metavar="PICTURE", help="Take the style of this picture.")
]

Residency = Annotated[
    str,
    typer.Option("--residency", help="What stays in memory: all, or the active part alone."),
]
LocalFilesOnly = Annotated[
    bool,
    typer.Option("--local-files-only", help="Take an id of the Hub from its cache; fetch nothing."),
]


def names(text: str | None) -> tuple[str, ...] | None:
    """A list separated by commas or plus signs; None stays None.

    Raises:
        InputError: When nothing is named, as by an empty variable of the shell.
    """
    from bottega.errors import InputError

    if text is None:
        return None
    found = tuple(part.strip() for part in text.replace("+", ",").split(",") if part.strip())
    if not found:
        raise InputError(f"expected names with commas between them, got {text!r}")
    return found


def listed(items: Iterable[str] | None) -> list[str]:
    """A repeated option that may be absent."""
    return [] if items is None else list(items)


def check_apart(*places: Path | None) -> None:
    """Refuse two outputs in one place, of which only the later would stay.

    Raises:
        InputError: Naming the place.
    """
    from bottega.errors import InputError

    given = [place for place in places if place is not None]
    for number, place in enumerate(given):
        if place.resolve() in (earlier.resolve() for earlier in given[:number]):
            raise InputError(f"{place} is named for two outputs; each needs a place of its own")


def printable(text: str) -> str:
    """One line that cannot steer a terminal, whatever file its words came from."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


__all__ = [
    "Device",
    "Dtype",
    "LocalFilesOnly",
    "Model",
    "Residency",
    "Settings",
    "Style",
    "check_apart",
    "listed",
    "names",
    "printable",
]
