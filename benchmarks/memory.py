"""Peak memory of a whole process that paints or trains: ours against diffusers' U-Net of the same shapes.

Every measurement is a process of its own, since a process does not give its peak back, and ours and theirs take turns.
``added`` is what the work needs beyond the process with its network and inputs in place, which leaves out how large
the libraries are; ``whole`` is everything. On a CPU this is resident memory as Linux counts it; with ``--device cuda``
it is what PyTorch's allocator handed out.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from contenders import DTYPES, Race, arguments, check, ours, painting, theirs, training

BUILD = {"ours": ours, "diffusers": theirs}
WORKS = ("painting", "training")


def resident(entry: str) -> int:
    """Bytes of this process's memory: VmRSS is now, VmHWM the highest since it was reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("peaks of memory are read from Linux's /proc/self/status")


def measure(side: str, what: str, race: Race, steps: int) -> dict[str, int]:
    """Run the work twice in this process and look at its memory."""
    network = BUILD[side](race)
    work = painting(network, race, steps) if what == "painting" else training(network, race)
    if race.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building
        before = resident("VmRSS")
    for _ in range(2):
        check(work(), race)
    peak = torch.cuda.max_memory_allocated() if race.device == "cuda" else resident("VmHWM")
    return {"added": peak - before, "whole": peak}


def in_a_process(side: str, what: str, dtype: str) -> dict[str, int]:
    """The same in a process of its own, with this one's options."""
    command = [sys.executable, __file__, *sys.argv[1:], "--dtypes", dtype, "--only", side, what]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    options = arguments(__doc__, only=True)
    if options.only is not None:
        race = Race(DTYPES[options.dtypes[0]], options.size, options.images, options.device)
        print(json.dumps(measure(*options.only, race, options.steps)))
        return
    for dtype in options.dtypes:
        for what in WORKS:
            runs = {side: [] for side in BUILD}
            for _ in range(options.rounds):
                for side, found in runs.items():
                    found.append(in_a_process(side, what, dtype))
            for kind in ("added", "whole"):
                mib = {s: [run[kind] / 2**20 for run in found] for s, found in runs.items()}
                ratios = [a / b for a, b in zip(mib["ours"], mib["diffusers"], strict=True)]
                print(
                    f"{what} {dtype}, {kind}: ratio {statistics.median(ratios):.3f} "
                    f"({min(ratios):.3f} to {max(ratios):.3f}), ours "
                    f"{statistics.median(mib['ours']):.0f} MiB, diffusers "
                    f"{statistics.median(mib['diffusers']):.0f} MiB"
                )


if __name__ == "__main__":
    main()
