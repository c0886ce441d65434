"""The smallest pieces: views, norms, activations, convolutions, the embedding of a noise level.

Pictures are NCHW in channels-last memory throughout, so that "every position a row of channels" is a view of them.
"""

import math
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from bottega.models.attention_config import Norm
from bottega.models.fast_cpu import Convolution, product
from bottega.models.stream_config import Periods, Sinusoid
from bottega.shapes import Images

M = TypeVar("M", bound=nn.Module)

Features = Float[Tensor, "batch channels height width"]
"""A picture of features inside a network."""

Changed = Float[Tensor, "batch new_channels new_height new_width"]
"""The same picture after its width or its size changed."""

Rows = Float[Tensor, "batch rows features"]
"""Positions or tokens, each a row of features."""

ChangedRows = Float[Tensor, "batch rows new_features"]
"""The same rows at another width."""

Embedding = Float[Tensor, "#batch embedding"]
"""What is known of noise level and condition, one vector per picture (or one for all of them)."""


def to_rows(x: Features) -> Rows:
    """Every position as a row of channels; a view where memory is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def to_picture(rows: Rows, height: int, width: int) -> Features:
    """Rows back to a picture; a view, and channels-last."""
    return rows.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def fold_patches(x: Features, patch: int) -> Changed:
    """Squares of ``patch`` x ``patch`` pixels into channels, ordered (row, column, channel)."""
    rows = x.permute(0, 2, 3, 1)
    rows = rearrange(rows, "b (h p) (w q) c -> b h w (p q c)", p=patch, q=patch)
    return rows.permute(0, 3, 1, 2)


def unfold_patches(x: Features, patch: int) -> Changed:
    """The inverse of `fold_patches`."""
    rows = x.permute(0, 2, 3, 1)
    rows = rearrange(rows, "b h w (p q c) -> b (h p) (w q) c", p=patch, q=patch)
    return rows.permute(0, 3, 1, 2)


def group_norm(norm: Norm, width: int, eps: float = 1e-5) -> nn.GroupNorm:
    """Group norm as the plan wants it."""
    return nn.GroupNorm(norm.groups(width), width, eps=eps)


def activate(kind: Literal["silu", "gelu"], x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The plan's activation."""
    return F.silu(x) if kind == "silu" else F.gelu(x)


def conv(in_width: int, out_width: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the picture's size, or divides it by ``stride``."""
    return Convolution(in_width, out_width, kernel, stride=stride, padding=kernel // 2)


def zeroed(module: M) -> M:
    """The module with every parameter zero, so that its residual branch starts silent (ADM)."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class Shortcut(nn.Linear):
    """A 1 x 1 convolution as a product over channels: the same numbers, without a convolution's set-up."""

    def forward(self, input: Features) -> Changed:  # noqa: A002 (nn.Linear's own name for it)
        """Mix channels at every position."""
        return product(input.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)


def waves(
    plan: Sinusoid | Periods, values: Float[Tensor, "batch"], num_frequencies: int
) -> Float[Tensor, "batch features"]:
    """Numbers as sines and cosines, in float32."""
    if isinstance(plan, Periods):
        steps = torch.arange(num_frequencies, dtype=torch.float32, device=values.device)
        steps = -math.log(plan.longest) * steps / (num_frequencies - plan.shift)
    else:
        steps = torch.linspace(
            math.log(plan.highest), math.log(plan.lowest), num_frequencies, device=values.device
        )
    angles = values.float()[:, None] * steps.exp()
    halves = [angles.cos(), angles.sin()]
    if isinstance(plan, Periods) and plan.sines_first:
        halves.reverse()
    return torch.cat(halves, dim=1)


class NoiseEmbedding(nn.Module):
    """c_noise as sines and cosines, then a two-layer perceptron.

    The sinusoid is taken in float32 whatever the network's precision: bf16 cannot tell neighbouring noise levels apart.
    """

    def __init__(
        self,
        sinusoid: Sinusoid | Periods,
        num_features: int,
        width: int,
        activation: Literal["silu", "gelu"] = "silu",
    ) -> None:
        super().__init__()
        self.sinusoid = sinusoid
        self.activation: Literal["silu", "gelu"] = activation
        self.num_frequencies = num_features // 2
        self.linear_in = nn.Linear(2 * self.num_frequencies, width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, c_noise: Float[Tensor, "batch"]) -> Float[Tensor, "batch embedding"]:
        """Embed one number per picture."""
        features = waves(self.sinusoid, c_noise, self.num_frequencies)
        inner = self.linear_in(features.to(self.linear_in.weight.dtype))
        return self.linear_out(activate(self.activation, inner))


def enlarge(low_res: Images, scale: int) -> Changed:
    """A picture ``scale`` times larger, by bilinear interpolation in float32."""
    if scale == 1:
        return low_res.float()
    return F.interpolate(low_res.float(), scale_factor=scale, mode="bilinear", align_corners=False)
