"""``bottega upcycle``: a dense denoiser is given experts, and paints as before until they have learned something."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bottega.cli.options import Settings, listed

if TYPE_CHECKING:
    from bottega.models.upcycling import Upcycling


def upcycle(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|CHECKPOINT|MODEL",
            help="A denoiser's run, its checkpoint (a stage, an export), or a whole model.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FOLDER", help="The new one of the same kind."),
    ],
    space: Annotated[
        int, typer.Option("--space", metavar="K", help="Space experts a block; 0 for none.")
    ] = 6,
    time: Annotated[
        int, typer.Option("--time", metavar="K", help="Time experts a block; 0 for none.")
    ] = 4,
    alpha: Annotated[
        float,
        typer.Option("--alpha", help="Share of its largest attention that is a word's place."),
    ] = 0.2,
    all_tokens: Annotated[
        bool,
        typer.Option(
            "--all-tokens", help="Count padding in the space experts' average, as printed."
        ),
    ] = False,
    stage: Annotated[
        str | None, typer.Option("--stage", help="Which one of a model; by default the first.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the gates.")] = 0,
    settings: Settings = None,
) -> None:
    """Make a dense denoiser with transformer blocks into one with experts that computes the same.

    Of a run comes a run, which bottega train --resume --run FOLDER trains on; --set changes its settings. Of a model
    comes a model that paints; an imported one is trained on with bottega train finetune --set task.model=FOLDER.
    """
    from bottega.cli.show import short
    from bottega.config import parse_assignments
    from bottega.recipes.upcycle import upcycle as upcycle_folder

    made = upcycle_folder(
        source,
        output,
        _wanted(space, time, alpha, all_tokens),
        stage=stage,
        settings=parse_assignments(listed(settings)),
        seed=seed,
    )
    typer.echo(
        f"{output}: {short(made.before)} parameters became {short(made.after)}, and compute the same"
    )
    if made.is_run:
        typer.echo(f"train them with bottega train --resume --run {output}")
    if made.is_imported:
        typer.echo(f"train them with bottega train finetune --set task.model={output}")


def _wanted(space: int, time: int, alpha: float, all_tokens: bool) -> "Upcycling":
    from bottega.errors import InputError
    from bottega.models.moe_config import SpaceMoEConfig, TimeMoEConfig
    from bottega.models.upcycling import EXPLORING, Upcycling

    for name, number in (("--space", space), ("--time", time)):
        if number < 0:
            raise InputError(f"{name} must not be negative, got {number}")
    average = "all_tokens" if all_tokens else "real_tokens"
    by_words = SpaceMoEConfig(alpha=alpha, average=average, noise=EXPLORING)
    return Upcycling(
        space=None if space == 0 else replace(by_words, experts=space),
        time=None if time == 0 else TimeMoEConfig(experts=time, noise=EXPLORING),
    )


__all__ = ["upcycle"]
