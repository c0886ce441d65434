"""Enlarging tile by tile: how far from the whole picture at once, in how much memory, and how long it takes.

The first table enlarges one picture whole and in tiles that see ever more of their surroundings; the last row sees all
that has a say, and must come within one level of 255. The second enlarges pictures of growing size in a process each,
and prints the peak of resident memory beyond the process with its network and picture in place, as Linux counts it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from memory import resident
from PIL import Image

from bottega.errors import CheckpointError
from bottega.models.srgan import RRDBNet
from bottega.pipelines.enlarging import Enlarger, load_enlarger
from bottega.recipes import recipe


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="piccolo-srgan")
    parser.add_argument("--whole", type=int, default=192, help="side that is enlarged at once too")
    parser.add_argument("--tile", type=int, default=64, help="side of the tiles of that one")
    parser.add_argument("--sizes", default="256x256,512x512,1024x1536", help="HEIGHTxWIDTH, ...")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser.parse_args()


def network(asked: argparse.Namespace) -> Enlarger:
    """The enlarger asked for; the recipe's with random weights where it has not been trained."""
    try:
        return load_enlarger(asked.model, device="cpu", dtype=asked.dtype)
    except CheckpointError:
        torch.manual_seed(0)
        fresh = RRDBNet(recipe("piccolo-srgan").task.network).eval().requires_grad_(False)
        return Enlarger(network=fresh, name="random", digest="", device=torch.device("cpu"))


def picture(height: int, width: int) -> Image.Image:
    """Coloured noise of several sizes, so that near and far both matter."""
    draws = np.random.default_rng(0)
    total = np.zeros((height, width, 3))
    for block in (1, 4, 16):
        coarse = draws.normal(size=(-(-height // block), -(-width // block), 3))
        total += coarse.repeat(block, 0).repeat(block, 1)[:height, :width]
    return Image.fromarray((128 + 40 * total).clip(0, 255).astype(np.uint8))


def halos(one: Enlarger, side: int, tile: int) -> bool:
    small = picture(side, side)
    pixels = torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy())[None].float()
    whole = ((one.whole(pixels / 127.5 - 1)[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    print(f"{one.name}, {side} px in tiles of {tile}: levels of 255 from the whole picture")
    largest = 0
    for halo in sorted({0, 2, 4, 8, 16, 32, one.halo_px}):
        if halo > one.halo_px:
            continue
        tiled = np.asarray(one.enlarge(small, tile_px=tile, halo_px=halo), np.int16)
        error = np.abs(tiled - whole)
        largest = int(error.max())
        print(f"  halo {halo:4} px: at most {largest:3}, {(error > 0).mean():8.4%} differ")
    return largest <= 1


def measure(asked: argparse.Namespace, size: str) -> dict[str, float]:
    one = network(asked)
    small = picture(*(int(side) for side in size.split("x")))
    one.enlarge(small.crop((0, 0, 16, 16)))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    began = time.perf_counter()
    large = one.enlarge(small)
    seconds = time.perf_counter() - began
    beyond = max(0, resident("VmHWM") - before)  # Linux counts pages late, so that it may be below
    return {
        "seconds": seconds,
        "mib": beyond / 2**20,
        "result_mib": large.width * large.height * 3 / 2**20,
    }


def main() -> None:
    asked = options()
    if asked.only is not None:
        print(json.dumps(measure(asked, asked.only)))
        return
    exact = halos(network(asked), asked.whole, asked.tile)
    print("peak memory and time of a process for each size")
    for size in asked.sizes.split(","):
        found = []
        for _ in range(asked.rounds):
            command = [sys.executable, __file__, *sys.argv[1:], "--only", size]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
        middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
        print(
            f"  {size:>10}: {middle['mib']:6.0f} MiB, of which the result {middle['result_mib']:5.0f}, "
            f"{middle['seconds']:7.1f} s"
        )
    if not exact:
        raise SystemExit("tiles that see all that matters differ from the whole picture")


if __name__ == "__main__":
    main()
