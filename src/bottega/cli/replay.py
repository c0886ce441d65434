"""``bottega replay``: make a picture again and compare."""

from pathlib import Path
from typing import Annotated

import typer

from bottega.cli.beside import ControlNets
from bottega.cli.options import Style, listed, printable
from bottega.cli.progress import painting_bar

DIFFERENT = 1
"""The exit code when the new picture is not the old one, byte for byte."""


def replay(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="A PNG that bottega painted.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the new picture here too.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="FOLDER", help="The model, if it does not ship with bottega."
        ),
    ] = None,
    style: Style = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="PICTURE", help="The picture it was painted from."),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option("--lora", metavar="FOLDER", help="Each LoRA it was painted with, in order."),
    ] = None,
    controlnet: ControlNets = None,
    control: Annotated[
        list[Path] | None,
        typer.Option("--control", metavar="PICTURE", help="Each control picture, in order."),
    ] = None,
) -> None:
    """Paint a picture again from what it says of itself, and compare byte for byte.

    Exits with 0 when the two are identical, with 1 when they are not.
    """
    from bottega.pipelines import (
        check_writable,
        open_picture,
        paint_again,
        read_provenance,
        save_picture,
    )

    if output is not None:
        check_writable(output)
    origin = read_provenance(picture)
    steps = sum(record.settings.steps for record in origin.stages)
    reference = None if style is None else open_picture(style)
    before = None if source is None else open_picture(source)
    with painting_bar(len(origin.requests), steps) as move:
        made = paint_again(
            picture,
            model=model,
            style=reference,
            picture=before,
            loras=listed(lora),
            controlnets=[] if controlnet is None else controlnet,
            controls=[open_picture(path) for path in ([] if control is None else control)],
            on_step=move,
        )
    if output is not None:
        save_picture(made.picture, output)
    typer.echo(printable(f"{picture}: {made.verdict()}"))
    if not made.same_bytes:
        raise typer.Exit(DIFFERENT)


__all__ = ["DIFFERENT", "replay"]
