"""What is added to the time embedding: one vector per stream, the encoder's own or pooled from its tokens."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bottega.condition import Stream
from bottega.errors import InputError
from bottega.models.attention import attend, merge_heads, split_heads
from bottega.models.layers import Embedding, waves
from bottega.models.stream_config import (
    AttentionPool,
    MeanPool,
    Periods,
    PooledVector,
    StreamPlan,
    VectorWithNumbers,
)
from bottega.shapes import Pooled, Tokens


class TokenPool(nn.Module):
    """One vector from a stream's tokens: a learned query attends to them and to a null token.

    Source: Imagen (arXiv:2205.11487) section 2.5 asks for attention pooling with a layer norm and
    does not say how it is built; ours has one learned query.
    """

    def __init__(self, width: int, head_width: int, out_width: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.null = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, out_width)

    def forward(self, tokens: Tokens, mask: Bool[Tensor, "batch tokens"]) -> Embedding:
        """Pool the real tokens."""
        batch = len(tokens)
        rows = torch.cat([self.null.expand(batch, -1, -1), self.norm(tokens)], dim=1)
        mask = F.pad(mask, (1, 0), value=True)[:, None, None]
        keys, values = (split_heads(p, self.head_width) for p in self.kv(rows).chunk(2, dim=-1))
        query = split_heads(self.query.expand(batch, -1, -1), self.head_width)
        return self.out(merge_heads(attend(query, keys, values, mask))[:, 0])


class MeanTokenPool(nn.Module):
    """One vector from all of a stream's tokens: their mean asks, with a learned place added to it.

    Source: DeepFloyd IF as the diffusers library builds it: a layer norm before and one after; padding counts too.
    """

    def __init__(self, width: int, heads: int, out_width: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.norm = nn.LayerNorm(width)
        self.place = nn.Parameter(torch.randn(1, width) * width**-0.5)
        self.query = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, out_width)
        self.norm_out = nn.LayerNorm(out_width)

    def forward(self, tokens: Tokens) -> Embedding:
        """Pool the tokens."""
        tokens = self.norm(tokens)
        mean = tokens.mean(dim=1, keepdim=True) + self.place
        rows = torch.cat([mean, tokens], dim=1)
        keys, values = (split_heads(p, self.head_width) for p in self.kv(rows).chunk(2, dim=-1))
        query = split_heads(self.query(mean), self.head_width)
        pooled = merge_heads(attend(query, keys, values))[:, 0]
        return self.norm_out(self.out(pooled))


class VectorProjection(nn.Module):
    """An encoder's own vector, normed and projected to the time embedding."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out_width)

    def forward(self, pooled: Pooled) -> Embedding:
        """Project."""
        return self.out(self.norm(pooled))


class VectorNumbersProjection(nn.Module):
    """An encoder's own vector beside sinusoids of plain numbers, through a two-layer perceptron.

    Source: SDXL (arXiv:2307.01952), section 2.2.
    """

    def __init__(self, plan: VectorWithNumbers, out_width: int) -> None:
        super().__init__()
        self.plan = plan
        self.linear_in = nn.Linear(plan.width, out_width)
        self.linear_out = nn.Linear(out_width, out_width)

    def forward(self, pooled: Pooled, numbers: Float[Tensor, "batch numbers"]) -> Embedding:
        """Join and project."""
        plan = self.plan
        expected = (plan.width - pooled.shape[1]) / plan.features
        if numbers.shape[1] != expected:
            raise InputError(
                f"beside a pooled vector of {pooled.shape[1]} this network takes {expected:g} numbers, "
                f"the condition carries {numbers.shape[1]}"
            )
        known = waves(Periods(), numbers.flatten(), plan.features // 2).view(len(numbers), -1)
        dtype = self.linear_in.weight.dtype
        joined = torch.cat([pooled.to(dtype), known.to(dtype)], dim=1)
        return self.linear_out(F.silu(self.linear_in(joined)))


AnyPool = TokenPool | MeanTokenPool | VectorProjection | VectorNumbersProjection


def pool_for(plan: StreamPlan, out_width: int) -> AnyPool | None:
    """The module that the plan names."""
    match plan.pool:
        case AttentionPool(head_width=head_width):
            return TokenPool(plan.width, head_width, out_width)
        case MeanPool(heads=heads):
            return MeanTokenPool(plan.width, heads, out_width)
        case PooledVector(width=width):
            return VectorProjection(width, out_width)
        case VectorWithNumbers():
            return VectorNumbersProjection(plan.pool, out_width)
        case None:
            return None


def pooled_vector(
    pool: AnyPool,
    name: str,
    stream: Stream,
    numbers: Float[Tensor, "batch numbers"] | None,
    dtype: torch.dtype,
) -> Embedding:
    """What a stream adds to the time embedding.

    Raises:
        InputError: When the stream lacks its vector, or the condition its numbers.
    """
    if isinstance(pool, TokenPool):
        return pool(stream.tokens.to(dtype), stream.mask)
    if isinstance(pool, MeanTokenPool):
        return pool(stream.tokens.to(dtype))
    if stream.pooled is None:
        raise InputError(f"stream {name} must carry a pooled vector here")
    if isinstance(pool, VectorProjection):
        return pool(stream.pooled.to(dtype))
    if numbers is None:
        raise InputError(
            "this network is told numbers about its picture (sizes and crop); give Condition(numbers=...)"
        )
    return pool(stream.pooled, numbers)


__all__ = [
    "AnyPool",
    "MeanTokenPool",
    "TokenPool",
    "VectorNumbersProjection",
    "VectorProjection",
    "pool_for",
    "pooled_vector",
]
