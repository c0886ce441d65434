"""How long `import bottega` and `bottega --help` take, beside an empty interpreter and `import torch`.

Processes are started in turn, so that a busy machine slows all of them alike; medians and quartiles are printed, and
what each adds to the empty interpreter. `bottega --help` is held to half a second on two cores.

    python benchmarks/import_time.py [--rounds 15]
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

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


def seconds(command: list[str]) -> float:
    """The wall time of one run of ``command``."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, list[float]]:
    """Times of every command, taken in turn; the first round only warms the file cache."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_index in range(rounds + 1):
        for name, command in COMMANDS.items():
            spent = seconds(command)
            if round_index > 0:
                times[name].append(spent)
    return times


def main() -> int:
    """Print the table; fail where `bottega --help` misses its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="runs of each command")
    rounds = max(2, parser.parse_args().rounds)
    times = measure(rounds)
    empty = statistics.median(times["python -c pass"])
    print(f"{'':32} {'median':>8} {'quartiles':>15} {'over empty':>11}")
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{name:32} {middle:7.3f}s {low:7.3f}-{high:.3f}s {middle - empty:10.3f}s")
    middle = statistics.median(times["bottega --help"])
    print(
        f"bottega --help: {middle:.3f} s, limit {LIMIT_S} s: {'kept' if middle < LIMIT_S else 'MISSED'}"
    )
    return int(middle >= LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
