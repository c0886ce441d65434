"""LoRAs and ControlNets beside a model, as the options of ``bottega paint`` and ``bottega replay`` give them."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from bottega.checkpoint import Manifest
    from bottega.pipelines import Guide, Painter

Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora", metavar="FOLDER[@SCALE]", help="Mix in this LoRA, at scale 1 or another."
    ),
]
ControlNets = Annotated[
    list[Path] | None,
    typer.Option("--controlnet", metavar="FOLDER", help="Paint with this ControlNet."),
]
Controls = Annotated[
    list[str] | None,
    typer.Option("--control", metavar="PICTURE[@SCALE]", help="What the ControlNet is to follow."),
]


class Beside(NamedTuple):
    """What a model is painted with: folders of LoRAs with scales, of ControlNets, and what these are to follow."""

    loras: "tuple[tuple[Path | str, float], ...]"
    controlnets: "tuple[Path | str, ...]"
    guides: "tuple[Guide, ...]"

    def folders(self) -> dict[str, Any]:
        """What loading a painter is told."""
        return {"loras": self.loras, "controlnets": self.controlnets}


def read_beside(
    loras: list[str] | None, controlnets: list[Path] | None, controls: list[str] | None
) -> Beside:
    """Every ``--lora``, ``--controlnet`` and ``--control``.

    Raises:
        InputError: For a scale that is no number, a file that is no picture, or a ControlNet without a picture.
    """
    from bottega.errors import InputError
    from bottega.pipelines import Guide, open_picture

    pairs = [with_scale(text) for text in ([] if loras is None else loras)]
    guides = [with_scale(text) for text in ([] if controls is None else controls)]
    nets = [] if controlnets is None else controlnets
    if len(guides) != len(nets):
        raise InputError(
            f"--controlnet and --control go together, got {len(nets)} and {len(guides)}: a ControlNet's folder, "
            "and the picture that it is to follow"
        )
    return Beside(
        loras=tuple(pairs),
        controlnets=tuple(nets),
        guides=tuple(Guide(open_picture(path), scale) for path, scale in guides),
    )


def with_scale(text: str) -> tuple[str, float]:
    """A path and the scale after its last @; 1 where there is none.

    Raises:
        InputError: For an @ with something else than a number after it.
    """
    from bottega.errors import InputError

    path, at, tail = text.rpartition("@")
    if not at or Path(text).exists():  # an @ may be part of a name
        return text, 1.0
    try:
        scale = float(tail)
    except ValueError:
        scale = math.nan
    if not (path and math.isfinite(scale)):
        raise InputError(f"a scale is a finite number after @, as in style@0.8, got {text!r}")
    return path, scale


def say_beside(painter: "Painter") -> None:
    """Say on stderr what each LoRA and ControlNet changes, expert denoisers by name."""
    for line in painter.adapters.describe():
        typer.echo(line, err=True)


def beside_lines(manifest: "Manifest") -> Iterator[str]:
    """What a checkpoint of a LoRA or a ControlNet was made for; nothing for any other."""
    from bottega.checkpoint.controlnet import CONTROLNET_KIND
    from bottega.checkpoint.lora import LORA_KIND

    if manifest.kind not in (LORA_KIND, CONTROLNET_KIND):
        return
    facts = manifest.config
    parts = " and ".join(facts["parts"])
    yield f"trained beside     stage {facts['stage']} of {facts['model']} {facts['model_digest'][:16]}"
    yield f"expert denoisers   {parts if parts else 'all'}"
    if manifest.kind == LORA_KIND:
        plan = facts["plan"]
        yield f"rank               {plan['rank']}, on {', '.join(plan['targets'])}"
    else:
        yield f"reads              {facts['reads']}"


__all__ = [
    "Beside",
    "ControlNets",
    "Controls",
    "Loras",
    "beside_lines",
    "read_beside",
    "say_beside",
    "with_scale",
]
