"""Transformer blocks inside a U-Net: self-attention, cross-attention, feed-forward, or experts in its place."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bottega.models.attention import BlockRoutes, CrossMixer, Reading, SelfMixer
from bottega.models.fast_cpu import Linear, needs_no_gradient, product_gated
from bottega.models.layers import (
    Embedding,
    Features,
    Rows,
    group_norm,
    to_picture,
    to_rows,
    zeroed,
)
from bottega.models.moe import SpaceMoE, TimeMoE
from bottega.models.moe_gates import Exploring, SpaceRoute, TimeRoute
from bottega.models.require import inner_width
from bottega.models.unet_config import (
    ExpertTransformer,
    FeedForward,
    GatedFeedForward,
    Norm,
    Transformer,
)

WIDENED = 2**21
"""Numbers that a gated feed-forward widens its rows to at once on a CPU: 8 MiB in float32."""


class Gated(nn.Module):
    """Linear to twice the inner width, one half gated by the GELU of the other, linear back."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        inner = inner_width(width, ratio)
        self.up = Linear(width, 2 * inner)
        self.down = Linear(inner, width)

    def forward(self, rows: Rows) -> Rows:
        """Transform every row by itself."""
        if needs_no_gradient(rows, self.up.weight) and rows.shape[1] > (most := self._rows()):
            return self._in_blocks(rows, most)
        return self.down(self._gated(rows))

    def _gated(self, rows: Float[Tensor, "*rows features"]) -> Float[Tensor, "*rows inner"]:
        if type(self.up) is Linear:  # and nothing beside it, such as a LoRA that is being trained
            return product_gated(rows, self.up.weight, self.up.bias)
        value, gate = self.up(rows).chunk(2, dim=-1)
        return value * F.gelu(gate)

    def _rows(self) -> int:
        """How many rows are widened at once where nothing records what is done to them."""
        return max(1, WIDENED // self.up.out_features)

    def _in_blocks(self, rows: Rows, most: int) -> Rows:
        """The same for some rows of one picture at a time, so that no large tensor is asked of the operating system."""
        changed = torch.empty_like(rows)
        for picture, into in zip(rows, changed, strict=True):
            for some, place in zip(picture.split(most), into.split(most), strict=True):
                place.copy_(self.down(self._gated(some)))
        return changed


class Plain(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        inner = inner_width(width, ratio)
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


class ExpertBlock(nn.Module):
    """Self-attention, cross-attention, time-MoE and space-MoE over rows, each after a layer norm and with a residual.

    ``place`` is where this block's routes are in `Reading.routes`.
    """

    place: int = -1

    def __init__(
        self, width: int, context_width: int, time_width: int, plan: ExpertTransformer
    ) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(width)
        self.self_mix = SelfMixer(width, plan.head_width, zero=False, bias=plan.qkv_bias)
        self.norm_cross = nn.LayerNorm(width)
        self.cross_mix = CrossMixer(
            width, context_width, plan.head_width, zero=False, bias=plan.qkv_bias
        )
        self.feed: nn.Module | None = None
        self.time: TimeMoE | None = None
        self.space: SpaceMoE | None = None
        if plan.feed_forward is not None:
            self.norm_feed = nn.LayerNorm(width)
            self.feed = feed_forward(plan.feed_forward, width)
        if plan.time is not None:
            self.norm_time = nn.LayerNorm(width)
            self.time = TimeMoE(width, time_width, plan.time)
        if plan.space is not None:
            self.norm_space = nn.LayerNorm(width)
            self.space = SpaceMoE(width, context_width, plan.space)

    def space_route(
        self,
        tokens: Rows,
        mask: Bool[Tensor, "batch rows"],
        exploring: Exploring | None = None,
    ) -> SpaceRoute | None:
        """The experts that a prompt's tokens go to, in a block that has some."""
        return None if self.space is None else self.space.route(tokens, mask, exploring)

    def time_route(
        self, embedding: Embedding, exploring: Exploring | None = None
    ) -> TimeRoute | None:
        """The expert that each noise level goes to, in a block that has some."""
        return None if self.time is None else self.time.route(embedding, exploring)

    def forward(self, rows: Rows, height: int, width: int, reading: Reading) -> Rows:
        """Refine the rows of a picture of this height and width."""
        routes = reading.routes[self.place]
        rows = rows + self.self_mix(self.norm_self(rows))
        normed = self.norm_cross(rows)
        if self.space is None:
            rows = rows + self.cross_mix(normed, height, width, reading)
            return self._without_space(rows, routes)
        read, weights = self.cross_mix.with_map(normed, height, width, reading)
        rows = self._without_space(rows + read, routes)
        assert routes.space is not None  # a block with a space-MoE has a route, see UNet.prepare
        # One map of all heads; the threshold that makes a mask of it has no gradient.
        attention_map = weights.detach().mean(dim=1)
        return rows + self.space(self.norm_space(rows), attention_map, routes.space)

    def _without_space(self, rows: Rows, routes: BlockRoutes) -> Rows:
        if self.feed is not None:
            rows = rows + self.feed(self.norm_feed(rows))
        if self.time is not None:
            assert routes.time is not None  # as above
            rows = rows + self.time(self.norm_time(rows), routes.time)
        return rows


class PictureTransformer(nn.Module):
    """Group norm, linear in, transformer blocks, linear out, residual."""

    def __init__(
        self,
        width: int,
        context_width: int,
        time_width: int,
        plan: Transformer | ExpertTransformer,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.norm = group_norm(norm, width, plan.norm_eps)
        self.into = Linear(width, width)
        self.blocks = nn.ModuleList(
            ExpertBlock(width, context_width, time_width, plan)
            if isinstance(plan, ExpertTransformer)
            else TransformerBlock(width, context_width, plan)
            for _ in range(plan.depth)
        )
        self.out = zeroed(Linear(width, width))

    def forward(self, x: Features, reading: Reading) -> Features:
        """Add what the blocks found."""
        height, width = x.shape[2:]
        rows = self.into(to_rows(self.norm(x)))
        for block in self.blocks:
            rows = block(rows, height, width, reading)
        return x + to_picture(self.out(rows), height, width)
