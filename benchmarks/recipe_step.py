"""A whole training step of a recipe, optimiser included, as a share of the rate of plain matrix products.

Operations are the matrix products and convolutions of the whole step: forward, back and (Muon's) in the optimiser.
What is not a product counts as time only. ``learning`` is the step without its optimiser.
"""

import argparse
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from bottega import seeding
from bottega.condition import Condition, Stream
from bottega.data import Batch
from bottega.recipes import recipe
from bottega.recipes.run import DenoiserTask
from bottega.recipes.train import build
from bottega.training.optim import build_optimizer
from bottega.training.precision import Masters, clip_gradients

TOKENS = {"t5": 32, "clip_text": 32, "clip_image": 1}


def told(task: DenoiserTask, count: int) -> Condition:
    """Random features of the lengths that captions have."""
    draw = seeding.generator(0, "told")
    streams = {}
    for plan in task.network.streams:
        length = TOKENS.get(plan.name, 32)
        streams[plan.name] = Stream(
            tokens=torch.randn(count, length, plan.width, generator=draw),
            mask=torch.ones(count, length, dtype=torch.bool),
            pooled=None
            if plan.pool is None
            else torch.randn(count, plan.pool.width, generator=draw),
        )
    return Condition(streams=streams)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="piccolo-base")
    parser.add_argument("--images", type=int, help="a batch; the recipe's when not given")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    config = recipe(options.recipe)
    if not isinstance(config.task, DenoiserTask):
        raise SystemExit(f"{options.recipe} trains no denoiser")
    count = config.train.batch_size if options.images is None else options.images
    network, objective = build(config)
    masters = Masters(network, config.train.precision)
    optimizer = build_optimizer(
        config.train.optimizer, masters.tensors, learning_rate=config.train.learning_rate
    )
    pictures = torch.randint(0, 256, (count, 3, config.size, config.size), dtype=torch.uint8)
    batch = Batch(
        images=pictures,
        captions=("",) * count,
        indices=tuple(range(count)),
        condition=told(config.task, count),
    )

    def learn() -> None:
        objective(network, batch, seeding.generator(0, "step")).total.backward()

    def step() -> None:
        masters.clear_gradients()
        learn()
        masters.collect_gradients()
        clip_gradients(masters.gradients(), 1.0)
        optimizer.step()
        masters.publish()

    works = {"learning": learn, "whole step": step}
    operations = {}
    for name, work in works.items():
        with FlopCounterMode(display=False) as counter:
            work()
        operations[name] = counter.get_total_flops()
    n = 2048
    a = torch.randn(n, n).to(next(network.parameters()).dtype)
    works["product"] = lambda: a @ a
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(options.rounds + 2):
        for name, work in works.items():
            masters.clear_gradients()
            begin = time.perf_counter()
            work()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - begin)
    rate = 2 * n**3 / min(seconds["product"])
    for name, count_ in operations.items():
        lap = statistics.median(seconds[name])
        print(
            f"{options.recipe}, {name}: {count / lap:.0f} pictures/s in batches of {count}, "
            f"{count_ / 1e9:.0f} GFLOP, {count_ / lap / rate:.0%} of {rate / 1e9:.0f} GFLOP/s "
            f"(best {count_ / min(seconds[name]) / rate:.0%})"
        )


if __name__ == "__main__":
    main()
