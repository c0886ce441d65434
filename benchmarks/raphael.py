"""What experts cost a whole network, and how many (expert, position) pairs are at work in it.

One guided call, which is a batch of two, with and without the space experts, in turns. Without a model the weights of a
plan are random, its gates sharpened until all experts are in use, as in the paper's measurement with 40 tokens, and
nearly every place is looked at by every word: that is the most the experts can cost. With ``--model`` the first stage
of a trained one is called with the prompts, at noise levels of its own walk, and the shares are those of its maps.

``--experts 1 2 4 6 8`` goes through numbers of experts; ``--plan piccolo_raphael_pixels`` is the network of the recipe
lab-raphael. Beside each slow-down stands what causes it: how many experts are at work at a position, of a prompt's.
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from contenders import DTYPES, Clock
from torch import Tensor

from bottega import load
from bottega.condition import Condition, Stream
from bottega.models import PLANS, Context, UNet, UNetConfig
from bottega.models.moe import SpaceMoE
from bottega.models.raphael_plans import with_space_experts
from bottega.models.stream_config import PooledVector

PROMPTS = ("a red car to the left of a tree", "two cats", "a pizza on a blue background")


def without_space(network: UNet) -> UNet:
    """The same network with its space experts taken out."""
    bare = copy.deepcopy(network)
    for block in bare.expert_blocks:
        block.space = None
    return bare


def some_prompt(config: UNetConfig, num_tokens: int) -> Condition:
    """A prompt of random tokens and one of silence, as guidance has them."""
    draw = torch.Generator().manual_seed(0)
    streams = {}
    for plan in config.streams:
        pooled = None
        if isinstance(plan.pool, PooledVector):
            pooled = torch.randn(2, plan.pool.width, generator=draw)
        mask = torch.ones(2, num_tokens, dtype=torch.bool)
        mask[1] = False
        tokens = torch.randn(2, num_tokens, plan.width, generator=draw)
        streams[plan.name] = Stream(tokens=tokens * mask[..., None], mask=mask, pooled=pooled)
    return Condition(streams=streams)


class Shares:
    """Counts active pairs of every block while calls are made."""

    def __init__(self, network: UNet) -> None:
        self.found: list[list[float]] = [[] for _ in network.expert_blocks]
        self._hooks = [
            block.space.register_forward_pre_hook(self._noted(place))
            for place, block in enumerate(network.expert_blocks)
            if block.space is not None
        ]

    def _noted(self, place: int) -> Callable[[SpaceMoE, tuple[Tensor, ...]], None]:
        def note(moe: SpaceMoE, inputs: tuple[Tensor, ...]) -> None:
            _, attention_map, route = inputs
            active = moe.cover(attention_map, route)[0] > 0  # the half that is told the prompt
            self.found[place].append(float(active.float().mean()))

        return note

    def close(self) -> list[float]:
        """The mean share of each block."""
        for hook in self._hooks:
            hook.remove()
        return [statistics.mean(found) for found in self.found if found]


@dataclass(frozen=True)
class Cost:
    """How much longer a call takes with space experts: medians over rounds that alternate.

    Attributes:
        wall: The ratio on the clock.
        cpu: The ratio of processor time.
        with_ms: Processor time of a call with them.
        without_ms: Processor time of a call without.
        experts: How many there are in a block.
        shares: What part of all (expert, position) pairs is at work, block by block.
    """

    wall: float
    cpu: float
    with_ms: float
    without_ms: float
    experts: int
    shares: list[float]


def race(network: UNet, x: Tensor, levels: list[Tensor], condition: Condition, rounds: int) -> Cost:
    """Time calls with and without space experts in turns."""
    bare = without_space(network)
    ours, theirs = Clock([], []), Clock([], [])
    with torch.inference_mode():
        contexts: list[Context] = [net.prepare(condition) for net in (network, bare)]
        shares = Shares(network)
        for c_noise in levels:
            network(x, c_noise, contexts[0])
            bare(x, c_noise, contexts[1])
        found = shares.close()
        for turn in range(rounds):
            c_noise = levels[turn % len(levels)]
            ours.time(lambda c_noise=c_noise: network(x, c_noise, contexts[0]))
            theirs.time(lambda c_noise=c_noise: bare(x, c_noise, contexts[1]))
    wall, cpu = (
        statistics.median(
            a / b for a, b in zip(getattr(ours, kind), getattr(theirs, kind), strict=True)
        )
        for kind in ("wall", "cpu")
    )
    with_ms, without_ms = (1e3 * statistics.median(clock.cpu) for clock in (ours, theirs))
    counts = [len(block.space.experts) for block in network.expert_blocks if block.space]
    return Cost(wall, cpu, with_ms, without_ms, max(counts), found)


def of_plan(options: argparse.Namespace) -> None:
    """Random weights, every number of experts asked for."""
    for num in options.experts:
        config = with_space_experts(PLANS[options.plan](), num)
        torch.manual_seed(0)
        network = UNet(config).eval()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if ".space.gate." in name:
                    parameter.mul_(20)
        network.to(options.device, DTYPES[options.dtype])
        x = torch.randn(2, config.in_channels, options.size, options.size, device=options.device)
        levels = [torch.full((2,), value, device=options.device) for value in (-1.0, -0.3, 0.4)]
        condition = some_prompt(config, options.tokens).to(device=options.device)
        said(f"{options.plan}, {num} experts", race(network, x, levels, condition, options.rounds))


def of_model(options: argparse.Namespace) -> None:
    """A trained model's first stage."""
    dtype = str(DTYPES[options.dtype]).removeprefix("torch.")
    painter = load(options.model, device=options.device, dtype=dtype)
    stage = painter.stages[0]
    network = stage.denoiser.network
    encoders = painter.encoders
    for prompt in options.prompts:
        condition = Condition.cat([encoders.condition([prompt]), encoders.condition([""])])
        x = torch.randn(2, *stage.shape, device=options.device)
        sigmas = torch.tensor(stage.sigmas(painter.settings[stage.name])[:-1])
        told = [sigma.expand(2).log() / 4 for sigma in sigmas]
        if stage.timestep_plan is not None:
            told = [stage.timestep_plan.schedule.timestep(sigma.expand(2)) for sigma in sigmas]
        levels = [level.to(options.device) for level in told]
        result = race(network, x, levels, condition.to(device=options.device), options.rounds)
        said(repr(prompt), result)


def said(what: str, cost: Cost) -> None:
    """The slow-down, the times, and the share of active pairs, mean and block by block."""
    each = " ".join(f"{share:.0%}" for share in cost.shares)
    share = statistics.mean(cost.shares)
    print(f"{what}: {cost.wall - 1:+.0%} on the clock, {cost.cpu - 1:+.0%} of processor time")
    print(f"  a call takes {cost.with_ms:.2f} ms with them and {cost.without_ms:.2f} ms with none")
    print(f"  {share * cost.experts:.2f} of {cost.experts} experts at work at a position")
    print(f"  active pairs {share:.0%}; block by block {each}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a trained model folder")
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    parser.add_argument("--plan", default="piccolo_raphael")
    parser.add_argument("--experts", type=int, nargs="+", default=[1, 2, 4, 6, 8])
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--size", type=int, default=16, help="side of what the plan's network sees")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    options = parser.parse_args()
    if options.model is None:
        of_plan(options)
    else:
        of_model(options)


if __name__ == "__main__":
    main()
