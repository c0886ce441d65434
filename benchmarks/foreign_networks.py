"""One guided call of Stable Diffusion's and DeepFloyd IF's networks: ours against diffusers' on the same weights.

Random weights are made by diffusers' own class, saved, and read by us. Both sides run in channels-last memory, which is
the faster one for diffusers, alternating in one process; outputs are compared first. A ratio below 1 means that we are
faster. The share of the machine's matrix-multiply rate counts each network's own operations. What depends on the text
alone is done once by ours, outside the call, and again at every call by theirs.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from contenders import DTYPES, Clock, Laps, report
from foreign_parity import IF1, SD1, TOKENS, Pair, make_pair
from torch.utils.flop_counter import FlopCounterMode

from bottega.condition import Condition, Stream
from bottega.models import UNet

Call = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Contest:
    """A network's settings and the size it is called at."""

    settings: dict[str, Any]
    size: int


CONTESTS = {
    "sd": Contest(
        SD1
        | {
            "block_out_channels": (128, 256, 512, 512),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        32,
    ),
    "sd15": Contest(
        SD1
        | {
            "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        64,
    ),
    "if": Contest(
        IF1
        | {
            "block_out_channels": (128, 256, 384, 512),
            "cross_attention_dim": 512,
            "encoder_hid_dim": 1024,
            "attention_head_dim": 64,
            "addition_embed_type_num_heads": 16,
        },
        64,
    ),
    "tiny": Contest(IF1, 16),
}


def question(pair: Pair, contest: Contest, dtype: torch.dtype, device: str) -> tuple[Call, Call]:
    """The same call of both: two halves of guidance at one noise level."""
    draw = torch.Generator().manual_seed(0)
    width = pair.ours.config.streams[0].width
    tokens = torch.randn(2, TOKENS, width, generator=draw).to(device=device, dtype=dtype)
    x = torch.randn(2, pair.ours.config.in_channels, contest.size, contest.size, generator=draw).to(
        device=device, dtype=dtype, memory_format=torch.channels_last
    )
    level = torch.full((2,), 500.0, device=device)
    mask = torch.ones(2, TOKENS, dtype=torch.bool, device=device)
    with torch.inference_mode():
        context = pair.ours.prepare(
            Condition(streams={pair.info.stream: Stream(tokens=tokens, mask=mask)})
        )

    def ours() -> torch.Tensor:
        with torch.inference_mode():
            return pair.ours(x, level, context)

    def theirs() -> torch.Tensor:
        with torch.inference_mode():
            return pair.theirs(x, level, encoder_hidden_states=tokens).sample

    return ours, theirs


def count(call: Call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def operations(pair: Pair, contest: Contest) -> tuple[int, int]:
    """What one call of each takes, counted on the meta device, where no fused kernel hides anything."""
    with torch.device("meta"):
        abstract = Pair(type(pair.theirs)(**contest.settings), UNet(pair.ours.config), pair.info)
    ours, theirs = question(abstract, contest, torch.float32, "meta")
    return count(ours), count(theirs)


def race(pair: Pair, contest: Contest, dtype: torch.dtype, options: argparse.Namespace) -> Laps:
    """Alternating calls and plain matrix products, after a round that warms up and compares."""
    ours, theirs = question(pair, contest, dtype, options.device)
    said, expected = ours().float(), theirs().float()
    apart = float((said - expected).abs().max() / expected.abs().max())
    print(f"largest relative difference {apart:.1e}")
    if apart > (1e-4 if dtype == torch.float32 else 0.2):
        raise SystemExit("the two networks do not agree")
    n = 8192 if options.device == "cuda" else 2048
    a = torch.randn(n, n, device=options.device, dtype=dtype)
    a @ a
    our_clock, their_clock, product = Clock([], []), Clock([], []), Clock([], [])
    for _ in range(options.rounds):
        our_clock.time(ours)
        their_clock.time(theirs)
        product.time(lambda: a @ a)
    return Laps(our_clock, their_clock, 2 * n**3 / min(product.wall))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=CONTESTS, default=["sd", "if"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    options = parser.parse_args()
    for name in options.networks:
        contest = CONTESTS[name]
        with tempfile.TemporaryDirectory() as folder:
            pair = make_pair(contest.settings, Path(folder))
            parameters = sum(p.numel() for p in pair.ours.parameters())
            print(f"{name}: {parameters / 1e6:.0f}M parameters, {contest.size} x {contest.size}")
            ours, theirs = operations(pair, contest)
            for label in options.dtypes:
                dtype = DTYPES[label]
                pair.ours.to(device=options.device, dtype=dtype)
                pair.theirs.to(device=options.device, dtype=dtype)
                pair.theirs.to(memory_format=torch.channels_last)
                report(f"{name} {label}", race(pair, contest, dtype, options), ours, theirs)


if __name__ == "__main__":
    main()
