"""How long `import bottega` and `bottega --help` take, beside an empty interpreter and `import torch`.

Processes are started in turn, so that a busy machine slows all of them alike; medians and quartiles of the wall time
are printed, what each adds to the empty interpreter, and the processor's time, which a busy machine changes least.
`bottega --help` is held to half a second on two idle cores.

    python benchmarks/import_time.py [--rounds 15]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

LIMIT_S = 0.5
PYTHON = sys.executable
BOTTEGA = str(Path(sys.executable).parent / "bottega")
COMMANDS = {
    "python -c pass": [PYTHON, "-c", "pass"],
    "import bottega": [PYTHON, "-c", "import bottega"],
    "bottega --help": [BOTTEGA, "--help"],
    "bottega paint --help": [BOTTEGA, "paint", "--help"],
    "import torch": [PYTHON, "-c", "import torch"],
    "bottega.Painter (brings torch)": [PYTHON, "-c", "import bottega; bottega.Painter"],
}


class Spent(NamedTuple):
    """What one run of a command took, in seconds."""

    wall_s: float
    cpu_s: float


def spent(command: list[str]) -> Spent:
    """Run ``command`` once."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall_s = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(wall_s, cpu_s)


def measure(rounds: int) -> dict[str, list[Spent]]:
    """Every command, taken in turn; the first round only warms the file cache."""
    runs: dict[str, list[Spent]] = {name: [] for name in COMMANDS}
    for round_index in range(rounds + 1):
        for name, command in COMMANDS.items():
            run = spent(command)
            if round_index > 0:
                runs[name].append(run)
    return runs


def main() -> int:
    """Print the table; fail where `bottega --help` misses its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="runs of each command")
    rounds = max(2, parser.parse_args().rounds)
    runs = measure(rounds)
    empty = statistics.median(run.wall_s for run in runs["python -c pass"])
    print(f"{'':32} {'median':>8} {'quartiles':>15} {'over empty':>11} {'processor':>10}")
    for name, values in runs.items():
        low, middle, high = statistics.quantiles((run.wall_s for run in values), n=4)
        cpu = statistics.median(run.cpu_s for run in values)
        print(
            f"{name:32} {middle:7.3f}s {low:7.3f}-{high:.3f}s {middle - empty:10.3f}s {cpu:9.3f}s"
        )
    middle = statistics.median(run.wall_s for run in runs["bottega --help"])
    verdict = "kept" if middle < LIMIT_S else "MISSED"
    print(f"bottega --help: {middle:.3f} s, limit {LIMIT_S} s: {verdict}")
    return int(middle >= LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
