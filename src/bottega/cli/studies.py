"""``bottega evaluate regions``, ``conditions``, ``style`` and ``tradeoff``: one model under several arms."""

from typing import Annotated

import typer

from bottega.cli.beside import Loras
from bottega.cli.measuring import (
    Guidance,
    JournalFile,
    JudgeFolder,
    NumPrompts,
    Output,
    Page,
    Seeds,
    Steps,
    check_counts,
    check_outputs,
    conducted,
    draw,
    finish,
    load_painter,
    numbers,
    opened,
    prompts_of,
    resolved,
    show_cells,
    things_of,
)
from bottega.cli.options import Device, Dtype, Model, names


def regions(
    model: Model = "piccolo",
    judge: JudgeFolder = None,
    num_prompts: NumPrompts = 500,
    num_seeds: Seeds = 1,
    strengths: Annotated[
        str, typer.Option("--strengths", metavar="A,B", help="Values of w'.")
    ] = "0,0.25,0.5,1,2",
    weights: Annotated[
        str, typer.Option("--weights", metavar="A,B", help="largest, deviation, or both.")
    ] = "largest,deviation",
    steps: Steps = None,
    guidance: Guidance = None,
    output: Output = None,
    page: Page = None,
    journal: JournalFile = None,
    lora: Loras = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Do things stand where they were painted with words? Random layouts of two and three things."""
    from bottega.errors import InputError, nearest
    from bottega.evaluation.arms import real_pictures, region_arms
    from bottega.evaluation.regions import layout_prompts
    from bottega.evaluation.study_report import strength_curves
    from bottega.models import LargestLogit, LogitDeviation

    known = {"largest": LargestLogit(), "deviation": LogitDeviation()}
    chosen = names(weights)
    for name in () if chosen is None else chosen:
        if name not in known:
            raise InputError(f"weight {name!r} is not known{nearest(name, known)}")
    levels = numbers(strengths, "--strengths")
    check_counts(prompts=num_prompts, seeds=num_seeds)
    check_outputs(output, page, journal)
    painter, reader = opened(model, judge, device, dtype, lora)
    prompts = layout_prompts(things_of(reader), num_prompts)
    settings = resolved(painter, steps, guidance)
    picked = {name: known[name] for name in (known if chosen is None else chosen)}
    study = conducted(
        "regions",
        painter,
        reader,
        region_arms(painter, prompts, levels, picked, settings),
        [prompt.task for prompt in prompts],
        real_pictures([prompt.plan for prompt in prompts], painter.stages[-1].size),
        settings,
        num_seeds,
        journal,
    )
    finish(study, output)
    draw(page, lambda: strength_curves(study, ("landed", "found")), "strength w'", "share")


def conditions(
    model: Model = "piccolo",
    judge: JudgeFolder = None,
    num_prompts: Annotated[int, typer.Option("--prompts", help="Prompts per category.")] = 20,
    num_seeds: Seeds = 1,
    steps: Steps = None,
    guidance: Guidance = None,
    output: Output = None,
    page: Page = None,
    journal: JournalFile = None,
    lora: Loras = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """T5, CLIP and both, each with and without a reference picture: what is right in each cell, and a sheet."""
    from bottega.evaluation.arms import condition_arms, prompt_tasks, real_pictures

    check_counts(prompts=num_prompts, seeds=num_seeds)
    check_outputs(output, page, journal)
    painter, reader = opened(model, judge, device, dtype, lora)
    prompts = prompts_of(reader, num_prompts)
    settings = resolved(painter, steps, guidance)
    arms = condition_arms(painter, prompts, settings)
    study = conducted(
        "conditions",
        painter,
        reader,
        arms,
        prompt_tasks(prompts),
        real_pictures(prompts, painter.stages[-1].size),
        settings,
        num_seeds,
        journal,
    )
    finish(study, output)
    show_cells(page, arms, prompts)


def style(
    model: Model = "piccolo",
    judge: JudgeFolder = None,
    num_prompts: NumPrompts = 100,
    num_seeds: Seeds = 1,
    steps: Steps = None,
    guidance: Guidance = None,
    output: Output = None,
    page: Page = None,
    journal: JournalFile = None,
    lora: Loras = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Is the style of a reference picture recognised in what is painted, and do the things of the prompt stay?"""
    from bottega.evaluation.arms import style_arms, style_tasks, styled_pictures

    check_counts(prompts=num_prompts, seeds=num_seeds)
    check_outputs(output, page, journal)
    painter, reader = opened(model, judge, device, dtype, lora)
    prompts = prompts_of(reader, num_prompts, ("single",))
    settings = resolved(painter, steps, guidance)
    arms = style_arms(painter, prompts, settings)
    study = conducted(
        "style",
        painter,
        reader,
        arms,
        style_tasks(prompts),
        styled_pictures(prompts, painter.stages[-1].size),
        settings,
        num_seeds,
        journal,
    )
    finish(study, output)
    show_cells(page, arms, prompts)


def tradeoff(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME|FOLDER", help="May be repeated."),
    ] = None,
    judge: JudgeFolder = None,
    num_prompts: Annotated[int, typer.Option("--prompts", help="Prompts per category.")] = 20,
    num_seeds: Seeds = 1,
    scales: Annotated[
        str, typer.Option("--scales", metavar="A,B", help="Guidance scales; 1 is off.")
    ] = "1,1.5,2,3,5,8",
    steps: Steps = None,
    output: Output = None,
    page: Page = None,
    journal: JournalFile = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Alignment against distance from real pictures over guidance scales, of several models side by side."""
    from bottega.errors import InputError
    from bottega.evaluation.arms import guidance_arms, prompt_tasks, real_pictures
    from bottega.evaluation.study_report import tradeoff_curves

    levels = numbers(scales, "--scales")
    check_counts(prompts=num_prompts, seeds=num_seeds)
    check_outputs(output, page, journal)
    wanted = ["piccolo"] if models is None else models
    painter, reader = opened(wanted[0], judge, device, dtype)
    painters = [painter, *(load_painter(name, device, dtype) for name in wanted[1:])]
    size = painter.stages[-1].size
    if any(other.stages[-1].size != size for other in painters):
        raise InputError("models to compare need to paint at one size")
    prompts = prompts_of(reader, num_prompts)
    settings = [resolved(one, steps, None) for one in painters]
    study = conducted(
        "tradeoff",
        painter,
        reader,
        guidance_arms(painters, prompts, levels, settings),
        prompt_tasks(prompts),
        real_pictures(prompts, size),
        settings[0],
        num_seeds,
        journal,
        others=painters[1:],
    )
    finish(study, output)
    draw(page, lambda: tradeoff_curves(study), "share of prompts right", "distance from real")


def super_resolution(
    model: Model = "piccolo",
    judge: JudgeFolder = None,
    num_pictures: Annotated[int, typer.Option("--pictures", help="How many to enlarge.")] = 200,
    levels: Annotated[
        str, typer.Option("--levels", metavar="A,B", help="Values of low_res_sigma.")
    ] = "0,0.05,0.1,0.2,0.3,0.5",
    steps: Steps = None,
    guidance: Guidance = None,
    output: Output = None,
    page: Page = None,
    lora: Loras = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Enlarge clean small pictures and the first stage's own, with noise of several strengths; propose one."""
    from bottega.cli.enlarging import enlarge_all
    from bottega.evaluation.plot import Curve

    wanted = numbers(levels, "--levels")
    check_counts(pictures=num_pictures)
    check_outputs(output, page)
    painter, reader = opened(model, judge, device, dtype, lora)
    settings = resolved(painter, steps, guidance)
    scores, best = enlarge_all(painter, reader, num_pictures, wanted, settings, output)
    typer.echo(f"{'small pictures':16} {'low_res_sigma':>13} {'inconsistency':>13} {'distance':>9}")
    for score in scores:
        numbers_shown = (
            f"{score.low_res_sigma:13g} {score.inconsistency:13.4f} {score.distance:9.4g}"
        )
        typer.echo(f"{score.source:16} {numbers_shown}")
    typer.echo(f"proposed low_res_sigma: {best.low_res_sigma:g}")
    draw(
        page,
        lambda: [
            Curve(
                name=source,
                points=tuple((s.low_res_sigma, s.distance) for s in scores if s.source == source),
            )
            for source in dict.fromkeys(score.source for score in scores)
        ],
        "low_res_sigma",
        "distance from real",
    )


__all__ = [
    "conditions",
    "regions",
    "style",
    "super_resolution",
    "tradeoff",
]
