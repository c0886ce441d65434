"""The judge's network: from a small picture to what stands where, on what ground, in which style.

It is read on a grid of cells, four pixels wide. Every cell says whether a thing is centred in it, which one, how large,
and how tinted; the whole picture says its background, its style, and which word is written in it.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bottega.errors import ConfigError
from bottega.shapes import Images, Pooled

STRIDE = 4
"""Pixels per cell of the grid."""

# Group norm on a CPU is many times slower when its groups are narrow.
_GROUP_WIDTH = 16

Grid = Float[Tensor, "batch channels rows columns"]
Map = Float[Tensor, "batch _ _ _"]


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """What the judge can name, and how large it is.

    ``things``, ``backgrounds``, ``styles``, ``tints`` and ``signs`` (what may be written) are the words of the world it
    reads, in the order of its outputs. ``widths`` are the channels at 1/2, 1/4 and 1/8 of the picture; ``size_px`` is
    the side it looks at.
    """

    things: tuple[str, ...]
    backgrounds: tuple[str, ...]
    styles: tuple[str, ...]
    tints: tuple[str, ...]
    signs: tuple[str, ...]
    widths: tuple[int, int, int] = (48, 96, 112)
    size_px: int = 64

    def __post_init__(self) -> None:
        for name in ("things", "backgrounds", "styles"):
            words = getattr(self, name)
            if not words or len(set(words)) != len(words):
                raise ConfigError(f"a judge needs {name}, each once, got {words}")
        for name in ("tints", "signs"):
            words = getattr(self, name)
            if len(set(words)) != len(words):
                raise ConfigError(f"a judge needs {name} each once, got {words}")
        if any(width < 1 or width % _GROUP_WIDTH for width in self.widths):
            raise ConfigError(f"widths are multiples of {_GROUP_WIDTH}, got {self.widths}")
        if self.size_px < 16 or self.size_px % 8:
            raise ConfigError(f"size_px is a multiple of 8 from 16 up, got {self.size_px}")


class Seen(NamedTuple):
    """The network's raw outputs, in float32: logits, except for ``offset`` (cells) and ``log_size``.

    The first tint and the first sign stand for none.
    """

    centre: Float[Tensor, "batch rows columns"]
    thing: Float[Tensor, "batch things rows columns"]
    tint: Float[Tensor, "batch tints rows columns"]
    offset: Float[Tensor, "batch 2 rows columns"]
    log_size: Float[Tensor, "batch rows columns"]
    background: Float[Tensor, "batch backgrounds"]
    style: Float[Tensor, "batch styles"]
    sign: Float[Tensor, "batch signs"]
    features: Pooled


class JudgeNetwork(nn.Module):
    """A detector of about a million parameters for pictures of 64 pixels.

    Source: Zhou et al. 2019 (arXiv:1904.07850), objects as points. We differ: one heat map for every thing with the
    name read beside it, because a map for each of a hundred things is mostly empty and slow to learn.
    """

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        half, quarter, eighth = config.widths
        self.stem = nn.Conv2d(12, half, 3, padding=1)
        self.to_quarter = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.quarter = _Block(quarter)
        self.to_eighth = nn.Conv2d(quarter, eighth, 3, stride=2, padding=1)
        self.eighth = nn.Sequential(_Block(eighth), _Block(eighth))
        self.merge = nn.Conv2d(quarter + eighth, eighth, 1)
        self.top = nn.Sequential(_Block(eighth), _norm(eighth), nn.SiLU())
        self.cell_widths = (1, len(config.things), len(config.tints) + 1, 2, 1)
        self.cell = nn.Conv2d(eighth, sum(self.cell_widths), 1)
        self.picture_widths = (len(config.backgrounds), len(config.styles), len(config.signs) + 1)
        self.picture = nn.Sequential(
            nn.Linear(4 * eighth, 128), nn.SiLU(), nn.Linear(128, sum(self.picture_widths))
        )
        self._initialise()

    def _initialise(self) -> None:
        # Most cells are empty: start by saying so, or their sum drowns the few that are not.
        bias = torch.zeros(sum(self.cell_widths))
        bias[0] = -math.log(50)
        self.cell.bias = nn.Parameter(bias)
        with torch.no_grad():
            self.cell.weight.mul_(0.1)

    def maps(self, images: Images) -> tuple[Map, Map, Map]:
        """What is seen at 1/2, 1/4 and 1/8 of pictures of any even size, before it is put into words."""
        x = images.to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        half = F.silu(self.stem(F.pixel_unshuffle(x, 2)))
        quarter = self.quarter(self.to_quarter(half))
        return half, quarter, self.eighth(self.to_eighth(F.silu(quarter)))

    def forward(self, images: Images) -> Seen:
        """Look at pictures of the configured size; runs in the parameters' dtype."""
        _, quarter, eighth = self.maps(images)
        above = F.interpolate(eighth, scale_factor=2, mode="nearest")
        top = self.top(self.merge(torch.cat([F.silu(quarter), above], 1)))
        features = torch.cat([top.mean((2, 3)), eighth.mean((2, 3))], 1)
        strongest = torch.cat([top.amax((2, 3)), eighth.amax((2, 3))], 1)
        picture = self.picture(torch.cat([features, strongest], 1)).float()
        centre, thing, tint, offset, log_size = self.cell(top).float().split(self.cell_widths, 1)
        background, style, sign = picture.split(self.picture_widths, 1)
        return Seen(
            centre[:, 0],
            thing,
            tint,
            offset,
            log_size[:, 0],
            background,
            style,
            sign,
            features.float(),
        )


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_in = _norm(width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Grid) -> Grid:
        h = self.conv_in(F.silu(self.norm_in(x)))
        return x + self.conv_out(F.silu(self.norm_out(h)))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width // _GROUP_WIDTH, width)


__all__ = ["STRIDE", "JudgeConfig", "JudgeNetwork", "Seen"]
