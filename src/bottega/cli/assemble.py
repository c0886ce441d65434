"""``bottega assemble``: finished runs become a model folder that paints."""

from pathlib import Path
from typing import Annotated

import typer


def assemble(
    runs: Annotated[
        Path,
        typer.Argument(
            metavar="RUNS",
            help="The folder in which piccolo's runs lie, a programme's folder, or a denoiser's run.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")],
    name: Annotated[
        str | None,
        typer.Option("--name", help="The model's, of a programme or run; by default its own."),
    ] = None,
    judge: Annotated[
        Path | None,
        typer.Option(
            "--judge", metavar="FOLDER", help="Of a programme or run: the judge to take along."
        ),
    ] = None,
    borrow: Annotated[
        str | None,
        typer.Option(
            "--borrow",
            metavar="MODEL",
            help="Of a programme or run: leave out what this shipped model has too.",
        ),
    ] = None,
    then: Annotated[
        list[Path] | None,
        typer.Option("--then", metavar="RUN", help="After a run: one that enlarges its pictures."),
    ] = None,
) -> None:
    """Gather what the runs of piccolo exported, or what a plan or a run has trained, into a model for paint --model."""
    from bottega.checkpoint.ensemble import is_ensemble
    from bottega.errors import InputError
    from bottega.recipes.execute import PLAN
    from bottega.recipes.ship import ship_piccolo, ship_programme, ship_runs

    if (runs / "config.json").is_file():
        manifest = ship_runs(
            [runs, *([] if then is None else then)], output, name=name, judge=judge, borrow=borrow
        )
    elif then:
        raise InputError(f"--then goes on from a denoiser's run; {runs} holds no config.json")
    elif (runs / PLAN).is_file():
        manifest = ship_programme(runs, output, name=name, judge=judge, borrow=borrow)
    elif is_ensemble(runs):
        raise InputError(
            f"{runs} is an ensemble; name the run that its experts grew from, and it is taken along"
        )
    elif name is not None or judge is not None or borrow is not None:
        raise InputError(
            f"--name, --judge and --borrow are for a programme or a run; {runs} holds no {PLAN} and no config.json"
        )
    else:
        manifest = ship_piccolo(runs, output)
    own = [name for name in manifest.files if name.split("/")[0] not in manifest.borrowed]
    size = sum((output / name).stat().st_size for name in own)
    typer.echo(f"{output}: {len(own)} files, {size / 1e6:.1f} MB")
    for part, lender in manifest.borrowed.items():
        typer.echo(f"{part} is {lender}'s")


__all__ = ["assemble"]
