"""What regions cost: whole pictures painted with and without them, in turns, in one process.

The share of time is that of the whole picture: encoders, every stage, and what is done once per picture.
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch

import bottega
from bottega.pipelines import Painter, Region

PROMPT = "a pizza to the left of a cat"
REGIONS = [Region("pizza", (0, 0, 0.5, 1)), Region("cat", (0.5, 0, 1, 1))]


def lap(painter: Painter, regions: list[Region], steps: int | None, seed: int) -> float:
    """CPU seconds of one picture; they depend less on what else runs than seconds on the clock."""
    settings = painter.settings
    if steps is not None:
        settings = {name: replace(own, steps=steps) for name, own in settings.items()}
    if painter.device.type == "cuda":
        torch.cuda.synchronize(painter.device)
        begin = time.perf_counter()
        painter.paint(PROMPT, regions=regions, seeds=seed, settings=settings)
        torch.cuda.synchronize(painter.device)
        return time.perf_counter() - begin
    begin = time.process_time()
    painter.paint(PROMPT, regions=regions, seeds=seed, settings=settings)
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="piccolo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--steps", type=int, default=None, help="the model's own by default")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    for dtype in options.dtypes.split(","):
        painter = bottega.load(options.model, device=options.device, dtype=dtype)
        for regions in ([], REGIONS):
            lap(painter, regions, options.steps, 0)
        ratios, plain = [], []
        for seed in range(options.rounds):
            without = lap(painter, [], options.steps, seed)
            ratios.append(lap(painter, REGIONS, options.steps, seed) / without)
            plain.append(without)
        low, *_, high = sorted(ratios)
        print(
            f"{dtype} on {painter.device}: a plain picture {statistics.median(plain):.2f} s; "
            f"with regions {statistics.median(ratios):.3f} times that ({low:.3f} to {high:.3f})"
        )


if __name__ == "__main__":
    main()
