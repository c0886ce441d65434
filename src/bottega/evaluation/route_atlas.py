"""A painter's routes: it paints a prompt, and what its networks chose on the way is traced in the finished picture."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from bottega.conditioning import Encoders
from bottega.errors import InputError
from bottega.evaluation.probes.subject import told
from bottega.evaluation.routes import Routes, network_of, routed, trace
from bottega.models import UNet
from bottega.pipelines import Painter, Stage, StageSettings
from bottega.pipelines.output import to_pictures

LOOKS = 4
"""At how many noise levels of a walk words are looked at, unless told otherwise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AtlasPage:
    """Routes, and the picture they were traced in."""

    routes: Routes
    picture: Image.Image


def words_in(prompt: str) -> tuple[tuple[int, int], ...]:
    """Where the words of a prompt stand."""
    return tuple(match.span() for match in re.finditer(r"\w[\w'-]*", prompt))


def routed_stage(painter: Painter, name: str | None = None) -> Stage:
    """The stage asked for, or the first; it must paint from words and have experts inside.

    Raises:
        ConfigError: For a stage that is not there.
        InputError: For a stage that enlarges, that several expert denoisers share, or without experts.
    """
    wanted = painter.stages[0].name if name is None else painter.stage_named(name)
    stage = next(stage for stage in painter.stages if stage.name == wanted)
    if stage.low_res_from is not None:
        raise InputError(
            f"stage {stage.name} enlarges; ask for the routes of the one that paints words"
        )
    routed(stage.denoiser)
    return stage


def network_and_encoders(painter: Painter, name: str | None = None) -> tuple[UNet, Encoders]:
    """What paths are asked of; raises as `routed_stage` does."""
    return network_of(routed(routed_stage(painter, name).denoiser)), painter.encoders


def atlas(
    painter: Painter,
    prompt: str,
    settings: StageSettings,
    *,
    stage: str | None = None,
    seed: int = 0,
    looks: Sequence[float] | None = None,
) -> AtlasPage:
    """Paint a prompt with one stage, and trace its routes in what came of it.

    Args:
        painter: With experts inside the stage's network.
        prompt: What to paint.
        settings: How the stage is sampled; the experts of noise are asked for at its noise levels.
        stage: Which stage; the first one by default.
        seed: Of the painting, and of the noise in which words are looked at.
        looks: Noise levels at which words are looked at; some of the walk's by default.

    Raises:
        InputError: For a prompt without a word, or as `routed_stage` and `trace` do.
    """
    words = words_in(prompt)
    if not words:
        raise InputError("routes are those of words; the prompt has none")
    chosen = routed_stage(painter, stage)
    condition, silence = (told(painter, [text]) for text in (prompt, ""))
    x = None
    for step in chosen.paint(condition, silence, [seed], settings, device=painter.device):
        x = step.x
    if x is None:
        raise InputError(f"stage {chosen.name} took no step")
    sigmas = [sigma for sigma in chosen.sigmas(settings) if sigma > 0]
    routes = trace(
        chosen.denoiser,
        prompt,
        painter.encoders,
        chosen.numbered(condition),
        x.detach(),
        looks=some_of(sigmas) if looks is None else looks,
        sigmas=sigmas,
        words=words,
        seed=seed,
    )
    with torch.no_grad():
        picture = to_pictures(chosen.pictures(x))[0]
    return AtlasPage(routes=routes, picture=picture)


def some_of(sigmas: Sequence[float]) -> list[float]:
    """A few noise levels of a walk, from its beginning to its end, evenly."""
    last = len(sigmas) - 1
    places = {round(last * i / (LOOKS - 1)) for i in range(LOOKS)}
    return [sigmas[place] for place in sorted(places)]


__all__ = [
    "LOOKS",
    "AtlasPage",
    "atlas",
    "network_and_encoders",
    "routed_stage",
    "some_of",
    "words_in",
]
