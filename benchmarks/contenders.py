"""The two networks that the benchmarks race: ours in Stable Diffusion's form, and diffusers' of the same shapes.

Both have the same widths, depths, heads, norm groups and text width; their parameters are compared before each race.
The weights are random and not shared, so that outputs are checked for shape and finiteness, not for equality.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from bottega.condition import Condition, Stream
from bottega.models import UNet
from bottega.models.plans import sd_like

TOKENS = 77
TEXT_WIDTH = 256
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Race:
    """One precision, one shape."""

    dtype: torch.dtype
    size: int
    images: int
    device: str


def ours(race: Race) -> UNet:
    return UNet(sd_like()).to(device=race.device, dtype=race.dtype)


def theirs(race: Race) -> nn.Module:
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(
        sample_size=race.size,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(128, 256, 512),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(2, 4, 8),  # diffusers' word for the number of heads
        norm_num_groups=32,
    )
    network = network.to(device=race.device, dtype=race.dtype)
    return network.to(memory_format=torch.channels_last)


def text(race: Race, batch: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randn(batch, TOKENS, TEXT_WIDTH, generator=draw)
    return tokens.to(device=race.device, dtype=race.dtype)


def as_condition(tokens: torch.Tensor) -> Condition:
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return Condition(streams={"clip_text": Stream(tokens=tokens, mask=mask)})


def noise(race: Race, batch: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 4, race.size, race.size, generator=draw)
    return x.to(device=race.device, dtype=race.dtype).contiguous(memory_format=torch.channels_last)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@dataclass
class Clock:
    """Seconds on the wall and seconds of processor time, run by run."""

    wall: list[float]
    cpu: list[float]

    def time(self, work: Callable[[], object]) -> None:
        """Run once and note how long it took."""
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def matmul_rate(race: Race) -> float:
    """The machine's best rate for a matrix product in this precision, in FLOP/s."""
    n = 4096 if race.device == "cuda" else 1024
    a = torch.randn(n, n, device=race.device, dtype=race.dtype)
    clock = Clock([], [])
    for _ in range(8):
        clock.time(lambda: a @ a)
    return 2 * n**3 / min(clock.wall)


def run_race(
    our_work: Callable[[], object], their_work: Callable[[], object], rounds: int
) -> tuple[Clock, Clock]:
    """Alternate, after a round that warms both up."""
    our_clock, their_clock = Clock([], []), Clock([], [])
    our_work()
    their_work()
    for _ in range(rounds):
        our_clock.time(our_work)
        their_clock.time(their_work)
    return our_clock, their_clock


def report(name: str, our_clock: Clock, their_clock: Clock, flops: int, rate: float) -> None:
    """Ratios below 1 mean that we are faster; the spread is that of the rounds."""
    for kind in ("wall", "cpu"):
        ours_s, theirs_s = getattr(our_clock, kind), getattr(their_clock, kind)
        ratios = [a / b for a, b in zip(ours_s, theirs_s, strict=True)]
        print(
            f"{name} {kind}: ratio {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}), "
            f"ours {min(ours_s):.3f} s, diffusers {min(theirs_s):.3f} s"
        )
    print(
        f"{name}: ours {flops / min(our_clock.wall) / rate:.0%} of the matrix-multiply rate "
        f"({rate / 1e9:.0f} GFLOP/s), diffusers {flops / min(their_clock.wall) / rate:.0%}"
    )


def arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", type=int, default=32, help="height and width of the latent")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    return parser.parse_args()
