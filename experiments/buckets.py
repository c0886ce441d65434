"""Squares against buckets at equal images: what a base that learns many shapes gains in them, and loses in squares.

Per seed two runs of the lab's recipe differ in one setting, ``buckets``. Both are then asked about the same unseen
scenes of the drawn world in every shape, with the same noise, and their losses are compared scene by scene. Stopped, it
goes on where it was.

    python experiments/buckets.py runs/buckets --seeds 0 1 2 --images 150000
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from bottega.data import Buckets, EmojiWorld, EmojiWorldConfig, WorldSource
from bottega.pipelines import load_denoiser
from bottega.recipes import RunConfig, recipe, train
from bottega.recipes.run import DenoiserTask
from bottega.recipes.train import build, load_encoders
from bottega.rundir import write_atomically

UNSEEN = 10**9
AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Row:
    """One seed and shape: the mean losses of both, and their mean difference with its standard error."""

    seed: int
    bucket: str
    squares: float
    buckets: float
    difference: float
    error: float

    def __str__(self) -> str:
        share = self.difference / self.squares
        return (
            f"seed {self.seed}  {self.bucket:>7}  squares {self.squares:.4f}  buckets {self.buckets:.4f}  "
            f"difference {self.difference:+.4f} +- {self.error:.4f} ({share:+.1%})"
        )


def compare(
    config: RunConfig, buckets: Buckets, folder: Path, seeds: Sequence[int], scenes: int
) -> list[Row]:
    """Train both for every seed, and compare them on as many unseen scenes in every bucket.

    Args:
        config: A base of the drawn world; its own seed and buckets are replaced.
        buckets: The shapes of one of the two, which both are asked about.
        folder: Holds the runs.
        seeds: Of weights, order and noise.
        scenes: In each bucket.
    """
    rows: list[Row] = []
    for seed in seeds:
        losses: dict[str, dict[str, Float[Tensor, " scenes"]]] = {}
        for name, shapes in (("squares", None), ("buckets", buckets)):
            one = replace(config, buckets=shapes, train=replace(config.train, seed=seed))
            run = folder / f"{name}-{seed}"
            train(one, run, resume=True)
            losses[name] = asked(one, run, buckets, scenes)
        for bucket, squares in losses["squares"].items():
            own = losses["buckets"][bucket]
            gap = own - squares
            rows.append(
                Row(
                    seed=seed,
                    bucket=bucket,
                    squares=float(squares.mean()),
                    buckets=float(own.mean()),
                    difference=float(gap.mean()),
                    error=float(gap.std()) / sqrt(len(gap)),
                )
            )
            print(rows[-1], flush=True)
    return rows


@torch.no_grad()
def asked(
    config: RunConfig, run: Path, buckets: Buckets, scenes: int
) -> dict[str, Float[Tensor, " scenes"]]:
    """The losses of a run's averaged weights on unseen scenes, by bucket and scene; all runs get the same noise."""
    assert isinstance(config.data, EmojiWorldConfig) and isinstance(config.task, DenoiserTask)
    world, encoders = EmojiWorld(config.data), load_encoders(config.task.encoders)
    objective = build(config)[1]
    denoiser, _ = load_denoiser(run / "export")
    found: dict[str, Float[Tensor, " scenes"]] = {}
    for bucket in buckets.at(config.size):
        alone = Buckets(shapes=(str(bucket),), side=config.size, multiple=1)
        source = WorldSource(world, config.size, buckets=alone, num_examples=UNSEEN + scenes)
        parts: list[Tensor] = []
        for first in range(0, scenes, AT_ONCE):
            indices = range(UNSEEN + first, UNSEEN + min(first + AT_ONCE, scenes))
            batch = source.batch(indices)
            batch = replace(batch, condition=encoders.condition(batch.captions))
            draws = torch.Generator().manual_seed(first)
            loss = objective(denoiser.network, batch, draws).per_image
            assert loss is not None  # a denoiser's objective always has it
            parts.append(loss)
        found[str(bucket)] = torch.cat(parts)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", type=int, default=150_000)
    parser.add_argument("--scenes", type=int, default=512)
    parser.add_argument("--encoders", default="piccolo")
    options = parser.parse_args(arguments)
    config = recipe("lab")
    assert isinstance(config.task, DenoiserTask)
    config = replace(
        config,
        task=replace(config.task, encoders=options.encoders),
        train=replace(config.train, total_images=options.images),
    )
    rows = compare(config, Buckets(), options.folder, options.seeds, options.scenes)
    text = json.dumps([asdict(row) for row in rows], indent=2) + "\n"
    write_atomically(options.folder / "buckets.json", text.encode())


if __name__ == "__main__":
    main()
