"""How well the arms of an experiment denoise scenes that none has seen, and what the choices of their gates are worth.

Pictures that are right nearly always tell arms apart badly; the squared error at a noise level, on the same scenes and
the same noise, tells more. Where an arm has a choice of experts, its words or its noise levels are sent to others, too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import torch

import bottega
from bottega.data.emoji_world import EmojiWorldConfig
from bottega.diffusion import Denoiser
from bottega.errors import InputError
from bottega.evaluation.probes import misroute
from bottega.evaluation.probes.subject import told
from bottega.recipes import RunConfig
from bottega.recipes.sources import picture_source
from bottega.rundir import write_atomically
from bottega.seeding import generator

SIGMAS = (0.1, 0.3, 1.0, 3.0, 8.0)
UNSEEN = 4211
"""What the world's seed is moved by, for scenes that no arm has seen."""

Row = dict[str, list[float]]
"""Of one arm: ``error`` at each noise level, and the error's growth with ``space`` or ``time`` experts drawn by lot."""


def measure_errors(models: Sequence[Path], home: Path, config: RunConfig, *, pictures: int) -> None:
    """Errors of a seed's models on new scenes of the world that ``config`` learns, into ``home/errors.json``.

    The lab holds no kind of scene back; its scenes under another seed are others.
    """
    target = home / "errors.json"
    if target.is_file():
        return
    assert isinstance(config.data, EmojiWorldConfig)
    unseen = replace(config, data=replace(config.data, seed=config.data.seed + UNSEEN))
    batch = picture_source(unseen).batch(range(pictures))
    clean = batch.clean()
    eps = torch.randn(clean.shape, generator=generator(0, "unseen errors"))
    rows: dict[str, Row] = {}
    for folder in models:
        painter = bottega.load(folder)
        denoiser = painter.stages[-1].denoiser
        assert isinstance(denoiser, Denoiser)
        condition = told(painter, batch.captions)
        with torch.no_grad():
            context = denoiser.prepare(condition)
            row = {"error": [_error(denoiser, clean, eps, sigma, context) for sigma in SIGMAS]}
        try:
            worth = misroute(denoiser, clean, condition, SIGMAS, block_by_block=False)
        except InputError:  # it has no choice of experts
            worth = []
        row |= {one.kind: [one.growth] for one in worth}
        rows[painter.name] = row
    write_atomically(target, json.dumps({"sigmas": SIGMAS, "arms": rows}, indent=1).encode())


def errors_as_markdown(folder: Path) -> list[str]:
    """A row per arm: its error at each noise level and what its gates' choices are worth, each over the seeds."""
    studies = [json.loads(p.read_text()) for p in sorted(folder.glob("seed-*/errors.json"))]
    if not studies:
        return []
    heads = [f"sigma {sigma:g}" for sigma in studies[0]["sigmas"]]
    heads += ["words misled", "noise misled"]
    lines = ["| arm | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for arm in studies[0]["arms"]:
        rows: list[Mapping[str, list[float]]] = [
            s["arms"][arm] for s in studies if arm in s["arms"]
        ]
        cells = [_spread(values, ".4f") for values in zip(*(r["error"] for r in rows), strict=True)]
        for kind in ("space", "time"):
            grown = [100 * row[kind][0] for row in rows if kind in row]
            cells.append(f"{_spread(grown, '+.2f')}%" if grown else "")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return lines


def _error(
    denoiser: Denoiser, clean: torch.Tensor, eps: torch.Tensor, sigma: float, context: object
) -> float:
    given = denoiser(clean + sigma * eps, torch.full((len(clean),), sigma), context)
    return float((given.float() - clean).square().mean())


def _spread(values: Sequence[float], digits: str) -> str:
    middle = format(mean(values), digits)
    return middle if len(values) < 2 else f"{middle} +- {format(stdev(values), digits.lstrip('+'))}"
