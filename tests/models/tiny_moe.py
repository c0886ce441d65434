"""The two mixture-of-experts layers at a size for tests, in double precision, and what they are given."""

from typing import get_args

import torch

from bottega.models.moe import SpaceMoE, TimeMoE
from bottega.models.moe_config import GatePath, SpaceMoEConfig, TimeMoEConfig

WIDTH, TEXT_WIDTH, TOKENS, POSITIONS, BATCH = 8, 5, 11, 12, 3
CONFIG = SpaceMoEConfig(experts=4, ratio=2.0, gate_width=7)
TIME_CONFIG = TimeMoEConfig(experts=3, ratio=2.0, gate_width=7)
PATHS = get_args(GatePath)


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def undecided(moe: SpaceMoE | TimeMoE) -> SpaceMoE | TimeMoE:
    """In double precision, with a gate that sends different tokens to different experts."""
    for linear in (moe.gate.inner, moe.gate.scores):
        linear.weight.data *= 4
        linear.bias.data.zero_()
    return moe.double()


def layer(config: SpaceMoEConfig = CONFIG, width: int = WIDTH) -> SpaceMoE:
    torch.manual_seed(6)
    return undecided(SpaceMoE(width, TEXT_WIDTH, config))


def time_layer(config: TimeMoEConfig = TIME_CONFIG) -> TimeMoE:
    torch.manual_seed(6)
    return undecided(TimeMoE(WIDTH, TEXT_WIDTH, config))


def padding() -> torch.Tensor:
    """Three prompts of 11, 6 and 1 real tokens."""
    return torch.arange(TOKENS) < torch.tensor([11, 6, 1])[:, None]


def some_map(seed: int = 1, tokens: int = TOKENS) -> torch.Tensor:
    return (2 * some(BATCH, POSITIONS, tokens, seed=seed)).softmax(dim=-1)


def given() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, where they look, what the tokens are, which are real."""
    return (
        some(BATCH, POSITIONS, WIDTH, seed=2),
        some_map(),
        some(BATCH, TOKENS, TEXT_WIDTH),
        padding(),
    )


def counted(moe: SpaceMoE, x, attention_map, tokens, mask) -> torch.Tensor:
    return moe(x, attention_map, moe.route(tokens, mask))


def together(moe: TimeMoE, x, features) -> torch.Tensor:
    return moe(x, moe.route(features))
