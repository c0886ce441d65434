"""``bottega data inspect`` and ``bottega data filter``: what a data set holds, and the better part of it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from bottega.cli.options import Device, listed

if TYPE_CHECKING:
    from bottega.data.filters import Filter

T = TypeVar("T")

Place = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER|SHARDS", help="A folder, a .tar, a folder of them, or {00..09}.tar."
    ),
]
CaptionField = Annotated[
    str, typer.Option("--caption-field", help="Where metadata.jsonl or JSON holds captions.")
]
Side = Annotated[int, typer.Option("--size", help="The side of a run's square, for buckets.")]
Multiple = Annotated[
    int, typer.Option("--multiple", help="What the sides of buckets are multiples of.")
]


def inspect_data(
    place: Place,
    size: Side = 512,
    multiple: Multiple = 8,
    bucket: Annotated[
        str | None,
        typer.Option("--bucket", metavar="HEIGHTxWIDTH", help="List the pictures of this one."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    caption_field: CaptionField = "text",
) -> None:
    """Say what a data set holds: shapes and buckets, captions, and what cannot be used."""
    from bottega.data.buckets import Buckets, find_bucket
    from bottega.data.inspecting import inspect_samples
    from bottega.data.samples import read_samples

    buckets = Buckets(multiple=multiple)
    check_size(size)
    wanted = None if bucket is None else find_bucket(bucket, buckets.at(size))
    samples = read_samples(place, caption_field=caption_field)
    found = inspect_samples(_counted(samples, "inspecting"), buckets, size)
    if wanted is not None:
        for name in found.names.get(wanted, []):
            typer.echo(name)
    else:
        typer.echo(json.dumps(found.facts(), indent=2) if as_json else str(found))


def filter_data(
    place: Place,
    target: Annotated[
        Path | None, typer.Argument(metavar="TARGET", help="The data set to make.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report, and write nothing.")] = False,
    shards: Annotated[
        int | None,
        typer.Option("--shards", metavar="N", help="Write shards of N pictures, not a folder."),
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean/--no-clean", help="Clean captions of markup and addresses.")
    ] = True,
    min_words: Annotated[int, typer.Option("--min-words", help="Words left of a caption.")] = 1,
    min_side: Annotated[
        int | None, typer.Option("--min-side", metavar="PX", help="The shorter side at least.")
    ] = None,
    buckets: Annotated[
        bool, typer.Option("--buckets", help="Drop what no bucket takes without stretching it.")
    ] = False,
    size: Annotated[
        int | None, typer.Option("--size", help="For --buckets: the side of a run's square; 512.")
    ] = None,
    multiple: Annotated[
        int | None,
        typer.Option("--multiple", help="For --buckets: what their sides are multiples of; 8."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit", metavar="NAME<=NUMBER", help="Of a number noted with each picture, or >=."
        ),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option("--clip", metavar="FOLDER", help="A CLIP, or a model that has one."),
    ] = None,
    min_clip_score: Annotated[
        float | None, typer.Option("--min-clip-score", help="Cosine of picture and caption.")
    ] = None,
    aesthetic: Annotated[
        Path | None, typer.Option("--aesthetic", metavar="HEAD", help="Safetensors.")
    ] = None,
    min_aesthetic: Annotated[
        float | None, typer.Option("--min-aesthetic", help="By --aesthetic; RAPHAEL's is 4.7.")
    ] = None,
    watermark: Annotated[
        Path | None, typer.Option("--watermark", metavar="HEAD", help="Safetensors.")
    ] = None,
    max_watermark: Annotated[
        float | None, typer.Option("--max-watermark", help="Likelihood by --watermark; 0.5.")
    ] = None,
    caption_field: CaptionField = "text",
    device: Device = "auto",
) -> None:
    """Write the better part of a data set as a new one, and count by reason what was left out.

    Filters are asked in this order: captions, sizes, buckets, limits, aesthetic, watermark, CLIP score.
    """
    from bottega.data.buckets import Buckets
    from bottega.data.filtering import check_target, filter_pictures
    from bottega.data.filters import CleanCaption, FitsBucket, MinSide, parse_limit
    from bottega.data.samples import read_samples
    from bottega.errors import InputError

    if dry_run == (target is not None):
        raise InputError("give a TARGET to write, or --dry-run to write nothing")
    if target is not None:
        check_target(target, shards)
        if Path(place).resolve() in target.resolve().parents:
            raise InputError(
                f"{target} lies in {place}, which is left as it is; choose a folder beside it"
            )
    if min_words != 1 and not clean:
        raise InputError("--min-words counts the words of cleaned captions: leave out --no-clean")
    filters: dict[str, Filter] = {}
    if clean:
        filters["caption"] = CleanCaption(min_words=min_words)
    if min_side is not None:
        filters["size"] = MinSide(pixels=min_side)
    if buckets:
        side = 512 if size is None else size
        check_size(side)
        shapes = Buckets(multiple=8 if multiple is None else multiple)
        filters["bucket"] = FitsBucket(buckets=shapes, size=side)
    elif size is not None or multiple is not None:
        raise InputError("--size and --multiple are for --buckets; small pictures: --min-side PX")
    filters |= {f"limit {text}": parse_limit(text) for text in listed(limit)}
    filters |= _by_clip(
        clip,
        device,
        aesthetic=_head("aesthetic", aesthetic, "min-aesthetic", min_aesthetic, 4.7),
        watermark=_head("watermark", watermark, "max-watermark", max_watermark, 0.5),
        fit=min_clip_score,
    )
    samples = read_samples(place, caption_field=caption_field)
    report = filter_pictures(_counted(samples, "filtering"), target, filters, per_shard=shards)
    typer.echo(str(report))


def _head(
    name: str, head: Path | None, option: str, limit: float | None, usual: float
) -> tuple[Path, float] | None:
    """A head with its limit; a limit alone would filter nothing, and is refused."""
    from bottega.errors import InputError

    if head is None:
        if limit is not None:
            raise InputError(
                f"--{option} is for --{name}: name the file of a head, or write --limit for a number that was "
                "noted with the pictures"
            )
        return None
    return head, usual if limit is None else limit


def _by_clip(
    clip: str | None,
    device: str,
    *,
    aesthetic: tuple[Path, float] | None,
    watermark: tuple[Path, float] | None,
    fit: float | None,
) -> "dict[str, Filter]":
    """The filters that look through a CLIP."""
    from bottega.errors import InputError

    if aesthetic is None and watermark is None and fit is None:
        if clip is not None:
            raise InputError("--clip is for --min-clip-score, --aesthetic and --watermark")
        return {}
    if clip is None:
        raise InputError(
            "--min-clip-score, --aesthetic and --watermark need a CLIP: give --clip FOLDER"
        )
    from bottega.data.filters import Scored, Within
    from bottega.evaluation.picture_scores import Aesthetic, ClipScores, Watermark
    from bottega.pipelines.devices import find_device

    scores = ClipScores(_clip_folder(clip), device=find_device(device))
    filters: dict[str, Filter] = {}
    if aesthetic is not None:
        limits = Within(name="aesthetic", at_least=aesthetic[1])
        filters["aesthetic"] = Scored(score=Aesthetic(scores, aesthetic[0]), limits=limits)
    if watermark is not None:
        limits = Within(name="watermark", at_most=watermark[1])
        filters["watermark"] = Scored(score=Watermark(scores, watermark[0]), limits=limits)
    if fit is not None:
        limits = Within(name="clip_score", at_least=fit)
        filters["clip_score"] = Scored(score=scores.fit, limits=limits)
    return filters


def _clip_folder(place: str) -> Path:
    """A CLIP's own folder, or that in a model's."""
    from bottega.pipelines import find_model

    folder = Path(place) if Path(place).is_dir() else find_model(place)
    return folder / "clip" if (folder / "clip" / "config.json").is_file() else folder


def check_size(size: int) -> None:
    """Refuse a side that no run has.

    Raises:
        InputError: When it is too small or too large.
    """
    from bottega.errors import InputError

    if not 8 <= size <= 8192:
        raise InputError(f"--size must be between 8 and 8192, got {size}")


def _counted(samples: Iterable[T], doing: str) -> Iterator[T]:
    """The same, counted on a terminal while they pass."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from samples
        return
    with console.status(f"{doing} ...") as status:
        for number, sample in enumerate(samples, start=1):
            if number % 100 == 0:
                status.update(f"{doing} {number:,}")
            yield sample


__all__ = ["check_size", "filter_data", "inspect_data"]
