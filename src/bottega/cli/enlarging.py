"""The work of ``bottega evaluate super-resolution``: a painter's stages, put to enlarging."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.cli.measuring import write_facts

if TYPE_CHECKING:
    from bottega.diffusion import Step
    from bottega.evaluation.judge import Judge
    from bottega.evaluation.super_resolution import LevelScore
    from bottega.pipelines import Painter, StageSettings
    from bottega.shapes import Images

OWN, CLEAN = "the model's own", "clean"


def enlarge_all(
    painter: "Painter",
    judge: "Judge",
    num_pictures: int,
    levels: Sequence[float],
    settings: "Mapping[str, StageSettings]",
    output: Path | None,
) -> "tuple[list[LevelScore], LevelScore]":
    """Sweep the levels on the first stage's own pictures and on clean ones; the best level is that of the former.

    Raises:
        InputError: For a model of one stage.
    """
    from bottega.config import to_json
    from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig
    from bottega.errors import InputError
    from bottega.evaluation.features import picture_statistics
    from bottega.evaluation.probes.subject import told, unseen
    from bottega.evaluation.super_resolution import proposed, sweep
    from bottega.training.denoiser_objective import shrink

    if len(painter.stages) < 2:
        raise InputError(f"{painter.name} has one stage and enlarges nothing")
    base, large = painter.stages[:2]
    world = EmojiWorld(EmojiWorldConfig(split="held_out"))
    captions = [world[i].caption for i in range(num_pictures)]
    silence = told(painter, [""])
    own = [
        _last(
            base.paint(told(painter, [t]), silence, [i], settings[base.name], device=painter.device)
        )
        for i, t in enumerate(captions)
    ]
    clean = [unseen(painter, large, i, 1)[0] for i in range(num_pictures)]
    real = picture_statistics(judge, clean)

    def enlarge(low_res: "Images", level: float, seeds: Sequence[int]) -> "Images":
        chosen = replace(settings[large.name], low_res_sigma=level)
        cond = told(painter, [captions[seed] for seed in seeds])
        walk = large.paint(cond, silence, seeds, chosen, low_res=low_res, device=painter.device)
        return large.pictures(_last(walk)).clamp(-1, 1)

    small = {
        OWN: [base.pictures(x).clamp(-1, 1) for x in own],
        CLEAN: [shrink(picture, base.size) for picture in clean],
    }
    scores = [
        score
        for source, pictures in small.items()
        for score in sweep(source, pictures, levels, enlarge, judge.features, real)
    ]
    best = proposed(scores, OWN)
    if output is not None:
        facts = {
            "judge": judge.digest,
            "pictures": num_pictures,
            "settings": to_json(dict(settings)),
            "scores": to_json(tuple(scores)),
            "proposed_low_res_sigma": best.low_res_sigma,
        }
        write_facts(output, painter, "super-resolution", facts)
    return scores, best


def _last(walk: "Iterator[Step]") -> "Images":
    """Where a walk ends."""
    *_, step = walk
    return step.x


__all__ = ["enlarge_all"]
