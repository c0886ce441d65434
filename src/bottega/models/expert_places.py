"""Where the experts of a network sit, and what share of it is what; counted on the meta device."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from bottega.models.attention import SelfMixer, TextReader
from bottega.models.context import ContextReader
from bottega.models.layers import NoiseEmbedding
from bottega.models.moe import SpaceMoE, TimeMoE
from bottega.models.moe_gates import Gate
from bottega.models.transformer import ExpertBlock, Gated, Plain
from bottega.models.unet import UNet
from bottega.models.unet_config import UNetConfig

SPACE_EXPERTS = "space experts"
TIME_EXPERTS = "time experts"
GATES = "gates"
OTHER = "convolutions and the rest"


@dataclass(frozen=True, kw_only=True)
class ExpertPlace:
    """The blocks with experts of one level.

    Attributes:
        level: Counted from the full-size one, which is 0.
        divisor: How many times smaller than the network's input the picture is here.
        width: Channels.
        down: Blocks on the way down.
        middle: Blocks between the ways.
        up: Blocks on the way up.
        space: Space experts of each block, and the parameters of one.
        time: Time experts of each block, and the parameters of one.
    """

    level: int
    divisor: int
    width: int
    down: int
    middle: int
    up: int
    space: tuple[int, int]
    time: tuple[int, int]

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return self.down + self.middle + self.up


@dataclass(frozen=True, kw_only=True)
class ExpertCensus:
    """Everything there is to say about a network's experts without calling it.

    ``shares`` are parameters by what they belong to, the largest first.
    """

    places: tuple[ExpertPlace, ...]
    shares: dict[str, int]

    @property
    def blocks(self) -> int:
        """How many blocks have experts."""
        return sum(place.blocks for place in self.places)

    @property
    def parameters(self) -> int:
        """Of the whole network."""
        return sum(self.shares.values())

    @property
    def idle_time(self) -> int:
        """Parameters of time experts that rest in any one call: all but one in every block."""
        return sum(p.blocks * max(p.time[0] - 1, 0) * p.time[1] for p in self.places)


def expert_census(config: UNetConfig) -> ExpertCensus | None:
    """Count the experts of a plan; None where it has none."""
    if not config.has_experts:
        return None
    with torch.device("meta"):
        network = UNet(config)
    shares: dict[str, int] = {}
    for kind, count in _shares(network):
        shares[kind] = shares.get(kind, 0) + count
    ordered = dict(sorted(shares.items(), key=lambda pair: -pair[1]))
    return ExpertCensus(places=tuple(_places(network)), shares=ordered)


def _places(network: UNet) -> Iterator[ExpertPlace]:
    levels = network.config.levels
    divisor = network.config.patch
    for i, level in enumerate(levels):
        divisor *= level.stride
        ways = [network.down[i], network.up[len(levels) - 1 - i]]
        middle = _blocks(network.middle) if i == len(levels) - 1 else []
        down, up = (_blocks(way) for way in ways)
        blocks = [*down, *middle, *up]
        if blocks:
            yield ExpertPlace(
                level=i,
                divisor=divisor,
                width=level.width,
                down=len(down),
                middle=len(middle),
                up=len(up),
                space=_experts(blocks[0].space),
                time=_experts(blocks[0].time),
            )


def _blocks(module: nn.Module) -> list[ExpertBlock]:
    return [inner for inner in module.modules() if isinstance(inner, ExpertBlock)]


def _experts(moe: SpaceMoE | TimeMoE | None) -> tuple[int, int]:
    if moe is None:
        return 0, 0
    return len(moe.experts), _size(moe.experts[0])


def _shares(module: nn.Module, kind: str = OTHER) -> Iterator[tuple[str, int]]:
    """Parameters by the innermost thing with a name that they belong to."""
    own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    if own > 0:
        yield kind, own
    for name, child in module.named_children():
        inner = _kind(child, kind)
        if name == "experts" and isinstance(module, SpaceMoE | TimeMoE):
            inner = SPACE_EXPERTS if isinstance(module, SpaceMoE) else TIME_EXPERTS
        yield from _shares(child, inner)


def _kind(module: nn.Module, otherwise: str) -> str:
    match module:
        case Gate():
            return GATES
        case SelfMixer():
            return "self-attention"
        case TextReader():
            return "cross-attention"
        case Gated() | Plain():
            return "feed-forwards"
        case ContextReader() | NoiseEmbedding():
            return "the way in of words and noise"
        case _:
            return otherwise


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


__all__ = [
    "GATES",
    "OTHER",
    "SPACE_EXPERTS",
    "TIME_EXPERTS",
    "ExpertCensus",
    "ExpertPlace",
    "expert_census",
]
