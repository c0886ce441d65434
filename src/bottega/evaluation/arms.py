"""A painter's ways of painting as the arms of a study."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from bottega.data.emoji_world import STYLES, Plan, render
from bottega.data.emoji_world.plan import Style
from bottega.errors import InputError
from bottega.evaluation.alignment import images_of
from bottega.evaluation.expectation import check
from bottega.evaluation.judge import Reading
from bottega.evaluation.prompts import Prompt, real_plan
from bottega.evaluation.regions import LayoutPrompt, on_another_ground
from bottega.evaluation.study import REAL, Arm, Held, Task
from bottega.pipelines import Painter, Region, StageSettings
from bottega.seeding import derive
from bottega.shapes import Images

CONDITIONS: Mapping[str, tuple[str, ...] | None] = {"t5": ("t5",), "clip": ("clip",), "both": None}
"""Encoders that a model may be told through, by the name of the arm."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What one picture may be given beside its text."""

    regions: tuple[Region, ...] = ()
    style: Image | None = None


def painting(
    name: str,
    painter: Painter,
    texts: Sequence[str],
    *,
    settings: Mapping[str, StageSettings] | None = None,
    encoders: Sequence[str] | None = None,
    means: Sequence[Means] | None = None,
) -> Arm:
    """An arm that paints ``texts``, each with what ``means`` gives it."""
    given = [Means()] * len(texts) if means is None else means

    def paint(items: Sequence[int], seeds: Sequence[int]) -> Images:
        return images_of(
            painter.paint(
                [texts[i] for i in items],
                seeds=seeds,
                encoders=encoders,
                style=[given[i].style for i in items],
                regions=[given[i].regions for i in items],
                settings=settings,
            )
        )

    return Arm(name=name, paint=paint)


def real_pictures(plans: Sequence[Plan] | Sequence[Prompt], size: int) -> Arm:
    """The arm of real pictures: plans on a ground that the seed chooses, or prompts in a layout that it chooses."""

    def paint(items: Sequence[int], seeds: Sequence[int]) -> Images:
        drawn = [_real(plans[i], seed) for i, seed in zip(items, seeds, strict=True)]
        pictures = np.stack([render(plan, size) for plan in drawn])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1

    return Arm(name=REAL, paint=paint)


def region_arms(
    painter: Painter,
    prompts: Sequence[LayoutPrompt],
    strengths: Sequence[float],
    weights: Mapping[str, Any],
    settings: Mapping[str, StageSettings],
) -> list[Arm]:
    """One arm without regions, and one for each weighting and strength."""
    texts = [prompt.text for prompt in prompts]
    means = [
        Means(regions=tuple(Region(thing, box) for thing, box in prompt.places))
        for prompt in prompts
    ]
    arms = [painting("without", painter, texts, settings=settings)]
    for weighting, weight in weights.items():
        for strength in strengths:
            chosen = painter.resolve(
                settings, {"region_strength": strength, "region_weight": weight}
            )
            name = f"{weighting} {strength:g}"
            arms.append(painting(name, painter, texts, settings=chosen, means=means))
    return arms


def condition_arms(
    painter: Painter, prompts: Sequence[Prompt], settings: Mapping[str, StageSettings]
) -> list[Arm]:
    """T5, CLIP and both, each without and with a real picture of the same prompt as reference."""
    texts = [prompt.text for prompt in prompts]
    size = painter.stages[-1].size
    pictures = [Means(style=_drawn(real_plan(prompt, -1), size)) for prompt in prompts]
    arms: list[Arm] = []
    for name, encoders in CONDITIONS.items():
        arms.append(painting(name, painter, texts, settings=settings, encoders=encoders))
        arms.append(
            painting(
                f"{name} + picture",
                painter,
                texts,
                settings=settings,
                encoders=encoders,
                means=pictures,
            )
        )
    return arms


def prompt_tasks(prompts: Sequence[Prompt]) -> list[Task]:
    """Every claim that prompts make, as in an evaluation of alignment."""

    def task(prompt: Prompt) -> Task:
        def verdict(reading: Reading) -> Held:
            return {claim: [held] for claim, held in check(prompt.expected, reading).items()}

        return Task(name=prompt.text, verdict=verdict)

    return [task(prompt) for prompt in prompts]


def styles_of(prompts: Sequence[Prompt]) -> list[Style]:
    """A style for each prompt, every style but the plain one in turn."""
    return [STYLES[1 + i % (len(STYLES) - 1)] for i in range(len(prompts))]


def style_arms(
    painter: Painter, prompts: Sequence[Prompt], settings: Mapping[str, StageSettings]
) -> list[Arm]:
    """Without a reference, and with a picture of other things in the style asked for."""
    texts = [prompt.text for prompt in prompts]
    size = painter.stages[-1].size
    count = len(prompts)
    means: list[Means] = []
    for i, style in enumerate(styles_of(prompts)):
        # Another prompt's things, so that only the style can be what was borrowed.
        other = prompts[(i + 1 + derive(0, "reference", i) % max(count - 1, 1)) % count]
        plan = dataclasses.replace(real_plan(other, -2), style=style)
        means.append(Means(style=_drawn(plan, size)))
    return [
        painting("without", painter, texts, settings=settings),
        painting("with reference", painter, texts, settings=settings, means=means),
    ]


def style_tasks(prompts: Sequence[Prompt]) -> list[Task]:
    """Whether the style of the reference is recognised, and whether the things of the prompt are there."""

    def task(prompt: Prompt, style: Style) -> Task:
        def verdict(reading: Reading) -> Held:
            things = check(prompt.expected, reading)["things"]
            is_style = reading.style == style
            return {"style": [is_style], "things": [things], "both": [is_style and things]}

        return Task(name=f"{prompt.text} ({style})", verdict=verdict)

    return [task(p, s) for p, s in zip(prompts, styles_of(prompts), strict=True)]


def styled_pictures(prompts: Sequence[Prompt], size: int) -> Arm:
    """Real pictures of the prompts in the styles that the references have."""
    styles = styles_of(prompts)

    def paint(items: Sequence[int], seeds: Sequence[int]) -> Images:
        drawn = [
            dataclasses.replace(real_plan(prompts[i], seed), style=styles[i])
            for i, seed in zip(items, seeds, strict=True)
        ]
        return images_of([_drawn(plan, size) for plan in drawn])

    return Arm(name=REAL, paint=paint)


def guidance_arms(
    painters: Sequence[Painter],
    prompts: Sequence[Prompt],
    scales: Sequence[float],
    settings: Sequence[Mapping[str, StageSettings]],
) -> list[Arm]:
    """Every model at every guidance scale, named ``model @ scale``.

    Raises:
        InputError: For two models of one name.
    """
    names = [painter.name for painter in painters]
    if len(set(names)) < len(names):
        raise InputError(f"models to compare need names of their own, got {names}")
    texts = [prompt.text for prompt in prompts]
    return [
        painting(
            f"{painter.name} @ {scale:g}",
            painter,
            texts,
            settings=painter.resolve(own, {"guidance_scale": scale}),
        )
        for painter, own in zip(painters, settings, strict=True)
        for scale in scales
    ]


def _real(asked: Plan | Prompt, seed: int) -> Plan:
    return real_plan(asked, seed) if isinstance(asked, Prompt) else on_another_ground(asked, seed)


def _drawn(plan: Plan, size: int) -> Image:
    from PIL.Image import fromarray

    return fromarray(render(plan, size))


__all__ = [
    "CONDITIONS",
    "Means",
    "condition_arms",
    "guidance_arms",
    "painting",
    "prompt_tasks",
    "real_pictures",
    "region_arms",
    "style_arms",
    "style_tasks",
    "styled_pictures",
    "styles_of",
]
