"""What edge supervision adds to a training step: the same recipe with edges and without, in turns, on random pictures.

Steps are timed forward and back, without the optimiser. ``below`` is the share of pictures with little enough noise to
learn edges, of the recipe's own draws; only these go through the heads, but every picture's attention is written out.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace

import torch
from contenders import Clock
from recipe_step import told
from torch import nn

from bottega import seeding
from bottega.data import Batch
from bottega.recipes import recipe
from bottega.recipes.run import DenoiserTask, RunConfig
from bottega.recipes.train import build
from bottega.training import Objective
from bottega.training.edge_objective import EdgeSupervision
from bottega.training.precision import Masters


def contender(config: RunConfig, edges: EdgeSupervision | None) -> tuple[nn.Module, Objective]:
    """Network and loss, in the precision in which the recipe trains."""
    assert isinstance(config.task, DenoiserTask)
    network, objective = build(replace(config, task=replace(config.task, edges=edges)))
    Masters(network, config.train.precision)
    return network.train(), objective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="lab-raphael")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--size", type=int, help="the recipe's when not given")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    config = recipe(options.recipe)
    if not isinstance(config.task, DenoiserTask) or config.task.latents is not None:
        raise SystemExit(f"{options.recipe} trains no denoiser of pixels")
    size = config.size if options.size is None else options.size
    draw = seeding.generator(0, "pictures")
    shape = (options.images, 3, size, size)
    batch = Batch(
        images=torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw),
        captions=("",) * options.images,
        indices=tuple(range(options.images)),
        condition=told(config.task, options.images),
        edges=torch.randint(0, 2, (shape[0], size, size), dtype=torch.uint8, generator=draw) * 255,
    )
    settings = EdgeSupervision()
    pairs = [contender(config, settings), contender(config, None)]
    sigmas: list[torch.Tensor] = []

    def step(network: nn.Module, objective: Objective, turn: int) -> Callable[[], None]:
        def work() -> None:
            loss = objective(network, batch, seeding.generator(0, "step", turn))
            loss.total.backward()
            if loss.sigma is not None:
                sigmas.append(loss.sigma)

        return work

    clocks = [Clock([], []), Clock([], [])]
    for network, objective in pairs:
        step(network, objective, 0)()
    for turn in range(options.rounds):
        for clock, (network, objective) in zip(clocks, pairs, strict=True):
            network.zero_grad()
            clock.time(step(network, objective, turn))
    ratios = {
        kind: [
            a / b for a, b in zip(getattr(clocks[0], kind), getattr(clocks[1], kind), strict=True)
        ]
        for kind in ("wall", "cpu")
    }
    below = float((torch.cat(sigmas) < settings.below_sigma).float().mean())
    heads = sum(p.numel() for n, p in pairs[0][0].named_parameters() if n.startswith("edge_heads"))
    for kind, found in ratios.items():
        print(
            f"{options.recipe}, batches of {options.images}: a step with edges takes "
            f"{statistics.median(found):.2f} of one without ({kind}, {min(found):.2f} to {max(found):.2f})"
        )
    print(f"{below:.0%} of the pictures below the threshold, {heads:,} weights in the heads")


if __name__ == "__main__":
    main()
