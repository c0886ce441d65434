"""``bottega plan``: a whole training programme, written as data and reckoned up before it begins."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bottega.cli.options import Settings, listed

if TYPE_CHECKING:
    from bottega.recipes import RunConfig
    from bottega.recipes.programme import Forecast, Programme


def plan(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE|RUN...", help="A stage each: a recipe, or a finished run."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The plan to write.")
    ] = Path("plan.json"),
    shape: Annotated[
        str, typer.Option("--shape", help="ediffi, levels, two or custom.")
    ] = "ediffi",
    images: Annotated[
        int | None,
        typer.Option("--images", help="Per expert denoiser; by default a tenth of the root's."),
    ] = None,
    depth: Annotated[int, typer.Option("--depth", help="Levels, for --shape levels.")] = 2,
    sigma: Annotated[
        float | None, typer.Option("--sigma", help="Where --shape two is split.")
    ] = None,
    nodes: Annotated[
        list[str] | None,
        typer.Option("--node", metavar="PART", help="For --shape custom; may be repeated."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The programme's, and its folder's in runs/.")
    ] = None,
    images_per_s: Annotated[
        float | None,
        typer.Option(
            "--images-per-s", help="Of your machine; by default tried out where possible."
        ),
    ] = None,
    settings: Settings = None,
) -> None:
    """Write a programme for bottega train --plan, with the images, time and cost of every node beforehand.

    --set changes a setting of every recipe, or of one: --set piccolo-sr:train.batch_size=32.
    """
    from bottega.errors import InputError
    from bottega.recipes.forecast import rate_here, with_forecast
    from bottega.recipes.programme import Programme, plan_stage, plan_text
    from bottega.rundir import check_place, write_atomically

    if images_per_s is not None and not 0 < images_per_s < float("inf"):
        raise InputError(f"--images-per-s must be positive, got {images_per_s}")
    check_place(output)
    roots = _roots(targets, listed(settings))
    stages = tuple(
        plan_stage(
            _stage_name(config),
            config,
            shape,
            images=images,
            depth=depth,
            sigma=sigma,
            nodes=listed(nodes),
            root_run=run,
        )
        for config, run in roots
    )
    chosen = f"{stages[0].name}-{shape}" if name is None else name
    programme = Programme(name=chosen, shape=shape, stages=stages)
    rates = {s.name: rate_here(s) if images_per_s is None else images_per_s for s in stages}
    programme = with_forecast(programme, rates)
    write_atomically(output, plan_text(programme).encode())
    for line in describe_programme(programme):
        typer.echo(line)
    typer.echo(f"{output}: execute it with bottega train --plan {output}")


def describe_programme(programme: "Programme") -> Iterator[str]:
    """The forecast as lines of text."""
    forecast = programme.forecast
    if forecast is None:
        return
    yield f"{'node':32} {'noise':24} {'wave':>4} {'images':>12} {'on its path':>12} {'cost':>9} {'time':>12}"
    for node in forecast.nodes:
        label = f"{node.stage} {node.part}"
        yield (
            f"{label:32} {node.sigma:24} {node.wave:>4} {node.images:>12,} {node.path_images:>12,} "
            f"{_operations(node.flops):>9} {_time(node.seconds):>12}"
        )
    yield ""
    yield from _ledger(forecast)


def _ledger(forecast: "Forecast") -> Iterator[str]:
    for books in forecast.ledgers:
        yield (
            f"{books.stage}: {books.num_experts} expert denoisers paint, each of {books.parameters:,} parameters; a "
            f"call costs {_operations(books.ensemble_call_flops)} operations, as the single model's "
            f"{_operations(books.call_flops)}"
        )
        yield (
            f"  once per prompt {_operations(books.ensemble_prompt_flops)} instead of "
            f"{_operations(books.prompt_flops)}; equal training is a single model of {books.images:,} images, while no "
            f"weights see more than {books.path_images:,}"
        )
    yield (
        f"in all {_operations(forecast.flops)} operations, {_time(forecast.seconds_in_a_row)} one after the other, "
        f"{_time(forecast.seconds_side_by_side)} on {forecast.num_machines} machines; nodes of one wave train side by "
        "side"
    )


def _roots(targets: Sequence[str], assignments: list[str]) -> list[tuple["RunConfig", str | None]]:
    """The root of every stage: a recipe's settings, or those of a run and its folder."""
    from bottega.config import override, parse_assignments
    from bottega.errors import InputError
    from bottega.recipes import RECIPES, read_config, recipe

    for_one = {target: [] for target in targets}
    for_all: list[str] = []
    for item in assignments:
        target, colon, rest = item.partition(":")
        if colon and "=" not in target:
            if target not in for_one:
                raise InputError(f"--set {item}: {target} is none of {', '.join(targets)}")
            for_one[target].append(rest)
        else:
            for_all.append(item)
    roots: list[tuple[RunConfig, str | None]] = []
    for target in targets:
        given = [*for_all, *for_one[target]]
        if target in RECIPES or not Path(target).is_dir():
            config = override(recipe(target), parse_assignments(given))
            roots.append((config, None))
        elif given:
            raise InputError(
                f"{target} is a run that has its settings already; --set changes recipes"
            )
        else:
            roots.append((read_config(target), target))
    return roots


def _stage_name(config: "RunConfig") -> str:
    from bottega.checkpoint.ensemble import folder_for

    return folder_for(config.name)


def _operations(number: int) -> str:
    from bottega.cli.show import short

    return short(number)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not known"
    from bottega.training.progress import duration

    return duration(seconds) if seconds < 100 * 3600 else f"{seconds / 86400:,.0f} days"


__all__ = ["describe_programme", "plan"]
