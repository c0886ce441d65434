"""``bottega probe experts``: whether it matters which expert a word or a noise level goes to."""

from typing import Annotated

import typer

from bottega.cli.beside import Loras
from bottega.cli.measuring import Output, Page
from bottega.cli.options import Device, Dtype, Model
from bottega.cli.progress import counting_bar


def experts(
    model: Model = "piccolo-raphael",
    stage_name: Annotated[
        str | None, typer.Option("--stage", help="Which stage; by default the first.")
    ] = None,
    num_pictures: Annotated[int, typer.Option("--pictures", help="Unseen pictures.")] = 32,
    sigmas: Annotated[
        str, typer.Option("--sigmas", metavar="A,B", help="Noise levels.")
    ] = "0.1,0.3,1,3,10",
    output: Output = None,
    page: Page = None,
    lora: Loras = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """How much worse are pictures denoised when words, or noise, go to other experts than the gates chose?"""
    from bottega.cli.measuring import (
        check_counts,
        check_outputs,
        draw,
        load_painter,
        numbers,
        write_facts,
    )
    from bottega.config import to_json
    from bottega.errors import InputError
    from bottega.evaluation.plot import Curve
    from bottega.evaluation.probes import misroute
    from bottega.evaluation.probes.subject import unseen
    from bottega.evaluation.route_atlas import routed_stage
    from bottega.evaluation.routes import routed

    levels = numbers(sigmas, "--sigmas")
    if min(levels) <= 0:
        raise InputError(f"--sigmas names noise levels above 0 to denoise at, got {sigmas!r}")
    check_counts(pictures=num_pictures)
    check_outputs(output, page)
    painter = load_painter(model, device, dtype, lora)
    stage = routed_stage(painter, stage_name)
    clean, condition = unseen(painter, stage, 0, num_pictures)
    with counting_bar("other experts") as progress:
        found = misroute(routed(stage.denoiser), clean, condition, levels, progress=progress)
    chosen_by = {"space": "words", "time": "noise"}
    for one in found:
        place = "all blocks" if one.block is None else f"block {one.block + 1}"
        typer.echo(
            f"{chosen_by[one.kind]} to other experts in {place:10} error {one.growth:+.1%} "
            f"({one.likely.low:+.1%} to {one.likely.high:+.1%})"
        )
    facts = {"stage": stage.name, "sigmas": levels, "pictures": num_pictures}
    write_facts(output, painter, "experts", {**facts, "found": to_json(tuple(found))})
    curves = [
        Curve(
            name=f"{chosen_by[kind]} to other experts",
            points=tuple((block + 1.0, one.growth) for block, one in here),
            bands=tuple((one.likely.low, one.likely.high) for _, one in here),
        )
        for kind in chosen_by
        if (here := [(o.block, o) for o in found if o.kind == kind and o.block is not None])
    ]
    draw(page, lambda: curves, "block", "growth of the error")


__all__ = ["experts"]
