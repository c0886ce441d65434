"""What an autoencoder loses of pictures of the drawn world that it has not seen, and what it costs.

    python benchmarks/autoencoder.py runs/piccolo-autoencoder

Three ways through: not at all, through the latents, and shrunk by the autoencoder's factor and enlarged again. For
each, how near the pictures come back, what the judge still reads in them, and how far they lie from the pictures
themselves in its features. The judge knows nothing of autoencoders, and no autoencoder of ours was trained on it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig, WorldSource
from bottega.evaluation.features import picture_distance
from bottega.evaluation.judge import Judge
from bottega.evaluation.judge_accuracy import judge_accuracy
from bottega.evaluation.judge_world import judge_world
from bottega.pipelines.latent import find_autoencoder, stored_space
from bottega.recipes.srgan import find_judge

SEED = 977
"""Of a world that nothing here was trained on."""

AT_ONCE = 32


class Through:
    """The judge, reading pictures after they went a way."""

    def __init__(self, judge: Judge, way: Callable[[Tensor], Tensor]) -> None:
        self.judge, self.way = judge, way
        self.digest, self.config = judge.digest, judge.config

    def read(self, images: Tensor) -> list:
        """Say what is still to be seen."""
        return self.judge.read(torch.cat([self.way(part) for part in images.split(AT_ONCE)]))


def decibels(one: Tensor, other: Tensor) -> float:
    """The peak signal-to-noise ratio."""
    error = (one - other).double().square().mean()
    return float(10 * torch.log10(4 / error.clamp(min=1e-12)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("autoencoder", type=Path)
    parser.add_argument("--model", default="piccolo", help="whose judge reads")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--things", type=int, default=100, help="how many things the world shows")
    asked = parser.parse_args()
    judge = find_judge(asked.model)
    space = stored_space(find_autoencoder(asked.autoencoder))
    world: EmojiWorldConfig = judge_world(num_things=asked.things, seed=SEED)
    source = WorldSource(EmojiWorld(world), asked.size)
    real = source.batch(range(asked.pictures)).clean()

    def shrunk(images: Tensor) -> Tensor:
        small = F.avg_pool2d(images, space.factor)
        return F.interpolate(small, scale_factor=space.factor, mode="bicubic").clamp(-1, 1)

    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "as they are": lambda images: images,
        "latents": lambda images: space.decode(space.encode(images)).clamp(-1, 1),
        "shrunk": shrunk,
    }
    numbers = space.channels / (3 * space.factor**2)
    print(
        f"{asked.pictures} pictures of {asked.size} px; latents hold {numbers:.1%} of their numbers"
    )
    for name, way in ways.items():
        given = torch.cat([way(part) for part in real.split(AT_ONCE)])
        read = judge_accuracy(
            Through(judge, way), world, num_pictures=asked.pictures, size=asked.size
        )
        shares = ", ".join(f"{what} {share.value:.1%}" for what, share in read.items())
        distance = picture_distance(judge, given.split(AT_ONCE), real.split(AT_ONCE))
        print(f"{name:12} {decibels(given, real):6.2f} dB, distance {distance:.4g}; {shares}")
    part = real[:AT_ONCE]
    latents = space.encode(part)
    for name, work in (
        ("encode", lambda: space.encode(part)),
        ("decode", lambda: space.decode(latents)),
    ):
        seconds = []
        for _ in range(3):
            began = time.process_time()
            work()
            seconds.append(time.process_time() - began)
        print(f"{name:12} {len(part) / max(min(seconds), 1e-9):,.0f} pictures per processor second")


if __name__ == "__main__":
    main()
