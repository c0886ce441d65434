"""Transformer blocks inside a U-Net: self-attention, cross-attention, feed-forward (Stable Diffusion's shape)."""

import torch.nn.functional as F
from torch import nn

from bottega.models.attention import CrossMixer, Reading, SelfMixer
from bottega.models.fast_cpu import Linear
from bottega.models.layers import Features, Rows, group_norm, to_picture, to_rows, zeroed
from bottega.models.unet_config import FeedForward, GatedFeedForward, Norm, Transformer


class Gated(nn.Module):
    """Linear to twice the inner width, one half gated by the GELU of the other, linear back."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        inner = int(width * ratio)
        self.up = Linear(width, 2 * inner)
        self.down = Linear(inner, width)

    def forward(self, rows: Rows) -> Rows:
        """Transform every row by itself."""
        value, gate = self.up(rows).chunk(2, dim=-1)
        return self.down(value * F.gelu(gate))


class Plain(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        inner = int(width * ratio)
        self.up = Linear(width, inner)
        self.down = Linear(inner, width)

    def forward(self, rows: Rows) -> Rows:
        """Transform every row by itself."""
        return self.down(F.gelu(self.up(rows)))


def feed_forward(plan: FeedForward, width: int) -> nn.Module:
    """The feed-forward the plan names."""
    if isinstance(plan, GatedFeedForward):
        return Gated(width, plan.ratio)
    return Plain(width, plan.ratio)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward over rows, each after a layer norm and with a residual."""

    def __init__(self, width: int, context_width: int, plan: Transformer) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(width)
        self.self_mix = SelfMixer(width, plan.head_width, zero=False, bias=plan.qkv_bias)
        self.norm_cross = nn.LayerNorm(width)
        self.cross_mix = CrossMixer(
            width, context_width, plan.head_width, zero=False, bias=plan.qkv_bias
        )
        self.norm_feed = nn.LayerNorm(width)
        self.feed = feed_forward(plan.feed_forward, width)

    def forward(self, rows: Rows, height: int, width: int, reading: Reading) -> Rows:
        """Refine the rows of a picture of this height and width."""
        rows = rows + self.self_mix(self.norm_self(rows))
        rows = rows + self.cross_mix(self.norm_cross(rows), height, width, reading)
        return rows + self.feed(self.norm_feed(rows))


class PictureTransformer(nn.Module):
    """Group norm, linear in, transformer blocks, linear out, residual."""

    def __init__(self, width: int, context_width: int, plan: Transformer, norm: Norm) -> None:
        super().__init__()
        self.norm = group_norm(norm, width, plan.norm_eps)
        self.into = Linear(width, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, context_width, plan) for _ in range(plan.depth)
        )
        self.out = zeroed(Linear(width, width))

    def forward(self, x: Features, reading: Reading) -> Features:
        """Add what the blocks found."""
        height, width = x.shape[2:]
        rows = self.into(to_rows(self.norm(x)))
        for block in self.blocks:
            rows = block(rows, height, width, reading)
        return x + to_picture(self.out(rows), height, width)
