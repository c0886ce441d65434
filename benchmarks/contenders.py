"""The two networks that the benchmarks race: ours in Stable Diffusion's form, and diffusers' of the same shapes.

Both have the same widths, depths, heads, norm groups and text width; their parameters are compared before each race.
The weights are random and not shared, so that outputs are checked for shape and finiteness, not for equality.

Shares of the machine's rate use each network's own count of operations, taken on the meta device: there attention is
counted whichever kernel would run it, while fused attention on a CPU counts as nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bottega.condition import Condition, Stream
from bottega.models import UNet
from bottega.models.plans import sd_like

TOKENS = 77
TEXT_WIDTH = 256
GUIDANCE_SCALE = 5.0
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Race:
    """One precision, one shape."""

    dtype: torch.dtype
    size: int
    images: int
    device: str


def ours(race: Race) -> UNet:
    """Ours, with its silent layers given weights too, so that every layer works on numbers, as in theirs."""
    network = UNet(sd_like())
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network.to(device=race.device, dtype=race.dtype)


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


Work = Callable[[], torch.Tensor]
"""One painting, or one training step."""


def told(network: nn.Module, tokens: torch.Tensor) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """The network told its text. Ours reads it here, once; theirs at every call."""
    if isinstance(network, UNet):
        context = network.prepare(as_condition(tokens))
        return lambda x, level: network(x, x.new_full((len(x),), level).float(), context)
    return lambda x, level: network(x, 1000 * level, encoder_hidden_states=tokens).sample


def painting(network: nn.Module, race: Race, steps: int) -> Work:
    """Euler steps over falling noise levels, guided, with both halves in one call."""
    network.eval()
    start, tokens = noise(race, race.images), text(race, 2 * race.images)

    def work() -> torch.Tensor:
        with torch.inference_mode():
            predict, x = told(network, tokens), start
            for step in range(steps):
                uncond, cond = predict(torch.cat([x, x]), 1 - step / steps).chunk(2)
                x = x - (uncond + GUIDANCE_SCALE * (cond - uncond)) / steps
            return x

    return work


def training(network: nn.Module, race: Race) -> Work:
    """Forward and back, without the optimiser."""
    network.train()
    x, tokens = noise(race, race.images), text(race, race.images)

    def work() -> torch.Tensor:
        network.zero_grad(set_to_none=True)
        said = told(network, tokens)(x, 0.5)
        (said - x).square().mean().backward()
        return said.detach()

    return work


def flops(build: Callable[[Race], nn.Module], race: Race, work: Callable[..., Work], *more) -> int:
    """Floating-point operations of one run of the work, without running it."""
    abstract = replace(race, device="meta")
    run = work(build(abstract), abstract, *more)
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def check(picture: torch.Tensor, race: Race) -> None:
    """What both networks must give."""
    if picture.shape != (race.images, 4, race.size, race.size) or not picture.isfinite().all():
        raise SystemExit(f"a network gave something else than finite pictures: {picture.shape}")


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


@dataclass
class Laps:
    """What a race took: ours, theirs, and the machine's rate for matrix products in FLOP/s."""

    ours: Clock
    theirs: Clock
    rate: float


def run_race(race: Race, our_work: Work, their_work: Work, rounds: int) -> Laps:
    """Ours, theirs and a plain matrix product in turn, after a round that warms all up and checks the outputs."""
    n = 8192 if race.device == "cuda" else 2048
    a = torch.randn(n, n, device=race.device, dtype=race.dtype)
    check(our_work(), race)
    check(their_work(), race)
    a @ a
    ours_, theirs_, product = Clock([], []), Clock([], []), Clock([], [])
    for _ in range(rounds):
        ours_.time(our_work)
        theirs_.time(their_work)
        for _ in range(3):
            product.time(lambda: a @ a)
    return Laps(ours_, theirs_, 2 * n**3 / min(product.wall))


def report(name: str, laps: Laps, our_flops: int, their_flops: int) -> None:
    """Ratios below 1 mean that we are faster; the spread is that of the rounds."""
    for kind in ("wall", "cpu"):
        ours_s, theirs_s = getattr(laps.ours, kind), getattr(laps.theirs, kind)
        ratios = [a / b for a, b in zip(ours_s, theirs_s, strict=True)]
        print(
            f"{name} {kind}: ratio {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}), "
            f"ours {min(ours_s):.3f} s, diffusers {min(theirs_s):.3f} s"
        )
    our_share = our_flops / min(laps.ours.wall) / laps.rate
    their_share = their_flops / min(laps.theirs.wall) / laps.rate
    print(
        f"{name}: of the matrix-multiply rate ({laps.rate / 1e9:.0f} GFLOP/s), ours {our_share:.0%} "
        f"with {our_flops / 1e9:.1f} GFLOP, diffusers {their_share:.0%} with {their_flops / 1e9:.1f}"
    )


def arguments(description: str | None, *, only: bool = False) -> argparse.Namespace:
    return argument_parser(description, only=only).parse_args()


def argument_parser(description: str | None, *, only: bool = False) -> argparse.ArgumentParser:
    """The options that all races share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", type=int, default=32, help="height and width of the latent")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    if only:  # one measurement, which a process does for another
        parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    return parser
