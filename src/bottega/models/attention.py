"""Attention over positions, over text, and over both.

Self-attention goes to PyTorch's fused kernels wherever these are the faster ones. What looks at text is explicit when a
bias is added to its logits or its maps are wanted, because nothing fused can show them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bottega.models.attention_config import NumGroups
from bottega.models.fast_cpu import (
    Linear,
    attend_by_head,
    attend_in_blocks,
    attends_by_head,
    records_nothing,
)
from bottega.models.layers import Rows, group_norm, zeroed
from bottega.models.moe_gates import SpaceRoute, TimeRoute

Heads = Float[Tensor, "#batch heads keys head_width"]
"""Queries, keys or values."""

Logits = Float[Tensor, "batch heads positions keys"]
"""Products of queries and keys, before the division by sqrt(head width)."""

Own = Float[Tensor, "_ heads positions head_width"]
"""Queries of some pictures, or what these read."""

AttendMask = Bool[Tensor, "#batch 1 1 keys"]
"""True where a key may be looked at; None means everywhere."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMap:
    """Where one layer looked: weights over text tokens (context order), averaged over nothing."""

    layer: int
    height: int
    width: int
    weights: Float[Tensor, "batch heads positions keys"]


Picked = tuple[int, ...] | None
"""Some pictures of a batch, or all of it."""

Segments = tuple[tuple[str, int, int], ...]
"""Whose the keys of a context are: name of a stream, first key, and the one after the last."""


class RowBias(ABC):
    """A bias for some pictures of a batch; the others are read as if there were none, to the last bit.

    Attributes:
        rows: Those pictures, in the order of the batch.
        changes: False for one that only wants to see what was attended to.
    """

    rows: tuple[int, ...]
    changes: bool

    @abstractmethod
    def add(self, logits: Logits, height: int, width: int, reading: "Reading") -> Logits:
        """Undivided float32 logits of ``rows`` with the bias added; they may be changed in place."""

    def attended(
        self, query: Own, layer: int, height: int, width: int, reading: "Reading"
    ) -> Own | None:
        """What ``rows`` read with the bias, by a way of its own; None has it written out, with `add`."""
        return None

    @abstractmethod
    def select(self, indices: Sequence[int]) -> "RowBias | None":
        """The bias for those pictures of the batch, in that order; None where it concerns none of them."""

    @abstractmethod
    def saw(self, weights: AttentionMap, reading: "Reading") -> None:
        """Told where a layer looked, for ``rows``."""


LogitBias = Callable[[Logits, int, int], Logits] | RowBias
"""Changes text logits: given them undivided and in float32, and the picture's height and width here."""


LARGEST_WRITTEN_OUT = 2**20
"""Logits per head above which attention in bf16 on a CPU is left to the fused kernel too."""


class KeysValues(NamedTuple):
    """What one attention layer reads of the text, computed once per prompt."""

    keys: Heads
    values: Heads


class BlockRoutes(NamedTuple):
    """Which experts one block takes: by word, and by noise level."""

    space: SpaceRoute | None
    time: TimeRoute | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What every layer that reads text is handed in one call: all keys and values, the mask, bias in, maps out.

    ``routes`` are those of the blocks that have experts.
    """

    layers: tuple[KeysValues, ...] = ()
    mask: AttendMask | None = None
    bias: LogitBias | None = None
    maps: list[AttentionMap] | None = None
    segments: Segments = ()
    routes: tuple[BlockRoutes, ...] = ()

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
    out, forward and back, so that it is used there in bf16 only for gradients where the logits would
    take much memory. In float32 it is the faster one, but for wide heads over large pictures.
    """
    if query.dtype == torch.bfloat16 and records_nothing(query, keys, values):
        return attend_in_blocks(query, keys, values, mask)
    if attends_by_head(query, keys, values, mask):
        return attend_by_head(query, keys, values)
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

    def __init__(
        self, width: int, head_width: int, *, zero: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        self.head_width = head_width
        self.qkv = Linear(width, 3 * width, bias=bias)
        self.out = zeroed(Linear(width, width)) if zero else Linear(width, width)

    def forward(self, rows: Rows) -> Rows:
        """Mix the rows."""
        query, keys, values = self.qkv(rows).chunk(3, dim=-1)
        heads = attend(*(split_heads(part, self.head_width) for part in (query, keys, values)))
        return self.out(merge_heads(heads))


class TextReader(nn.Module):
    """Anything with keys and values of the text; ``layer`` is its place in `Reading.layers`."""

    layer: int = -1

    def __init__(
        self,
        width: int,
        context_width: int,
        head_width: int,
        *,
        bias: bool = True,
        text_norm: NumGroups | None = None,
    ) -> None:
        super().__init__()
        self.head_width = head_width
        self.text_norm = None if text_norm is None else group_norm(text_norm, context_width)
        self.text_kv = nn.Linear(context_width, 2 * width, bias=bias)

    def read(self, context: Rows) -> KeysValues:
        """Keys and values of the text, once per prompt.

        A group norm takes its statistics over the tokens too, padding included, as DeepFloyd IF's does.
        """
        if self.text_norm is not None:
            context = self.text_norm(context.transpose(1, 2)).transpose(1, 2)
        keys, values = self.text_kv(context).chunk(2, dim=-1)
        return KeysValues(
            split_heads(keys, self.head_width).contiguous(),
            split_heads(values, self.head_width).contiguous(),
        )


class CrossMixer(TextReader):
    """Cross-attention from rows to the text, without norm or residual."""

    def __init__(
        self,
        width: int,
        context_width: int,
        head_width: int,
        *,
        zero: bool = True,
        bias: bool = True,
        text_norm: NumGroups | None = None,
    ) -> None:
        super().__init__(width, context_width, head_width, bias=bias, text_norm=text_norm)
        self.query = Linear(width, width, bias=bias)
        self.out = zeroed(Linear(width, width)) if zero else Linear(width, width)

    def forward(self, rows: Rows, height: int, width: int, reading: Reading) -> Rows:
        """Read the text at every position."""
        query = split_heads(self.query(rows), self.head_width)

        keys, values = reading.layers[self.layer]

        def plain(picked: Picked) -> Heads:
            mask = None if reading.mask is None else pick(reading.mask, picked)
            return attend(pick(query, picked), pick(keys, picked), pick(values, picked), mask)

        def written_out(picked: Picked) -> Heads:
            heads = None
            if picked is not None and isinstance(reading.bias, RowBias):
                heads = reading.bias.attended(query, self.layer, height, width, reading)
            if heads is not None:
                return heads
            return self._attended(query, height, width, reading, picked)[0]

        return self.out(merge_heads(_read(reading, len(rows), plain, written_out)))

    def with_map(
        self, rows: Rows, height: int, width: int, reading: Reading
    ) -> tuple[Rows, Float[Tensor, "batch heads positions keys"]]:
        """What `forward` gives, and where every position looked: float32 weights over the keys, head by head."""
        query = split_heads(self.query(rows), self.head_width)
        heads, weights = self._attended(query, height, width, reading, None)
        return self.out(merge_heads(heads)), weights

    def _attended(
        self,
        query: Float[Tensor, "all heads positions head_width"],
        height: int,
        width: int,
        reading: Reading,
        picked: Picked,
    ) -> tuple[
        Float[Tensor, "batch heads positions head_width"],
        Float[Tensor, "batch heads positions keys"],
    ]:
        """What some pictures read, and their weights, written out."""
        keys, values = reading.layers[self.layer]
        logits = pick(query, picked).float() @ pick(keys, picked).float().transpose(-1, -2)
        logits = _biased(logits, height, width, reading, self.head_width**-0.5, picked)
        weights = logits.softmax(dim=-1)
        _report(reading, self.layer, height, width, weights, picked)
        return weights.to(values.dtype) @ pick(values, picked), weights


class FusedMixer(TextReader):
    """Image positions and text tokens as keys of one softmax, without norm or residual.

    Source: Imagen (arXiv:2205.11487), appendix D.3.1: the text's keys and values are concatenated to the image's.
    """

    def __init__(
        self, width: int, context_width: int, head_width: int, *, text_norm: NumGroups | None = None
    ) -> None:
        super().__init__(width, context_width, head_width, text_norm=text_norm)
        self.qkv = Linear(width, 3 * width)
        self.out = zeroed(Linear(width, width))

    def forward(self, rows: Rows, height: int, width: int, reading: Reading) -> Rows:
        """Look at picture and text at once."""
        parts = self.qkv(rows).chunk(3, dim=-1)
        query, keys, values = (split_heads(part, self.head_width) for part in parts)
        text = reading.layers[self.layer]
        batch, positions = rows.shape[:2]
        both_values = torch.cat([_for_batch(text.values, batch), values], dim=2)

        def plain(picked: Picked) -> Heads:
            both_keys = torch.cat([_for_batch(text.keys, batch), keys], dim=2)
            mask = None
            if reading.mask is not None:
                everywhere = reading.mask.new_ones(1, 1, 1, positions).expand(batch, -1, -1, -1)
                mask = torch.cat([reading.mask.expand(batch, -1, -1, -1), everywhere], dim=-1)
                mask = pick(mask, picked)
            return attend(
                pick(query, picked), pick(both_keys, picked), pick(both_values, picked), mask
            )

        def written_out(picked: Picked) -> Heads:
            scale = self.head_width**-0.5
            wide = pick(query, picked).float()
            logits = wide @ pick(text.keys, picked).float().transpose(-1, -2)
            logits = _biased(logits, height, width, reading, scale, picked)
            own = wide @ pick(keys, picked).float().transpose(-1, -2) * scale
            weights = torch.cat([logits, own], dim=-1).softmax(dim=-1)
            seen = weights[..., : logits.shape[-1]]
            _report(reading, self.layer, height, width, seen, picked)
            return weights.to(values.dtype) @ pick(both_values, picked)

        return self.out(merge_heads(_read(reading, batch, plain, written_out)))


def pick(tensor: Tensor, rows: Picked) -> Tensor:
    """Those pictures of a batch; None means all, and what serves the whole batch serves them too."""
    if rows is None or tensor.shape[0] == 1:
        return tensor
    first, count = rows[0], len(rows)
    if count == 1 or rows == tuple(range(first, first + count)):
        return tensor.narrow(0, first, count)  # a view: nothing is copied
    return tensor[list(rows)]


def _read(
    reading: Reading,
    batch: int,
    plain: Callable[[Picked], Heads],
    written_out: Callable[[Picked], Heads],
) -> Heads:
    """What a layer reads: the fast way, written out for everyone, or written out for some pictures."""
    bias = reading.bias
    if reading.is_plain:
        return plain(None)
    if reading.maps is not None or not isinstance(bias, RowBias):
        return written_out(None)
    rows = bias.rows
    biased = written_out(rows)
    if not bias.changes:
        return plain(None)
    if len(rows) == batch:
        return biased
    others, count = tuple(row for row in range(batch) if row not in rows), len(rows)
    is_end = rows in (tuple(range(count)), tuple(range(batch - count, batch)))
    if is_end and biased.is_cpu and not torch.is_grad_enabled():
        # On a CPU a picture is read alike alone and among others, to the last bit.
        return torch.cat([biased, plain(others)] if rows[0] == 0 else [plain(others), biased])
    return plain(None).index_copy(0, torch.tensor(rows, device=biased.device), biased)


def _for_batch(heads: Heads, batch: int) -> Heads:
    """A context prepared for one prompt serves every picture of a batch."""
    return heads.expand(batch, -1, -1, -1)


def _biased(
    logits: Logits, height: int, width: int, reading: Reading, scale: float, picked: Picked
) -> Logits:
    """Undivided text logits with bias, division and mask applied, in that order."""
    bias = reading.bias
    if isinstance(bias, RowBias):
        if picked == bias.rows or len(bias.rows) == len(logits):
            logits = bias.add(logits, height, width, reading)
        else:
            rows = list(bias.rows)
            logits = logits.index_copy(
                0,
                torch.tensor(rows, device=logits.device),
                bias.add(logits[rows], height, width, reading),
            )
    elif bias is not None:
        logits = bias(logits, height, width)
    logits = logits * scale
    if reading.mask is not None:
        logits = torch.where(pick(reading.mask, picked), logits, float("-inf"))
    return logits


def _report(
    reading: Reading, layer: int, height: int, width: int, weights: Logits, picked: Picked
) -> None:
    seen = AttentionMap(layer=layer, height=height, width=width, weights=weights)
    if reading.maps is not None:
        reading.maps.append(seen)
    if isinstance(reading.bias, RowBias):
        rows = reading.bias.rows if picked is None else None
        reading.bias.saw(replace(seen, weights=pick(weights, rows)), reading)
