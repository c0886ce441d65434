"""A dense network made into one with experts, which at first computes what the dense one did.

The dense feed-forward of a block becomes all of its time experts: whichever is chosen, the block computes the same. Its
space experts begin with the first half of the dense feed-forward and a second half of zeros, so that they say nothing
until they have learned something, each from the words and places that come to it. A gated feed-forward cannot become an
expert, which has no gate inside; it stays where it is, and then the time experts begin silent too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bottega.errors import CheckpointError, ConfigError
from bottega.models.moe import SpaceMoE, TimeMoE
from bottega.models.moe_config import GateNoise, SpaceMoEConfig, TimeMoEConfig
from bottega.models.transformer import ExpertBlock
from bottega.models.unet import UNet
from bottega.models.unet_config import (
    Attention,
    ExpertTransformer,
    PlainFeedForward,
    Transformer,
    UNetConfig,
)
from bottega.seeding import derive

Weights = Mapping[str, Float[Tensor, "..."]]
"""A network's ``state_dict()``."""

EXPLORING = GateNoise(anneal_images=10_000)
"""New gates choose with noise for so many pictures; noise that stays would go on choosing in their place."""


@dataclass(frozen=True, kw_only=True)
class Upcycling:
    """What a dense network's blocks are to get; None leaves a layer out.

    Where experts are made of a dense feed-forward they are as wide inside as that is, and their ``ratio`` is not read.
    """

    space: SpaceMoEConfig | None = field(default_factory=lambda: SpaceMoEConfig(noise=EXPLORING))
    time: TimeMoEConfig | None = field(default_factory=lambda: TimeMoEConfig(noise=EXPLORING))

    def __post_init__(self) -> None:
        if self.space is None and self.time is None:
            raise ConfigError(
                "upcycling adds space experts, time experts or both; give one of them"
            )
        if self.time is not None and self.time.gate_path == "probability":
            raise ConfigError(
                "time.gate_path probability would multiply what a block computes by the gate's doubt; use "
                "straight_through"
            )
        if self.time is not None and not self.time.bias:
            raise ConfigError("time.bias must be true: a dense feed-forward has biases to keep")


def upcycled_plan(config: UNetConfig, wanted: Upcycling) -> UNetConfig:
    """The plan of the network with experts.

    Raises:
        ConfigError: If the network has no transformer block, or has experts already.
    """
    if config.has_experts:
        raise ConfigError("this network has experts already")
    levels = tuple(
        replace(level, attention=_with_experts(level.attention, wanted)) for level in config.levels
    )
    middle = config.middle
    if middle is not None:
        middle = replace(middle, attention=_with_experts(middle.attention, wanted))
    changed = replace(config, levels=levels, middle=middle)
    if not changed.has_experts:
        kinds = sorted({type(level.attention).__name__ for level in config.levels})
        raise ConfigError(
            "only transformer blocks, which have a feed-forward, can be given experts; this network has "
            f"{', '.join(kinds)}"
        )
    return changed


def upcycled_weights(
    config: UNetConfig, weights: Weights, plan: UNetConfig, *, seed: int = 0
) -> dict[str, Tensor]:
    """The weights of a network of ``plan`` that computes what one of ``config`` with ``weights`` does, to rounding.

    Args:
        config: The dense network's.
        weights: Its ``state_dict()``.
        plan: What `upcycled_plan` made of ``config``.
        seed: Of the gates, and of space experts beside a gated feed-forward.

    Raises:
        CheckpointError: If the weights are not those of ``config``.
    """
    with torch.device("meta"):
        expected = UNet(config).state_dict()
    missing = sorted(expected.keys() ^ weights.keys())
    if missing:
        raise CheckpointError(
            f"these are not the weights of this network: {missing[0]} is on one side alone"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "upcycling"))
        network = UNet(plan)
    own = network.state_dict()
    with torch.no_grad():
        for name, tensor in weights.items():
            if name in own:
                own[name].copy_(tensor)
        for path, block in network.named_modules():
            if isinstance(block, ExpertBlock):
                _fill(block, path, weights)
    dtypes = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    return {name: tensor.to(dtype) for name, tensor in network.state_dict().items()}


def _with_experts(attention: Attention, wanted: Upcycling) -> Attention:
    if not isinstance(attention, Transformer | ExpertTransformer):
        return attention
    dense = attention.feed_forward
    assert dense is not None  # one with experts was refused, and one of the three is there
    space, time = wanted.space, wanted.time
    kept = dense
    if isinstance(dense, PlainFeedForward):
        space = None if space is None else replace(space, ratio=dense.ratio)
        time = None if time is None else replace(time, ratio=dense.ratio)
        kept = dense if time is None else None
    return ExpertTransformer(
        depth=attention.depth,
        head_width=attention.head_width,
        time=time,
        space=space,
        feed_forward=kept,
        qkv_bias=attention.qkv_bias,
        norm_eps=attention.norm_eps,
    )


def _fill(block: ExpertBlock, path: str, weights: Weights) -> None:
    """Make the experts of a block from its dense feed-forward, or silent beside it."""
    dense = {
        name: weights[f"{path}.feed.{name}"]
        for name in ("up.weight", "up.bias", "down.weight", "down.bias")
    }
    norm = {name: weights[f"{path}.norm_feed.{name}"] for name in ("weight", "bias")}
    if block.time is not None:
        block.norm_time.load_state_dict(norm)
        _fill_experts(block.time, dense, silent=block.feed is not None)
    if block.space is not None:
        block.norm_space.load_state_dict(norm)
        _fill_experts(block.space, dense, silent=True)


def _fill_experts(moe: SpaceMoE | TimeMoE, dense: Weights, *, silent: bool) -> None:
    for expert in moe.experts:
        own = dict(expert.named_parameters())
        for name, tensor in dense.items():
            if name in own and own[name].shape == tensor.shape:
                own[name].copy_(tensor)
        if silent:
            for name in ("down.weight", "down.bias"):
                if name in own:
                    nn.init.zeros_(own[name])


__all__ = ["EXPLORING", "Upcycling", "upcycled_plan", "upcycled_weights"]
