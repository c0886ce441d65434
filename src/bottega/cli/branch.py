"""``bottega branch``: an expert denoiser grows from a run."""

from pathlib import Path
from typing import Annotated

import typer

from bottega.cli.options import Settings, listed
from bottega.cli.train import INTERRUPTED, parse_duration, report_run


def branch(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The parent's run folder, a child's perhaps, or an imported model.",
        ),
    ],
    node: Annotated[
        str,
        typer.Option(
            "--node",
            metavar="PART",
            help="The noise to learn: 9/511, complement(3/0,9/511) or between(0.9,inf).",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="NEWRUN", help="By default beside the parent."),
    ] = None,
    ensemble: Annotated[
        Path | None,
        typer.Option(
            "--ensemble", metavar="FOLDER", help="Where parent and child are filed; RUN-ensemble."
        ),
    ] = None,
    settings: Settings = None,
    stop_after: Annotated[
        int | None,
        typer.Option("--stop-after", metavar="IMAGES", help="Stop once it has seen this many."),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option("--time-limit", metavar="TIME", help="Stop after 90m, 2h or 600s."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the child's configuration and stop.")
    ] = False,
) -> None:
    """Train an expert denoiser from the averaged weights of RUN, on its own part of the noise.

    It is filed in an ensemble beside its parent. A child that was stopped goes on with bottega train --resume --run
    NEWRUN. Without --set train.total_images it sees a tenth of what the root was set to. A child of an imported model
    learns as the recipe finetune does, and exports that model with its expert denoisers in it.
    """
    from bottega.config import dumps, parse_assignments
    from bottega.recipes import train as train_run
    from bottega.recipes.branch import begin_child, noise_of, plan_child, read_config
    from bottega.recipes.machine import engine_here
    from bottega.training.limits import StopHook

    seconds = None if time_limit is None else parse_duration(time_limit)
    limit = StopHook(images=stop_after, seconds=seconds)
    assignments = parse_assignments(listed(settings))
    if dry_run:
        planned = plan_child(run, node, output, ensemble=ensemble, settings=assignments)
        typer.echo(dumps(planned.config), nl=False)
        return
    engine = engine_here()
    child = plan_child(run, node, output, ensemble=ensemble, settings=assignments)
    if engine.rank == 0:  # of several processes one makes the folder
        begin_child(run, node, output, ensemble=ensemble, settings=assignments)
        typer.echo(f"{child.run}: {noise_of(child.config)}", err=True)
    engine.wait()
    state = train_run(read_config(child.run), child.run, hooks=[limit], engine=engine)
    if engine.rank != 0:
        return
    report_run(child.run, state)
    if state.finished:
        typer.echo(f"{child.ensemble}: {node} is filed; bottega show {child.ensemble} lists all")
    if state.stopped_by == "SIGINT":
        raise typer.Exit(INTERRUPTED)


__all__ = ["branch"]
