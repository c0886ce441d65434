"""A network that enlarges pictures in one go, and the critic it is trained against: Real-ESRGAN's two.

Pictures are in [-1, 1]; inside, both networks see [0, 1], as the published weights do.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bottega.errors import ConfigError, InputError
from bottega.models.layers import Changed
from bottega.shapes import Images

Maps = Float[Tensor, "batch maps rows columns"]
"""What a network makes of pictures, at one size."""

Large = Float[Tensor, "batch 3 tall wide"]

_SLOPE = 0.2
_RESIDUAL = 0.2
_UP = 4
"""How many times larger than its maps the generator paints; a smaller scale folds pixels into channels first."""


@dataclass(frozen=True, kw_only=True)
class RRDBNetConfig:
    """Real-ESRGAN's generator; the defaults are those of its published x4plus weights.

    ``grow`` channels are added by each convolution of a dense block, and three dense blocks make one of ``num_blocks``.
    """

    scale: Literal[1, 2, 4] = 4
    width: int = 64
    num_blocks: int = 23
    grow: int = 32

    def __post_init__(self) -> None:
        for name in ("width", "num_blocks", "grow"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def fold(self) -> int:
        """How many pixels a side become one position of the maps."""
        return _UP // self.scale


class RRDBNet(nn.Module):
    """Dense residual blocks at the small size, then nearest neighbours and convolutions up to the large one.

    It works in two phases, `features` and `paint`, since only the first looks far: `body_reach` and `paint_reach` say
    how far, in positions of the maps, and so how much a tile must see of what lies around it.

    Source: Wang et al. 2021 (arXiv:2107.10833), Figure 4; the names of the parts are those of its published weights.
    """

    def __init__(self, config: RRDBNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv_first = _conv(3 * config.fold**2, width)
        self.body = nn.Sequential(*(_Block(width, config.grow) for _ in range(config.num_blocks)))
        self.conv_body = _conv(width, width)
        self.conv_up1 = _conv(width, width)
        self.conv_up2 = _conv(width, width)
        self.conv_hr = _conv(width, width)
        self.conv_last = _conv(width, 3)

    @property
    def body_reach(self) -> int:
        """A position of `features` depends on this many to each side."""
        return 15 * self.config.num_blocks + 2

    @property
    def paint_reach(self) -> int:
        """The pixels of a position depend on this many positions of the maps to each side."""
        return 2

    def features(self, images: Images) -> Maps:
        """All that happens at the small size.

        Raises:
            InputError: When the sides are no multiples of ``config.fold``.
        """
        fold = self.config.fold
        if images.shape[2] % fold or images.shape[3] % fold:
            raise InputError(
                f"height and width must be multiples of {fold}, got {images.shape[2]} x {images.shape[3]}"
            )
        x = ((images + 1) / 2).to(self.conv_first.weight.dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.conv_first(x if fold == 1 else F.pixel_unshuffle(x, fold))
        return x + self.conv_body(self.body(x))

    def paint(self, features: Maps) -> Large:
        """The large pictures, in float32 and not yet clipped."""
        x = _rectified(self.conv_up1(_doubled(features)))
        x = _rectified(self.conv_up2(_doubled(x)))
        return self.conv_last(_rectified(self.conv_hr(x))).float() * 2 - 1

    def forward(self, images: Images) -> Large:
        """Enlarge pictures ``config.scale`` times."""
        return self.paint(self.features(images))


@torch.no_grad()
def repeat_pixels(network: RRDBNet) -> None:
    """Set an untrained network's weights so that it begins by repeating pixels, and has only detail to learn.

    Three channels carry the colours past the body; all others wait to be used by the last convolution.

    Raises:
        ConfigError: When the network has fewer than three channels.
    """
    config = network.config
    if config.width < 3:
        raise ConfigError(f"three colours need a width of at least 3, got {config.width}")
    each = config.fold**2
    carrying = (network.conv_first, network.conv_up1, network.conv_up2, network.conv_hr)
    for conv in (*carrying, network.conv_body, network.conv_last):
        conv.weight[:3] = 0
        if conv.bias is not None:
            conv.bias[:3] = 0
    for colour in range(3):
        network.conv_first.weight[colour, colour * each : (colour + 1) * each, 1, 1] = 1 / each
        for conv in (*carrying[1:], network.conv_last):
            conv.weight[colour, colour, 1, 1] = 1


class _Dense(nn.Module):
    """Five convolutions, each of which sees what all before it made."""

    def __init__(self, width: int, grow: int) -> None:
        super().__init__()
        self.conv1 = _conv(width, grow, gain=0.1)
        self.conv2 = _conv(width + grow, grow, gain=0.1)
        self.conv3 = _conv(width + 2 * grow, grow, gain=0.1)
        self.conv4 = _conv(width + 3 * grow, grow, gain=0.1)
        self.conv5 = _conv(width + 4 * grow, width, gain=0.1)

    def forward(self, x: Maps) -> Maps:
        seen = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen.append(_rectified(conv(torch.cat(seen, 1))))
        return x + self.conv5(torch.cat(seen, 1)) * _RESIDUAL


class _Block(nn.Module):
    """Three dense blocks in a row, beside a shortcut."""

    def __init__(self, width: int, grow: int) -> None:
        super().__init__()
        self.rdb1 = _Dense(width, grow)
        self.rdb2 = _Dense(width, grow)
        self.rdb3 = _Dense(width, grow)

    def forward(self, x: Maps) -> Maps:
        return x + self.rdb3(self.rdb2(self.rdb1(x))) * _RESIDUAL


class UNetDiscriminator(nn.Module):
    """Says of every pixel how real it looks, above 0 for real; a U-Net whose convolutions are spectrally normalised.

    Source: Wang et al. 2021 (arXiv:2107.10833), Figure 6; the names are those of its published weights.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv0 = _conv(3, width)
        self.conv1 = SpectralConv(width, width * 2, 4, stride=2)
        self.conv2 = SpectralConv(width * 2, width * 4, 4, stride=2)
        self.conv3 = SpectralConv(width * 4, width * 8, 4, stride=2)
        self.conv4 = SpectralConv(width * 8, width * 4)
        self.conv5 = SpectralConv(width * 4, width * 2)
        self.conv6 = SpectralConv(width * 2, width)
        self.conv7 = SpectralConv(width, width)
        self.conv8 = SpectralConv(width, width)
        self.conv9 = _conv(width, 1)

    def forward(self, images: Images) -> Float[Tensor, "batch 1 height width"]:
        """A logit per pixel, in float32; sides are multiples of 8.

        Raises:
            InputError: For other sides.
        """
        if images.shape[2] % 8 or images.shape[3] % 8:
            raise InputError(
                f"height and width must be multiples of 8, got {images.shape[2]} x {images.shape[3]}"
            )
        x = ((images + 1) / 2).to(self.conv0.weight.dtype)
        x = _rectified(self.conv0(x.contiguous(memory_format=torch.channels_last)))
        skips: list[Tensor] = []
        for down in (self.conv1, self.conv2, self.conv3):
            skips.append(x)
            x = _rectified(down(x))
        for up in (self.conv4, self.conv5, self.conv6):
            larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = _rectified(up(larger)) + skips.pop()
        x = _rectified(self.conv8(_rectified(self.conv7(x))))
        return self.conv9(x).float()


class SpectralConv(nn.Module):
    """A convolution without a bias whose weight is divided by its largest singular value.

    That value is followed by one step of the power iteration in each call while training. It is reckoned in float32
    whatever the weights are in.

    Source: Miyato et al. 2018 (arXiv:1802.05957), Algorithm 1, as `torch.nn.utils.spectral_norm` has it, whose names
    these are.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, in_width: int, out_width: int, side: int = 3, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        plain = nn.Conv2d(in_width, out_width, side, bias=False)
        self.weight_orig = nn.Parameter(plain.weight.detach())
        flat = self.weight_orig.detach().flatten(1)
        for name, length in (("weight_u", len(flat)), ("weight_v", flat.shape[1])):
            self.register_buffer(name, F.normalize(torch.randn(length), dim=0))

    def forward(self, x: Maps) -> Changed:
        """Convolve, padded by one."""
        flat = self.weight_orig.flatten(1).float()
        if self.training:
            with torch.no_grad():
                self.weight_v.copy_(F.normalize(flat.T @ self.weight_u, dim=0, eps=1e-12))
                self.weight_u.copy_(F.normalize(flat @ self.weight_v, dim=0, eps=1e-12))
        # Copies, because the next call moves the vectors before this one's gradient is asked for.
        largest = self.weight_u.clone() @ (flat @ self.weight_v.clone())
        weight = (self.weight_orig / largest).to(x.dtype)
        return F.conv2d(x, weight, stride=self.stride, padding=1)


class SrGan(nn.Module):
    """A generator and its critic, trained together; only the generator is of use afterwards."""

    def __init__(self, config: RRDBNetConfig, discriminator_width: int) -> None:
        super().__init__()
        if discriminator_width < 1:
            raise ConfigError(f"discriminator_width must be at least 1, got {discriminator_width}")
        self.generator = RRDBNet(config)
        self.discriminator = UNetDiscriminator(discriminator_width)

    def forward(self, images: Images) -> Large:
        """Enlarge pictures."""
        return cast(Tensor, self.generator(images))


def _conv(in_width: int, out_width: int, *, gain: float | None = None) -> nn.Conv2d:
    conv = nn.Conv2d(in_width, out_width, 3, padding=1)
    if gain is not None and conv.bias is not None:
        nn.init.kaiming_normal_(conv.weight)
        nn.init.zeros_(conv.bias)
        with torch.no_grad():
            conv.weight.mul_(gain)
    return conv


def _rectified(x: Maps) -> Maps:
    return F.leaky_relu(x, _SLOPE)


def _doubled(x: Maps) -> Changed:
    return F.interpolate(x, scale_factor=2, mode="nearest")


__all__ = [
    "RRDBNet",
    "RRDBNetConfig",
    "SpectralConv",
    "SrGan",
    "UNetDiscriminator",
    "repeat_pixels",
]
