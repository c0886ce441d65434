"""The autoencoder of latent diffusion, whose settings and weights have the names of diffusers' AutoencoderKL."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bottega.errors import ConfigError
from bottega.shapes import Images

Latents = Float[Tensor, "batch latent_channels latent_height latent_width"]
Features = Float[Tensor, "batch channels height width"]
Resized = Float[Tensor, "batch out_channels out_height out_width"]
"""Features of another width, another size, or both."""

_EPS = 1e-6
_OVERLAP = 0.25
"""The share of a tile that it has in common with its neighbour."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderKLConfig:
    """Every setting of diffusers' class under its own name and with its own default; those with one meaning alone too.

    Source: the diffusers library, whose weights are read and written.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | tuple[int, ...] = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "layers_per_block", "latent_channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        widths, groups = self.block_out_channels, self.norm_num_groups
        if not widths or groups < 1 or any(width < 1 or width % groups for width in widths):
            raise ConfigError(
                f"block_out_channels must be multiples of norm_num_groups {groups}, got {list(widths)}"
            )
        for name, kind in (
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ):
            if getattr(self, name) != (kind,) * len(widths):
                raise ConfigError(
                    f"{name} must be {kind} for each of block_out_channels, got {list(getattr(self, name))}"
                )
        if self.act_fn not in ("silu", "swish"):
            raise ConfigError(f"act_fn={self.act_fn!r} is not supported here; expected 'silu'")
        self._check_latents()
        if not 0 < self.scaling_factor < float("inf"):
            raise ConfigError(f"scaling_factor must be above 0, got {self.scaling_factor}")
        if self.tile < self.factor:
            raise ConfigError(f"sample_size must be at least {self.factor}, got {self.sample_size}")

    def _check_latents(self) -> None:
        """A mean and a spread for each channel of the latents, or neither."""
        means, spreads = self.latents_mean, self.latents_std
        if means is None and spreads is None:
            return
        if means is None or spreads is None or {len(means), len(spreads)} != {self.latent_channels}:
            raise ConfigError(
                f"latents_mean and latents_std go together, one number of each for each of the {self.latent_channels} "
                f"latent_channels, got {means} and {spreads}"
            )
        if not all(0 < spread < float("inf") for spread in spreads):
            raise ConfigError(f"latents_std must be above 0, got {list(spreads)}")

    @property
    def factor(self) -> int:
        """How many pixels one position of the latents stands for, along each side."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def tile(self) -> int:
        """Pixels along each side of the pictures that it learned on, and of a tile of larger ones."""
        size = self.sample_size
        return size if isinstance(size, int) else min(size, default=0)


class Posterior(NamedTuple):
    """What an encoder says of a picture: normal latents."""

    mean: Latents
    log_variance: Latents


class AutoencoderKL(nn.Module):
    """Pictures as normal latents, and back; the same numbers as diffusers' class gives with the same weights.

    Source: Rombach et al. 2022 (arXiv:2112.10752), section 3.1, as the diffusers library has it, its names and its
    order of the weights included.
    """

    def __init__(self, config: AutoencoderKLConfig) -> None:
        """Build it, untrained."""
        super().__init__()
        latent = config.latent_channels
        self.config = config
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1) if config.use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(latent, latent, 1) if config.use_post_quant_conv else None

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in, that of its weights."""
        return next(self.parameters()).dtype

    def encode(self, images: Images, *, tiled: bool = False) -> Posterior:
        """The latents of pictures in [-1, 1]; ``tiled`` as in `decode`."""
        tile = self.config.tile
        moments = (
            in_tiles(self._encoded, images, tile, tile // self.config.factor)
            if tiled
            else self._encoded(images)
        )
        mean, log_variance = moments.chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-30.0, 20.0))

    def decode(self, latents: Latents, *, tiled: bool = False) -> Images:
        """Pictures in [-1, 1], values outside not clipped.

        Args:
            latents: As `encode` gives them, without scale or shift.
            tiled: Decode what is larger than the autoencoder learned on in overlapping tiles, so that memory stays
                bounded. Where tiles meet the picture differs a little.
        """
        if not tiled:
            return self._decoded(latents)
        tile = self.config.tile
        return in_tiles(self._decoded, latents, tile // self.config.factor, tile)

    def forward(self, images: Images) -> Images:
        """What comes back of pictures, from the mean of their latents."""
        return self.decode(self.encode(images).mean)

    def _encoded(self, images: Images) -> Resized:
        moments = self.encoder(images)
        return moments if self.quant_conv is None else self.quant_conv(moments)

    def _decoded(self, latents: Latents) -> Images:
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents)


class _Encoder(nn.Module):
    """The way down: residual blocks, each resolution half as large as the one before."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        """Build it, untrained."""
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            _Down(*widths_of, config.layers_per_block, groups, last)
            for widths_of, last in _levels(widths)
        )
        self.mid_block = _Middle(widths[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=_EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Features) -> Resized:
        """Means and logarithms of variances, one after the other."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class _Decoder(nn.Module):
    """The way up, with one residual block more at every resolution."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        """Build it, untrained."""
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.up_blocks = nn.ModuleList()  # named before the middle, as its weights are in files
        self.mid_block = _Middle(widths[0], groups, config.mid_block_add_attention)
        self.up_blocks.extend(
            _Up(*widths_of, config.layers_per_block + 1, groups, last)
            for widths_of, last in _levels(widths)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=_EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Features) -> Resized:
        """Pictures."""
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class _Down(nn.Module):
    """Residual blocks of one resolution of the encoder, and the way to the next, where there is one."""

    def __init__(self, width_in: int, width: int, blocks: int, groups: int, last: bool) -> None:
        """Build it, untrained."""
        super().__init__()
        self.resnets = _blocks(width_in, width, blocks, groups)
        self.downsamplers = nn.ModuleList([] if last else [_Halved(width)])

    def forward(self, x: Features) -> Resized:
        """All blocks, then the next size."""
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class _Up(nn.Module):
    """The same of the decoder."""

    def __init__(self, width_in: int, width: int, blocks: int, groups: int, last: bool) -> None:
        """Build it, untrained."""
        super().__init__()
        self.resnets = _blocks(width_in, width, blocks, groups)
        self.upsamplers = nn.ModuleList([] if last else [_Doubled(width)])

    def forward(self, x: Features) -> Resized:
        """All blocks, then the next size."""
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


def _levels(widths: Sequence[int]) -> Iterator[tuple[tuple[int, int], bool]]:
    """For every resolution the width that comes in and its own, and whether it is the last."""
    pairs = [(widths[0], widths[0]), *pairwise(widths)]
    return ((pair, i == len(pairs) - 1) for i, pair in enumerate(pairs))


def _blocks(width_in: int, width: int, count: int, groups: int) -> nn.ModuleList:
    return nn.ModuleList(
        _Residual(width_in if i == 0 else width, width, groups) for i in range(count)
    )


class _Middle(nn.Module):
    """Two residual blocks, and between them positions that look at each other, where wanted."""

    def __init__(self, width: int, groups: int, attention: bool) -> None:
        """Build it, untrained."""
        super().__init__()
        first = _Residual(width, width, groups)
        looking = [_SelfAttention(width, groups)] if attention else []
        self.attentions = nn.ModuleList(looking)
        self.resnets = nn.ModuleList([first, _Residual(width, width, groups)])

    def forward(self, x: Features) -> Features:
        """The same shape."""
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class _Residual(nn.Module):
    """Norm, activation and convolution, twice, added to what came in."""

    def __init__(self, width_in: int, width: int, groups: int) -> None:
        """Build it, untrained."""
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width_in, eps=_EPS)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width, eps=_EPS)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = None if width_in == width else nn.Conv2d(width_in, width, 1)

    def forward(self, x: Features) -> Resized:
        """As wide as was asked for."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + hidden


class _SelfAttention(nn.Module):
    """One head over all positions."""

    def __init__(self, width: int, groups: int) -> None:
        """Build it, untrained."""
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=_EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Features) -> Features:
        """The same shape."""
        normed = self.group_norm(x.flatten(2)).transpose(1, 2)
        query, key, value = (
            project(normed)[:, None] for project in (self.to_q, self.to_k, self.to_v)
        )
        seen = F.scaled_dot_product_attention(query, key, value)[:, 0]
        return self.to_out[0](seen).transpose(1, 2).reshape(x.shape) + x


class _Halved(nn.Module):
    """Half as many positions along each side; a further row and column of zeros stand below and to the right."""

    def __init__(self, width: int) -> None:
        """Build it, untrained."""
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Features) -> Resized:
        """Half the size."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _Doubled(nn.Module):
    """Every position four times, then a convolution."""

    def __init__(self, width: int) -> None:
        """Build it, untrained."""
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Features) -> Resized:
        """Twice the size."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def in_tiles(function: Callable[[Tensor], Tensor], x: Tensor, tile: int, out: int) -> Tensor:
    """What a function makes of pictures, a square at a time, with a quarter of each faded into the next.

    Args:
        function: Makes ``out`` positions of ``tile`` along each side.
        x: Pictures; those not larger than a tile are done whole.
        tile: Side of a square that goes in.
        out: Side of what comes out of it.
    """
    if max(x.shape[2:]) <= tile:
        return function(x)
    step, fade = max(int(tile * (1 - _OVERLAP)), 1), int(out * _OVERLAP)
    above: list[Tensor] = []
    rows: list[Tensor] = []
    for top in range(0, x.shape[2], step):
        row: list[Tensor] = []
        for left in range(0, x.shape[3], step):
            made = function(x[:, :, top : top + tile, left : left + tile])
            if above:
                made = _faded(above[len(row)], made, fade, 2)
            if row:
                made = _faded(row[-1], made, fade, 3)
            row.append(made)
        above = row
        rows.append(torch.cat([made[:, :, : out - fade, : out - fade] for made in row], dim=3))
    return torch.cat(rows, dim=2)


def _faded(before: Tensor, after: Tensor, fade: int, dim: int) -> Tensor:
    """The second square, its beginning mixed with the end of the first, more of its own with each position."""
    fade = min(before.shape[dim], after.shape[dim], fade)
    shape: list[Any] = [1] * after.ndim
    shape[dim] = fade
    own = (torch.arange(fade, device=after.device) / max(fade, 1)).to(after.dtype).view(shape)
    end = before.narrow(dim, before.shape[dim] - fade, fade)
    mixed = end * (1 - own) + after.narrow(dim, 0, fade) * own
    return torch.cat([mixed, after.narrow(dim, fade, after.shape[dim] - fade)], dim=dim)


__all__ = ["AutoencoderKL", "AutoencoderKLConfig", "Posterior", "in_tiles"]
