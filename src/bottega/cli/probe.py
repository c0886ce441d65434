"""``bottega probe``: look inside a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bottega.cli.beside import Loras
from bottega.cli.measuring import (
    Guidance,
    JudgeFolder,
    Output,
    Page,
    Steps,
    check_counts,
    check_outputs,
    draw,
    load_painter,
    numbers,
    opened,
    prompts_of,
    resolved,
    write_facts,
)
from bottega.cli.options import Device, Dtype, Model
from bottega.cli.progress import counting_bar

if TYPE_CHECKING:
    from bottega.pipelines import Painter, Stage

app = typer.Typer(help="Look inside a model.", no_args_is_help=True)

StageName = Annotated[
    str | None, typer.Option("--stage", help="Which stage; by default the first.")
]


@app.callback()
def group() -> None:
    """Look inside a model."""


@app.command()
def switch(
    model: Model = "piccolo",
    judge: JudgeFolder = None,
    num_prompts: Annotated[int, typer.Option("--prompts", help="How many prompts.")] = 40,
    num_seeds: Annotated[int, typer.Option("--seeds", help="Pictures per prompt.")] = 1,
    shares: Annotated[
        str, typer.Option("--shares", metavar="A,B", help="Shares of the steps.")
    ] = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1",
    steps: Steps = None,
    guidance: Guidance = None,
    output: Output = None,
    page: Page = None,
    lora: Loras = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Change the prompt after a share of the steps: which of the two does the picture follow?"""
    from bottega.config import to_json
    from bottega.evaluation.plot import Curve
    from bottega.evaluation.probes import probe_switch
    from bottega.evaluation.probes.subject import prompt_pairs

    wanted = numbers(shares, "--shares")
    check_counts(prompts=num_prompts, seeds=num_seeds)
    check_outputs(output, page)
    painter, reader = opened(model, judge, device, dtype, lora)
    stage = painter.stages[0]
    pairs = prompt_pairs(painter, prompts_of(reader, num_prompts, ("single",)))
    with counting_bar("switching") as progress:
        found = probe_switch(
            stage,
            reader.read,
            pairs,
            resolved(painter, steps, guidance)[stage.name],
            shares=wanted,
            seeds=tuple(range(num_seeds)),
            device=painter.device,
            progress=progress,
        )
    for point in found.points:
        typer.echo(
            f"after {point.share:4.0%} of the steps (sigma {point.sigma:8.4g}): "
            f"first {point.first}, second {point.second}"
        )
    if found.stops_at is None:
        typer.echo("no switch made the picture stop following the second prompt")
    else:
        typer.echo(f"stops following after {found.stops_after:.0%}, sigma {found.stops_at:.4g}")
    facts = {"stops_at": found.stops_at, "stops_after": found.stops_after}
    write_facts(output, painter, "switch", {**facts, "points": to_json(found)["points"]})
    curves = [
        Curve(
            name=name,
            points=tuple((p.share, getattr(p, which).value) for p in found.points),
            bands=tuple((getattr(p, which).low, getattr(p, which).high) for p in found.points),
        )
        for name, which in (("follows the first prompt", "first"), ("the second", "second"))
    ]
    draw(page, lambda: curves, "share of steps before the switch", "share of pictures")


@app.command()
def attention(
    model: Model = "piccolo",
    stage_name: StageName = None,
    num_pictures: Annotated[int, typer.Option("--pictures", help="Pictures to look at.")] = 16,
    sigmas: Annotated[
        str, typer.Option("--sigmas", metavar="A,B", help="Noise levels.")
    ] = "0.002,0.01,0.05,0.2,0.5,1,2,5,10,20,40,80",
    output: Output = None,
    page: Page = None,
    maps: Annotated[
        Path | None,
        typer.Option("--maps", metavar="PNG", help="Draw where the words are looked at."),
    ] = None,
    lora: Loras = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Where do the layers that read text look, at every noise level: at words, or at the null token?"""
    from bottega.config import to_json
    from bottega.evaluation.plot import Curve
    from bottega.evaluation.probes.attention import Observer, look
    from bottega.evaluation.probes.pictures import text_maps
    from bottega.evaluation.probes.subject import unseen
    from bottega.pipelines import save_picture

    levels = numbers(sigmas, "--sigmas")
    check_counts(pictures=num_pictures)
    check_outputs(output, page, maps=maps)
    painter = load_painter(model, device, dtype, lora)
    stage = _base(painter, stage_name)
    clean, condition = unseen(painter, stage, 0, num_pictures)
    seen: list[tuple[float, Observer]] = []
    found = look(
        stage.denoiser,
        clean,
        condition,
        levels,
        watch=lambda sigma, observer: seen.append((sigma, observer)),
    )
    for one in found:
        parts = ", ".join(f"{name} {share:.1%}" for name, share in one.shares.items())
        typer.echo(f"sigma {one.sigma:8.4g}: {parts}")
    write_facts(
        output, painter, "attention", {"stage": stage.name, "levels": to_json(tuple(found))}
    )
    streams = list(found[0].shares)
    curves = [
        Curve(name=name, points=tuple((one.sigma, one.shares[name]) for one in found))
        for name in streams
    ]
    draw(page, lambda: curves, "sigma", "share of attention", log_x=True)
    if maps is not None:
        save_picture(text_maps(stage.pictures(clean), seen), maps)


@app.command()
def intervals(
    model: Model = "piccolo",
    stage_name: StageName = None,
    num_bins: Annotated[int, typer.Option("--bins", help="Bins of equal probability.")] = 8,
    num_batches: Annotated[int, typer.Option("--batches", help="Per bin; an even number.")] = 16,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Pictures per batch.")] = 16,
    groups: Annotated[int, typer.Option("--experts", help="Expert denoisers to split for.")] = 2,
    output: Output = None,
    page: Page = None,
    device: Device = "auto",
) -> None:
    """Where do the noise levels of a shared denoiser pull its weights apart? Proposes where to split it."""
    from bottega.evaluation.probes import best_split, denoising_loss, gradient_cosines
    from bottega.evaluation.probes.intervals import check_bins
    from bottega.evaluation.probes.pictures import matrix_picture
    from bottega.evaluation.probes.subject import training_noise, unseen
    from bottega.pipelines import save_picture

    check_counts(batches=num_batches, batch_size=batch_size)
    check_bins(num_bins, num_batches, groups)
    check_outputs(output, page)
    painter = load_painter(model, device, "float32")
    stage = _base(painter, stage_name)
    denoiser, noise = training_noise(painter, stage)
    network = denoiser.network.requires_grad_(True)
    loss = denoising_loss(
        denoiser,
        noise,
        lambda batch: unseen(painter, stage, batch * batch_size, batch_size),
        num_bins=num_bins,
    )
    with counting_bar("gradients") as progress:
        cosines = gradient_cosines(
            network.parameters(),
            loss,
            num_bins=num_bins,
            num_batches=num_batches,
            progress=progress,
        )
    split = best_split(cosines, groups)
    bounds = [noise.quantile(cut / num_bins) for cut in split.cuts]
    edges = [noise.quantile(i / num_bins) for i in range(1, num_bins)]
    for row in cosines.tolist():
        typer.echo("  ".join(f"{value:+.2f}" for value in row))
    typer.echo(
        f"split at sigma {', '.join(f'{bound:.4g}' for bound in bounds)}: cosine {split.within:.2f} "
        f"within, {split.between:.2f} between"
    )
    facts = {"stage": stage.name, "edges": edges, "cosines": cosines.tolist(), "bounds": bounds}
    write_facts(output, painter, "intervals", {**facts, "gain": split.gain})
    if page is not None:
        save_picture(matrix_picture(cosines, edges), page)


def _base(painter: "Painter", name: str | None) -> "Stage":
    """The stage asked for; one that enlarges is asked with pictures that these probes do not make."""
    from bottega.errors import InputError

    wanted = painter.stages[0].name if name is None else painter.stage_named(name)
    stage = next(stage for stage in painter.stages if stage.name == wanted)
    if stage.low_res_from is not None:
        raise InputError(f"stage {stage.name} enlarges; probe {painter.stages[0].name}")
    return stage


__all__ = ["app", "attention", "group", "intervals", "switch"]
