"""Faster ways to the same numbers on a CPU, where no gradient is asked for.

Measured on one core of a Zen 5: PyTorch's float32 products go to MKL, which oneDNN beats by a factor of 2.2 there (85
against 190 GFLOP/s), and attention written out over whole pictures spends up to 40% of its time in the kernel of the
operating system, which clears pages for logits that a cache could have held. A convolution over a small picture spends
up to half of its time on laying out its weights.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

BLOCK = 2**21
"""Logits that are held at once: 4 MiB in bf16. More leave the cache, fewer are divided among threads too often."""

LANES = 32
"""Keys are filled up to a multiple of so many, where a softmax in bf16 would go by single numbers at a row's end."""

FEW_ROWS = 512
"""Rows of logits per picture below which that is not worth its copies."""

FLOAT_BLOCK = 2**19
"""The same in float32, where one head is taken at a time."""

FEW_POSITIONS = 64
"""A 3 x 3 convolution is a product where its outputs times 9 are at least so many times a picture's positions."""

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(
    torch.ops.mkldnn, "_linear_pointwise"
)

_HAS_BF16 = _HAS_ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def needs_no_gradient(*tensors: Tensor | None) -> bool:
    """Whether a CPU computes with these and nothing records, compiles or converts what it does."""
    return not torch.compiler.is_compiling() and records_nothing(*tensors)


def records_nothing(*tensors: Tensor | None) -> bool:
    """The same, where a compiler may look on: what it cannot do better is one operation to it."""
    given = [tensor for tensor in tensors if tensor is not None]
    return not (
        any(tensor.device.type != "cpu" for tensor in given)
        or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given))
        or torch.is_autocast_enabled("cpu")
    )


def product(
    rows: Float[Tensor, "*rows features"],
    weight: Float[Tensor, "new_features features"],
    bias: Float[Tensor, "new_features"] | None = None,
) -> Float[Tensor, "*rows new_features"]:
    """Rows times a matrix, as `torch.nn.functional.linear`, by whichever library is the faster one."""
    if (
        _HAS_ONEDNN
        and rows.dtype == weight.dtype == torch.float32
        and rows.numel() > 0
        and torch.backends.mkldnn.enabled
        and records_nothing(rows, weight, bias)
    ):
        if torch.compiler.is_compiling():
            return torch.ops.bottega.product(rows, weight, bias)
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return F.linear(rows, weight, bias)


def product_gelu(
    rows: Float[Tensor, "*rows features"],
    weight: Float[Tensor, "new_features features"],
    bias: Float[Tensor, "new_features"] | None = None,
) -> Float[Tensor, "*rows new_features"]:
    """The GELU of `product`, in one pass over the result where oneDNN is the faster one."""
    if (
        _HAS_ONEDNN
        and rows.dtype == weight.dtype
        and (rows.dtype == torch.float32 or (rows.dtype == torch.bfloat16 and _HAS_BF16))
        and rows.numel() > 0
        and torch.backends.mkldnn.enabled
        and needs_no_gradient(rows, weight, bias)
    ):
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "gelu", [], "none")
    return F.gelu(F.linear(rows, weight, bias))


def product_gated(
    rows: Float[Tensor, "*rows features"],
    weight: Float[Tensor, "twice_new_features features"],
    bias: Float[Tensor, "twice_new_features"],
) -> Float[Tensor, "*rows new_features"]:
    """The first half of `product`, times the GELU of the second, with few passes over the results.

    Where nothing records what is done, oneDNN takes the GELU with its product, and in bf16 the multiplication with the
    other one, before anything is rounded.
    """
    inner = len(weight) // 2
    if not (
        _HAS_ONEDNN
        and rows.dtype == weight.dtype
        and (rows.dtype == torch.float32 or (rows.dtype == torch.bfloat16 and _HAS_BF16))
        and rows.numel() > 0
        and torch.backends.mkldnn.enabled
        and needs_no_gradient(rows, weight, bias)
    ):
        value, gate = product(rows, weight, bias).chunk(2, dim=-1)
        return value * F.gelu(gate)
    gate = product_gelu(rows, weight[inner:], bias[inner:])
    if rows.dtype == torch.float32:  # where the fused multiplication is the slower one
        return gate.mul_(product(rows, weight[:inner], bias[:inner]))
    return torch.ops.mkldnn._linear_pointwise.binary(
        rows, gate, weight[:inner], bias[:inner], "mul"
    )


class Linear(nn.Linear):
    """A linear layer over many rows, positions of a picture above all; see `product`."""

    def forward(self, input: Float[Tensor, "*rows features"]) -> Float[Tensor, "*rows changed"]:  # noqa: A002
        """Transform every row by itself."""
        return product(input, self.weight, self.bias)


class Convolution(nn.Conv2d):
    """A convolution that a CPU takes as one product where a small picture meets large weights.

    Which way is taken depends on the size of a picture, never on their number, so that a picture gets the same alone
    and in a batch.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b new_c new_h new_w"]:  # noqa: A002
        """Convolve."""
        if self._is_product(input):
            return self._product(input)
        return super().forward(input)

    def _is_product(self, x: Tensor) -> bool:
        few = FEW_POSITIONS * x.shape[2] * x.shape[3] <= 9 * self.out_channels
        plain = self.kernel_size == (3, 3) and self.stride == (1, 1) and self.padding == (1, 1)
        return (
            few
            and plain
            and _HAS_ONEDNN
            and x.numel() > 0
            and x.dtype == self.weight.dtype
            and x.dtype in (torch.float32, torch.bfloat16)
            and needs_no_gradient(x, self.weight, self.bias)
        )

    def _product(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b new_c h w"]:
        batch, channels, height, width = x.shape
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        b, h, w, c = padded.stride()
        windows = padded.as_strided((batch, height, width, 3, 3, channels), (b, h, w, h, w, c))
        matrix = self.weight.permute(0, 2, 3, 1).flatten(1)  # a view of channels-last weights
        return product(windows.flatten(3), matrix, self.bias).permute(0, 3, 1, 2)


def attend_in_blocks(
    query: Float[Tensor, "batch heads positions head_width"],
    keys: Float[Tensor, "#batch heads keys head_width"],
    values: Float[Tensor, "#batch heads keys head_width"],
    mask: Bool[Tensor, "#batch 1 1 keys"] | None = None,
) -> Float[Tensor, "batch heads positions head_width"]:
    """softmax(Q K^T / sqrt(d)) V written out, few logits at once: those of some heads, or of some positions of one."""
    if torch.compiler.is_compiling():
        return torch.ops.bottega.attend_in_blocks(query, keys, values, mask)
    batch, heads, positions, head_width = query.shape
    flat = batch * heads
    filled = _filled(keys.shape[2], heads * positions, query.dtype)
    query = (query * head_width**-0.5).reshape(flat, positions, head_width)
    keys = _flat(keys, batch, filled).transpose(1, 2)
    values = _flat(values, batch, filled)
    hidden = None
    if mask is not None:
        hidden = F.pad(~mask, (0, filled), value=True) if filled else ~mask
        hidden = hidden.expand(batch, heads, 1, -1).flatten(0, 1)
    count = keys.shape[2]
    parts = min(positions, -(-positions * count // BLOCK))
    height = -(-positions // parts)
    depth = min(flat, max(1, BLOCK // (positions * count)))
    logits = query.new_empty(depth, height, count)
    mixed = torch.empty_like(query)
    for first in range(0, flat, depth):
        some = slice(first, min(first + depth, flat))
        for start in range(0, positions, height):
            rows = slice(start, min(start + height, positions))
            block = logits[: some.stop - first, : rows.stop - start]
            torch.bmm(query[some, rows], keys[some], out=block)
            if hidden is not None:
                block.masked_fill_(hidden[some], float("-inf"))
            elif filled:
                block[..., -filled:].fill_(float("-inf"))
            torch.softmax(block, dim=-1, out=block)  # row by row, so that it may end where it began
            torch.bmm(block, values[some], out=mixed[some, rows])
    return mixed.view(batch, heads, positions, head_width)


def _filled(count: int, rows: int, dtype: torch.dtype) -> int:
    """How many keys to add that nobody looks at, for so many rows of logits per picture.

    The rows of a batch must not decide, or a picture would not get the same in every batch.
    """
    return -count % LANES if dtype == torch.bfloat16 and rows >= FEW_ROWS else 0


def _flat(
    heads: Float[Tensor, "#batch heads keys head_width"], batch: int, filled: int
) -> Float[Tensor, "flat all_keys head_width"]:
    """Keys or values head by head for a whole batch, with zeros after them."""
    heads = heads.expand(batch, -1, -1, -1).flatten(0, 1)
    return F.pad(heads, (0, 0, 0, filled)) if filled else heads


def attends_by_head(
    query: Float[Tensor, "batch heads positions head_width"],
    keys: Float[Tensor, "#batch heads keys head_width"],
    values: Float[Tensor, "#batch heads keys head_width"],
    mask: Bool[Tensor, "#batch 1 1 keys"] | None = None,
) -> bool:
    """Whether float32 attention is faster by oneDNN's products, head by head, than by PyTorch's fused kernel.

    That kernel takes its products from MKL. For heads as narrow as 16 it is as fast nevertheless, and for a short text
    there is too little to gain.
    """
    return (
        mask is None
        and query.dtype == keys.dtype == torch.float32
        and query.shape[-1] >= 32
        and min(query.shape[-2], keys.shape[-2]) >= 256
        and _HAS_ONEDNN
        and torch.backends.mkldnn.enabled
        and records_nothing(query, keys, values)
    )


def attend_by_head(
    query: Float[Tensor, "batch heads positions head_width"],
    keys: Float[Tensor, "#batch heads keys head_width"],
    values: Float[Tensor, "#batch heads keys head_width"],
) -> Float[Tensor, "batch heads positions head_width"]:
    """softmax(Q K^T / sqrt(d)) V by oneDNN, one head and as many positions at once as a cache holds logits of."""
    if torch.compiler.is_compiling():
        return torch.ops.bottega.attend_by_head(query, keys, values)
    batch, heads, positions, head_width = query.shape
    count, flat = keys.shape[2], batch * heads
    query = (query * head_width**-0.5).reshape(flat, positions, head_width)
    keys = keys.expand(batch, -1, -1, -1).reshape(flat, count, head_width)
    turned = values.expand(batch, -1, -1, -1).reshape(flat, count, head_width).transpose(1, 2)
    turned = turned.contiguous()
    height = min(positions, max(1, FLOAT_BLOCK // count))
    weights = query.new_empty(height, count)
    mixed = torch.empty_like(query)
    for head in range(flat):
        for start in range(0, positions, height):
            rows = slice(start, min(start + height, positions))
            soft = weights[: rows.stop - start]
            torch.softmax(product(query[head, rows], keys[head]), dim=-1, out=soft)
            mixed[head, rows] = product(soft, turned[head])
    return mixed.view(batch, heads, positions, head_width)


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return product(rows, weight, bias)


def _name_for_compilers() -> None:
    """Let a compiler take the three as they are, where it would write attention out or ask MKL for products."""
    heads = "Tensor query, Tensor keys, Tensor values"
    for name, schema, way in (
        ("product", "(Tensor rows, Tensor weight, Tensor? bias) -> Tensor", _product),
        ("attend_in_blocks", f"({heads}, Tensor? mask) -> Tensor", attend_in_blocks),
        ("attend_by_head", f"({heads}) -> Tensor", attend_by_head),
    ):
        named = torch.library.custom_op(f"bottega::{name}", way, mutates_args=(), schema=schema)
        named.register_fake(_like_product if way is _product else _like_query)


def _like_product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return rows.new_empty(*rows.shape[:-1], weight.shape[0])


def _like_query(query: Tensor, *_: Tensor | None) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


_name_for_compilers()

__all__ = [
    "Convolution",
    "Linear",
    "attend_by_head",
    "attend_in_blocks",
    "attends_by_head",
    "needs_no_gradient",
    "product",
    "product_gated",
    "product_gelu",
    "records_nothing",
]
