"""Networks small enough to ask anything of, with every zero-initialised layer woken up."""

from dataclasses import replace

import torch
from torch import nn

from bottega.condition import Condition, Stream
from bottega.models import UNet, UNetConfig
from bottega.models.unet_config import (
    Attention,
    Level,
    LowRes,
    Middle,
    PooledVector,
    SelfThenCross,
    StreamPlan,
)

STREAMS = (
    StreamPlan(name="t5", width=12),
    StreamPlan(name="clip_text", width=8, pool=PooledVector(width=8)),
)


def tiny(attention: Attention | None = None, **changes) -> UNetConfig:
    """Two levels, one of them with attention; 16 px pictures."""
    attention = SelfThenCross(head_width=16) if attention is None else attention
    config = UNetConfig(
        levels=(
            Level(width=16, stride=1, down_blocks=1, up_blocks=2),
            Level(width=32, down_blocks=1, up_blocks=2, attention=attention),
        ),
        middle=Middle(attention=attention),
        time_width=32,
        streams=STREAMS,
        context_width=16,
    )
    return replace(config, **changes)


def tiny_sr(**changes) -> UNetConfig:
    return tiny(low_res=LowRes(scale=4), **changes)


def awake(config: UNetConfig, seed: int = 0) -> UNet:
    """The network with no layer silent, as after some training."""
    torch.manual_seed(seed)
    network = UNet(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network.eval()


def some_condition(batch: int = 2, seed: int = 1, *, low_res: bool = False) -> Condition:
    """Random streams with padding of different lengths, and perhaps a small picture."""
    draw = torch.Generator().manual_seed(seed)

    def stream(tokens: int, width: int) -> Stream:
        lengths = torch.randint(1, tokens + 1, (batch, 1), generator=draw)
        return Stream(
            tokens=torch.randn(batch, tokens, width, generator=draw),
            mask=torch.arange(tokens) < lengths,
            pooled=torch.randn(batch, width, generator=draw),
        )

    condition = Condition(streams={"t5": stream(7, 12), "clip_text": stream(5, 8)})
    if low_res:
        small = torch.randn(batch, 3, 4, 4, generator=draw)
        condition = condition.with_low_res(small, torch.rand(batch, generator=draw))
    return condition


def some_noise(batch: int = 2, size: int = 16, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 3, size, size, generator=draw)
    return x, torch.randn(batch, generator=draw)


def say(network: nn.Module, condition: Condition, batch: int = 2, size: int = 16) -> torch.Tensor:
    """What the network says of the usual noise."""
    x, c_noise = some_noise(batch, size)
    with torch.no_grad():
        return network(x, c_noise, network.prepare(condition))
