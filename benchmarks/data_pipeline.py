"""How many pictures of Emoji World one core makes in a second, at the sizes training uses.

Run ``python benchmarks/data_pipeline.py``. Time is this process's CPU time, so other work on the machine counts
little; each size is measured several times, after the sprites it needs have been made once.
"""

import argparse
import statistics
import time

from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig, WorldSource


def rates(size: int, pictures: int, repeats: int, num_things: int) -> list[float]:
    """Pictures a second, in batches of 64, of each repeat."""
    source = WorldSource(EmojiWorld(EmojiWorldConfig(num_things=num_things)), size)
    source.batch(range(10**6, 10**6 + pictures))
    measured: list[float] = []
    for repeat in range(repeats):
        first = repeat * pictures
        start = time.process_time()
        for at in range(first, first + pictures, 64):
            source.batch(range(at, min(at + 64, first + pictures)))
        measured.append(pictures / (time.process_time() - start))
    return measured


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--things", type=int, default=120)
    arguments = parser.parse_args()
    print("size  images/s (median)  lowest  highest")
    for size in arguments.sizes:
        pictures = max(256, 4096 * 32 // size)
        measured = rates(size, pictures, arguments.repeats, arguments.things)
        print(
            f"{size:4d}  {statistics.median(measured):17.0f}  {min(measured):6.0f}  {max(measured):7.0f}"
        )


if __name__ == "__main__":
    main()
