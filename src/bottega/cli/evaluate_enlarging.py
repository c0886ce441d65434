"""``bottega evaluate enlarging``: is what an enlarger makes sharper than what any program can make?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bottega.cli.measuring import Output, check_outputs
from bottega.cli.options import Device
from bottega.cli.progress import counting_bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bottega.evaluation.enlarging import Enlarging, EnlargingScore
    from bottega.shapes import Images

SPOILT, CLEAN = "spoilt", "clean"

_SHOWN = 4


def enlarging(
    model: Annotated[
        str, typer.Argument(metavar="ENLARGER", help="As bottega enlarge --model takes it.")
    ] = "piccolo-srgan",
    judge: Annotated[
        str,
        typer.Option(
            "--judge", metavar="NAME|FOLDER", help="A judge's folder, or a model with one."
        ),
    ] = "piccolo",
    num_pictures: Annotated[int, typer.Option("--pictures", help="Held-out scenes.")] = 100,
    size: Annotated[int, typer.Option("--size", help="Pixels of the true pictures.")] = 256,
    output: Output = None,
    page: Annotated[
        Path | None, typer.Option("--sheet", metavar="PNG", help="Some pictures, side by side.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Shrink held-out scenes, enlarge them bicubically and by the network, and compare both with the truth."""
    from bottega.errors import InputError
    from bottega.evaluation.enlarging import compare_ways
    from bottega.pipelines.enlarging import bicubic, load_enlarger
    from bottega.recipes.srgan import find_judge

    if num_pictures < 2:
        raise InputError(f"--pictures must be at least 2, got {num_pictures}")
    check_outputs(output, page, None)
    enlarger, reader = load_enlarger(model, device=device), find_judge(judge)
    if size % enlarger.scale or not reader.config.size_px <= size <= 1024:
        raise InputError(
            f"--size must be a multiple of {enlarger.scale} from {reader.config.size_px} to 1024, got {size}"
        )
    real, small = _pictures(num_pictures, size, enlarger.scale)
    ways = {
        "bicubic": lambda x: bicubic(x, enlarger.scale),
        enlarger.name: lambda x: enlarger.whole(x).cpu(),
    }
    with counting_bar("enlarging and looking") as progress:
        scores = [
            score
            for source, pictures in small.items()
            for score in compare_ways(source, pictures, real, ways, reader, progress)
        ]
    if output is not None:
        facts = {
            "kind": "enlarging",
            "model": enlarger.name,
            "model_digest": enlarger.digest,
            "judge": reader.digest,
            "pictures": num_pictures,
            "size": size,
        }
        _write(output, facts, scores)
    if page is not None:
        _show(page, small[SPOILT], real, ways)
    _print(scores)


def _pictures(
    num_pictures: int, size: int, scale: int
) -> "tuple[list[Images], dict[str, list[Images]]]":
    """True pictures, and the small ones that are to become them again."""
    from bottega.data import Degradations
    from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig, WorldSource
    from bottega.training.denoiser_objective import shrink

    source = WorldSource(EmojiWorld(EmojiWorldConfig(split="held_out")), size)
    real = [source.batch([i]).clean() for i in range(num_pictures)]
    clean = [shrink(image, size // scale) for image in real]
    spoil = Degradations(clean_prob=0.0)
    spoilt = [spoil(image, [seed]) for seed, image in enumerate(clean)]
    return real, {CLEAN: clean, SPOILT: spoilt}


def _write(output: Path, facts: "Mapping[str, object]", scores: "Sequence[EnlargingScore]") -> None:
    import json

    from bottega.config import to_json
    from bottega.rundir import write_atomically

    text = json.dumps({**facts, "scores": to_json(tuple(scores))}, indent=2, allow_nan=False)
    write_atomically(output, f"{text}\n".encode())


def _show(
    page: Path,
    small: "Sequence[Images]",
    real: "Sequence[Images]",
    ways: "Mapping[str, Enlarging]",
) -> None:
    """A row for each of the first pictures: every way, and the truth."""
    from bottega.pipelines import save_picture, sheet
    from bottega.pipelines.output import to_pictures

    pairs = list(zip(small, real, strict=True))[:_SHOWN]
    rows = [image for s, r in pairs for image in (*(way(s) for way in ways.values()), r)]
    pictures = [to_pictures(image)[0] for image in rows]
    save_picture(sheet(pictures, len(ways) + 1, [*ways, "real"] * len(pairs)), page)


def _print(scores: "Sequence[EnlargingScore]") -> None:
    names = ("feature error", "better", "distance", "sharpness", "psnr dB")
    typer.echo(f"{'pictures':9} {'way':16} " + " ".join(f"{name:>13}" for name in names))
    for one in scores:
        figures = (one.feature_error, one.better, one.distance, one.sharpness, one.psnr_db)
        row = " ".join(f"{figure:13.4g}" for figure in figures)
        typer.echo(f"{one.source:9} {one.way:16} {row}")


__all__ = ["CLEAN", "SPOILT", "enlarging"]
