"""Attention over positions, over text, and over both.

Self-attention goes to PyTorch's fused kernels wherever these are the faster ones. What looks at text is explicit when a
bias is added to its logits or its maps are wanted, because nothing fused can show them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bottega.models.layers import Features, Rows, group_norm, to_picture, to_rows, zeroed
from bottega.models.unet_config import Norm

Heads = Float[Tensor, "#batch heads keys head_width"]
"""Queries, keys or values."""

Logits = Float[Tensor, "batch heads positions keys"]
"""Products of queries and keys, before the division by sqrt(head width)."""

AttendMask = Bool[Tensor, "#batch 1 1 keys"]
"""True where a key may be looked at; None means everywhere."""

LogitBias = Callable[[Logits, int, int], Logits]
"""Changes text logits: given them undivided and in float32, and the picture's height and width here."""


LARGEST_WRITTEN_OUT = 2**20
"""Logits per head above which attention in bf16 on a CPU is left to the fused kernel too."""


class KeysValues(NamedTuple):
    """What one attention layer reads of the text, computed once per prompt."""

    keys: Heads
    values: Heads


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMap:
    """Where one layer looked: weights over text tokens (context order), averaged over nothing."""

    layer: int
    height: int
    width: int
    weights: Float[Tensor, "batch heads positions keys"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What every layer that reads text is handed in one call: all keys and values, the mask, bias in, maps out."""

    layers: tuple[KeysValues, ...] = ()
    mask: AttendMask | None = None
    bias: LogitBias | None = None
    maps: list[AttentionMap] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether nobody wants to see or change what is inside."""
        return self.bias is None and self.maps is None


def attend(
    query: Float[Tensor, "batch heads positions head_width"],
    keys: Heads,
    values: Heads,
    mask: AttendMask | None = None,
) -> Float[Tensor, "batch heads positions head_width"]:
    """softmax(Q K^T / sqrt(d)) V by whichever way is fastest here.

    On a CPU PyTorch's fused attention is up to three times slower in bf16 than the products written
    out, forward and back (in float32 it is the faster one), so that it is used there in bf16 only
    where the logits would take much memory.
    """
    is_small = query.shape[-2] * keys.shape[-2] <= LARGEST_WRITTEN_OUT
    if query.device.type != "cpu" or query.dtype == torch.float32 or not is_small:
        keys, values = _for_batch(keys, len(query)), _for_batch(values, len(query))
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    logits = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    return logits.softmax(dim=-1) @ values


def split_heads(rows: Rows, head_width: int) -> Float[Tensor, "batch heads rows head_width"]:
    """Rows of channels as heads."""
    return rows.unflatten(-1, (-1, head_width)).transpose(1, 2)


def merge_heads(heads: Float[Tensor, "batch heads rows head_width"]) -> Rows:
    """Heads back to rows of channels."""
    return heads.transpose(1, 2).flatten(2)


class SelfMixer(nn.Module):
    """Self-attention over rows, without norm or residual."""

    def __init__(self, width: int, head_width: int, *, zero: bool = True) -> None:
        super().__init__()
        self.head_width = head_width
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width)) if zero else nn.Linear(width, width)

    def forward(self, rows: Rows) -> Rows:
        """Mix the rows."""
        query, keys, values = self.qkv(rows).chunk(3, dim=-1)
        heads = attend(*(split_heads(part, self.head_width) for part in (query, keys, values)))
        return self.out(merge_heads(heads))


class TextReader(nn.Module):
    """Anything with keys and values of the text; ``layer`` is its place in `Reading.layers`."""

    layer: int = -1

    def __init__(self, width: int, context_width: int, head_width: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.text_kv = nn.Linear(context_width, 2 * width)

    def read(self, context: Rows) -> KeysValues:
        """Keys and values of the text, once per prompt."""
        keys, values = self.text_kv(context).chunk(2, dim=-1)
        return KeysValues(
            split_heads(keys, self.head_width).contiguous(),
            split_heads(values, self.head_width).contiguous(),
        )


class CrossMixer(TextReader):
    """Cross-attention from rows to the text, without norm or residual."""

    def __init__(
        self, width: int, context_width: int, head_width: int, *, zero: bool = True
    ) -> None:
        super().__init__(width, context_width, head_width)
        self.query = nn.Linear(width, width)
        self.out = zeroed(nn.Linear(width, width)) if zero else nn.Linear(width, width)

    def forward(self, rows: Rows, height: int, width: int, reading: Reading) -> Rows:
        """Read the text at every position."""
        query = split_heads(self.query(rows), self.head_width)
        keys, values = reading.layers[self.layer]
        if reading.is_plain:
            heads = attend(query, keys, values, reading.mask)
        else:
            logits = query.float() @ keys.float().transpose(-1, -2)
            logits = _biased(logits, height, width, reading, self.head_width**-0.5)
            weights = logits.softmax(dim=-1)
            _report(reading, self.layer, height, width, weights)
            heads = weights.to(values.dtype) @ values
        return self.out(merge_heads(heads))


class FusedMixer(TextReader):
    """Image positions and text tokens as keys of one softmax, without norm or residual.

    Source: Imagen (arXiv:2205.11487), appendix D.3.1: the text's keys and values are concatenated to the image's.
    """

    def __init__(self, width: int, context_width: int, head_width: int) -> None:
        super().__init__(width, context_width, head_width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, rows: Rows, height: int, width: int, reading: Reading) -> Rows:
        """Look at picture and text at once."""
        parts = self.qkv(rows).chunk(3, dim=-1)
        query, keys, values = (split_heads(part, self.head_width) for part in parts)
        text = reading.layers[self.layer]
        batch, positions = rows.shape[:2]
        both_values = torch.cat([_for_batch(text.values, batch), values], dim=2)
        if reading.is_plain:
            both_keys = torch.cat([_for_batch(text.keys, batch), keys], dim=2)
            mask = None
            if reading.mask is not None:
                everywhere = reading.mask.new_ones(1, 1, 1, positions).expand(batch, -1, -1, -1)
                mask = torch.cat([reading.mask.expand(batch, -1, -1, -1), everywhere], dim=-1)
            heads = attend(query, both_keys, both_values, mask)
        else:
            query = query.float()
            logits = query @ text.keys.float().transpose(-1, -2)
            logits = _biased(logits, height, width, reading, self.head_width**-0.5)
            own = query @ keys.float().transpose(-1, -2) * self.head_width**-0.5
            weights = torch.cat([logits, own], dim=-1).softmax(dim=-1)
            _report(reading, self.layer, height, width, weights[..., : -own.shape[-1]])
            heads = weights.to(values.dtype) @ both_values
        return self.out(merge_heads(heads))


def _for_batch(heads: Heads, batch: int) -> Heads:
    """A context prepared for one prompt serves every picture of a batch."""
    return heads.expand(batch, -1, -1, -1)


def _biased(logits: Logits, height: int, width: int, reading: Reading, scale: float) -> Logits:
    """Undivided text logits with bias, division and mask applied, in that order."""
    if reading.bias is not None:
        logits = reading.bias(logits, height, width)
    logits = logits * scale
    if reading.mask is not None:
        logits = logits.masked_fill(~reading.mask, float("-inf"))
    return logits


def _report(reading: Reading, layer: int, height: int, width: int, weights: Logits) -> None:
    if reading.maps is not None:
        reading.maps.append(AttentionMap(layer=layer, height=height, width=width, weights=weights))


class PictureSelfAttention(nn.Module):
    """Norm, self-attention, residual (ADM)."""

    def __init__(self, width: int, head_width: int, norm: Norm) -> None:
        super().__init__()
        self.norm = group_norm(norm, width)
        self.mix = SelfMixer(width, head_width)

    def forward(self, x: Features, reading: Reading) -> Features:
        """Add what other positions know."""
        mixed = self.mix(to_rows(self.norm(x)))
        return x + to_picture(mixed, x.shape[2], x.shape[3])


class PictureTextAttention(nn.Module):
    """Norm, an attention that reads text, residual."""

    def __init__(self, width: int, mixer: CrossMixer | FusedMixer, norm: Norm) -> None:
        super().__init__()
        self.norm = group_norm(norm, width)
        self.mix = mixer

    def forward(self, x: Features, reading: Reading) -> Features:
        """Add what the text says here."""
        height, width = x.shape[2:]
        mixed = self.mix(to_rows(self.norm(x)), height, width, reading)
        return x + to_picture(mixed, height, width)


class InTurn(nn.Module):
    """Two attentions, one after the other."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Features, reading: Reading) -> Features:
        """Apply both in order."""
        return self.second(self.first(x, reading), reading)
