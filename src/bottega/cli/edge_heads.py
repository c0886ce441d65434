"""``bottega probe edge-heads``: what edge supervision does to where a network looks."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bottega.cli.measuring import Output


def edge_heads(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run.")],
    sigma: Annotated[float, typer.Option("--sigma", help="Noise on the pictures.")] = 0.2,
    num_pictures: Annotated[int, typer.Option("--pictures", help="How many pictures.")] = 4,
    output: Output = None,
    page: Annotated[
        Path | None,
        typer.Option("--maps", metavar="PNG", help="Draw attention, drawn edges and true edges."),
    ] = None,
) -> None:
    """Which edges do a run's heads draw from its attention, and how well do they go with the true ones?"""
    from bottega.cli.measuring import check_outputs
    from bottega.errors import InputError
    from bottega.pipelines import save_picture
    from bottega.recipes.branch import denoiser_task, read_config
    from bottega.recipes.edges import look_at_run
    from bottega.recipes.train import load_encoders
    from bottega.rundir import write_atomically

    if num_pictures < 1:
        raise InputError(f"--pictures must be at least 1, got {num_pictures}")
    check_outputs(output, page, None)
    encoders = load_encoders(denoiser_task(read_config(run)).encoders)
    seen = look_at_run(run, encoders, sigma, num_pictures)
    for layer, score in enumerate(seen.scores):
        typer.echo(f"layer {layer}: drawn edges go with true ones by {score:+.2f}")
    if output is not None:
        facts = {"kind": "edges", "run": str(run), "sigma": sigma, "agreement": list(seen.scores)}
        write_atomically(output, (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode())
    if page is not None:
        save_picture(seen.page, page)


__all__ = ["edge_heads"]
