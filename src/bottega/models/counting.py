"""What a plan costs, without building it in memory: parameters, multiplications, bytes.

Everything is counted on the meta device, so that a network of billions of parameters is described in seconds.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bottega.condition import Condition, Stream
from bottega.errors import ConfigError
from bottega.models.attention import FusedMixer, SelfMixer
from bottega.models.unet import UNet
from bottega.models.unet_config import PooledVector, UNetConfig

BYTES_PER_PARAMETER = 2
"""Networks are kept in bf16."""

TOKENS = MappingProxyType({"t5": 113, "clip_text": 77, "clip_image": 1})
"""How long eDiff-I's streams are; any other is counted at 77 tokens."""


@dataclass(frozen=True, kw_only=True)
class LevelCost:
    """One level's share, both ways together."""

    size: int
    width: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Description:
    """What one call of a network for one picture of ``size`` x ``size`` takes.

    ``macs`` are multiply-adds of one forward pass, ``prepare_macs`` those spent once per prompt.
    ``weight_bytes`` is the network in bf16; ``activation_bytes`` is what a training step keeps for
    the way back, per picture, in bf16 and without checkpointing. A network without self-attention
    runs at sizes far from those it was trained on.
    """

    size: int
    parameters: int
    macs: int
    prepare_macs: int
    weight_bytes: int
    activation_bytes: int
    levels: tuple[LevelCost, ...]
    has_self_attention: bool

    @property
    def training_flops(self) -> int:
        """Floating-point operations of a training step per picture: forward, and twice that on the way back."""
        return 6 * (self.macs + self.prepare_macs)


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """How many parameters a paper gives its network, and what it does not say about them."""

    parameters: float
    tolerance: float
    note: str

    def difference(self, parameters: int) -> float:
        """How far ``parameters`` is from the figure, as a fraction of it."""
        return parameters / self.parameters - 1


PAPER_FIGURES: Mapping[str, PaperFigure] = MappingProxyType(
    {
        "adm64": PaperFigure(
            parameters=296e6, tolerance=0.01, note="with a class label of 0.8M, which ours lacks"
        ),
        "sd15": PaperFigure(
            parameters=859.5e6, tolerance=0.001, note="counted from the published weights"
        ),
        "imagen_base64": PaperFigure(
            parameters=2e9, tolerance=0.2, note="rounded to 2B; the width of text is not given"
        ),
        "imagen_sr256": PaperFigure(
            parameters=600e6, tolerance=0.1, note="rounded to 600M; read with five levels"
        ),
        "imagen_sr256_listed": PaperFigure(
            parameters=600e6, tolerance=0.25, note="the listed four levels do not reach the figure"
        ),
        "imagen_sr1024": PaperFigure(
            parameters=400e6, tolerance=0.25, note="rounded to 400M; skips joined or added unsaid"
        ),
        "ediffi_base64": PaperFigure(
            parameters=1.0e9, tolerance=0.3, note="from Table 1: an expert more costs 1.0B"
        ),
        "raphael": PaperFigure(
            parameters=3e9,
            tolerance=0.1,
            note="rounded to 3B; not said whether autoencoder and text encoder are in it",
        ),
        "ediffi_sr256": PaperFigure(
            parameters=300e6, tolerance=0.6, note="from Table 1: an expert more costs 0.3B"
        ),
    }
)
"""The published sizes, by the plan's name, with the agreement their rounding and silences allow."""


def count_parameters(config: UNetConfig) -> int:
    """How many parameters the plan's network has."""
    with torch.device("meta"):
        return _size(UNet(config))


def describe(
    config: UNetConfig, size: int, *, tokens: Mapping[str, int] | None = None
) -> Description:
    """What the plan's network costs on pictures of ``size`` x ``size``.

    Args:
        config: The plan.
        size: Height and width of the network's input.
        tokens: How many tokens each stream has; eDiff-I's lengths by default.

    Raises:
        ConfigError: When ``size`` is not a multiple of the plan's downsampling, and of its enlargement.
    """
    step = math.lcm(config.downsampling, 1 if config.low_res is None else config.low_res.scale)
    if size <= 0 or size % step:
        raise ConfigError(f"size must be a positive multiple of {step}, got {size}")
    with torch.device("meta"):
        network = UNet(config)
        condition = _condition(config, size, TOKENS if tokens is None else tokens)
        x = torch.empty(1, config.in_channels, size, size)
        kept: dict[int, int] = {}
        with torch.no_grad(), FlopCounterMode(display=False) as preparing:
            context = network.prepare(condition)
        keeping = torch.autograd.graph.saved_tensors_hooks(_keeper(kept), _keep)
        with keeping, FlopCounterMode(display=False) as calling:
            network(x, torch.empty(1), context)
    parameters = _size(network)
    of_weights = {_storage(parameter) for parameter in network.parameters()}
    saved = sum(count for storage, count in kept.items() if storage not in of_weights)
    return Description(
        size=size,
        parameters=parameters,
        macs=calling.get_total_flops() // 2,
        prepare_macs=preparing.get_total_flops() // 2,
        weight_bytes=parameters * BYTES_PER_PARAMETER,
        activation_bytes=saved * BYTES_PER_PARAMETER,
        levels=_level_costs(network, size),
        has_self_attention=any(
            isinstance(module, SelfMixer | FusedMixer) for module in network.modules()
        ),
    )


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _keep(tensor: Tensor) -> Tensor:
    return tensor


def _keeper(kept: dict[int, int]) -> Callable[[Tensor], Tensor]:
    """Notes how many numbers each storage that is kept for the way back holds; views count once."""

    def keep(tensor: Tensor) -> Tensor:
        kept[_storage(tensor)] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    return keep


def _condition(config: UNetConfig, size: int, tokens: Mapping[str, int]) -> Condition:
    streams = {}
    for plan in config.streams:
        length = tokens.get(plan.name, 77)
        pool = plan.pool
        pooled = torch.empty(1, pool.width) if isinstance(pool, PooledVector) else None
        streams[plan.name] = Stream(
            tokens=torch.empty(1, length, plan.width),
            mask=torch.empty(1, length, dtype=torch.bool),
            pooled=pooled,
        )
    condition = Condition(streams=streams)
    if config.low_res is None:
        return condition
    small = size // config.low_res.scale
    low_res = torch.empty(1, config.low_res.channels, small, small)
    return condition.with_low_res(low_res, torch.empty(1))


def _level_costs(network: UNet, size: int) -> tuple[LevelCost, ...]:
    levels = network.config.levels
    costs = []
    size //= network.config.patch
    for i, level in enumerate(levels):
        size //= level.stride
        parts = [network.down[i], network.up[len(levels) - 1 - i]]
        parts += [m[str(i)] for m in (network.downsamplers, network.upsamplers) if str(i) in m]
        parameters = sum(_size(part) for part in parts)
        if i == len(levels) - 1:
            parameters += _size(network.middle)
        costs.append(LevelCost(size=size, width=level.width, parameters=parameters))
    return tuple(costs)


__all__ = [
    "PAPER_FIGURES",
    "Description",
    "LevelCost",
    "PaperFigure",
    "count_parameters",
    "describe",
]
