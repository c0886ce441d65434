"""ControlNet: a copy of a U-Net's way down that reads a control picture, and steers the U-Net through zero layers.

A control picture is in [0, 1]: edges are 1 where there is an edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bottega.condition import Condition
from bottega.errors import InputError
from bottega.models.attention_config import require
from bottega.models.context import Context
from bottega.models.control import Additions, Control
from bottega.models.layers import Changed, Shortcut, conv, zeroed
from bottega.models.unet import UNet
from bottega.models.unet_config import UNetConfig
from bottega.shapes import Images

ControlPicture = Float[Tensor, "batch control_channels control_height control_width"]
"""What a ControlNet follows, in [0, 1]."""

HintFeatures = Float[Tensor, "#hints hint_channels hint_height hint_width"]
"""A control picture at a network's first width; one serves a whole batch."""


@dataclass(frozen=True, kw_only=True)
class ControlNetConfig:
    """A ControlNet for U-Nets of the plan ``network``.

    ``channels`` are those of the control picture, one for edges. ``scale`` is how many of its pixels stand side by side
    for one of what the network sees: 1 for a network of pixels, 8 for latents of Stable Diffusion's. ``hint_width`` is
    the width of the first convolution that reads it; it doubles whenever the picture is halved.
    """

    network: UNetConfig
    channels: int = 1
    scale: int = 1
    hint_width: int = 16

    def __post_init__(self) -> None:
        require(self.channels > 0, f"channels must be positive, got {self.channels}")
        require(self.hint_width > 0, f"hint_width must be positive, got {self.hint_width}")
        shrinks = self.scale * self.network.patch
        require(
            shrinks > 0 and shrinks & (shrinks - 1) == 0,
            f"scale times the network's patch must be a power of two, got {shrinks}",
        )

    @property
    def num_halvings(self) -> int:
        """How often the control picture is halved before it joins the noisy one."""
        return (self.scale * self.network.patch).bit_length() - 1


class Hint(nn.Module):
    """A few convolutions that bring a control picture to the first width; the last one starts at zero."""

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        width = config.hint_width
        layers = [conv(config.channels, width), conv(width, width)]
        for _ in range(config.num_halvings):
            layers += [conv(width, 2 * width, stride=2), conv(2 * width, 2 * width)]
            width *= 2
        self.layers = nn.ModuleList(layers)
        self.out = zeroed(conv(width, config.network.first_width))

    def forward(self, picture: ControlPicture) -> HintFeatures:
        """What is added to the noisy picture."""
        h = picture.to(self.out.weight.dtype).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            h = F.silu(layer(h))
        return self.out(h)


class Tower(UNet):
    """The way down of a U-Net, and its middle, under the names that they have there."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        del self.up, self.upsamplers, self.norm, self.head
        self._number_layers()

    def descend(
        self, x: Images, c_noise: Float[Tensor, "batch"], context: Context, hint: HintFeatures
    ) -> tuple[Changed, list[list[Tensor]]]:
        """What the way down makes of the noisy picture and the hint."""
        embedding, reading = self._told(x, c_noise, context, None)
        return self._descend(self._entered(x, context) + hint, embedding, reading)


class ControlNet(nn.Module):
    """Reads a control picture beside the noisy one, and adds to every skip and to the middle of a U-Net.

    Everything it adds passes a layer that starts at zero, so that the U-Net paints what it painted, to the last bit,
    until something has been learned.

    Source: Zhang et al. 2023 (arXiv:2302.05543), section 3.1 and figure 3. We differ in that the copy may be of any
    block plan, and in that the hint's width follows from the plan.
    """

    def __init__(self, config: ControlNetConfig) -> None:
        """Build it with random weights in the copy; `copy_from` puts a network's own there."""
        super().__init__()
        self.config = config
        self.tower = Tower(config.network)
        self.hint = Hint(config)
        widths, deepest = _skip_widths(config.network)
        self.zeros = nn.ModuleList(
            nn.ModuleList(zeroed(Shortcut(width, width)) for width in level) for level in widths
        )
        self.zero_middle = zeroed(Shortcut(deepest, deepest))

    def copy_from(self, network: UNet) -> "ControlNet":
        """Take the weights of a network's way down, as training begins.

        Raises:
            InputError: If the network is built by another plan.
        """
        if network.config != self.config.network:
            raise InputError("this ControlNet was made for networks of another plan")
        own, theirs = self.tower.state_dict(), network.state_dict()
        self.tower.load_state_dict({name: theirs[name] for name in own})
        return self

    def control(self, condition: Condition, scale: float = 1.0) -> "ControlByNet":
        """The control of a batch, whose ``condition`` holds the control picture; ``scale`` 0 changes nothing.

        Raises:
            InputError: Without a control picture, or for one of other channels.
        """
        picture = condition.control
        if picture is None:
            raise InputError("a ControlNet needs a control picture; give a condition with control")
        if picture.shape[1] != self.config.channels:
            raise InputError(
                f"this ControlNet reads control pictures of {self.config.channels} channels, "
                f"got {picture.shape[1]}"
            )
        return ControlByNet(
            net=self, context=self.tower.prepare(condition), hint=self.hint(picture), scale=scale
        )

    def forward(
        self, x: Images, c_noise: Float[Tensor, "batch"], context: Context, hint: HintFeatures
    ) -> Additions:
        """What is added to the U-Net that is called with the same ``x`` and ``c_noise``."""
        h, skips = self.tower.descend(x, c_noise, context, hint)
        levels: list[list[Tensor]] = []
        for zeros, level in zip(self.zeros, skips, strict=True):
            layers = cast(nn.ModuleList, zeros)
            levels.append([zero(skip) for zero, skip in zip(layers, level, strict=True)])
        return Additions(skips=levels, deepest=self.zero_middle(h))


@dataclass(frozen=True, kw_only=True, eq=False)
class ControlByNet(Control):
    """A ControlNet that has been told the prompt and the control picture."""

    net: ControlNet
    context: Context
    hint: HintFeatures
    scale: float = 1.0

    def __call__(self, x: Images, c_noise: Float[Tensor, "batch"]) -> Additions:
        """What is added for this noisy picture.

        Raises:
            InputError: If the control picture is not of the noisy picture's size.
        """
        patch = self.net.config.network.patch
        height, width = (side // patch for side in x.shape[2:])
        if tuple(self.hint.shape[2:]) != (height, width):
            scale = self.net.config.scale * patch
            raise InputError(
                f"the control picture is {self.hint.shape[3] * scale} x {self.hint.shape[2] * scale} pixels, "
                f"what is painted {width * scale} x {height * scale}; give one of that size"
            )
        added = self.net(x, c_noise, self.context, self.hint)
        if self.scale == 1:
            return added
        return Additions(
            skips=[[skip * self.scale for skip in level] for level in added.skips],
            deepest=added.deepest * self.scale,
        )

    def select(self, indices: Sequence[int]) -> "ControlByNet":
        """The control of some of the pictures, in the order asked for."""
        hint = self.hint if len(self.hint) == 1 else self.hint[list(indices)]
        return replace(self, context=self.context.select(indices), hint=hint)


def _skip_widths(config: UNetConfig) -> tuple[list[list[int]], int]:
    """The channels of everything that the way down keeps, and of what leaves the middle."""
    width, widths = config.first_width, []
    for level in config.levels:
        if level.stride > 1 and config.resample_widens:
            width = level.width
        widths.append([width] + [level.width] * level.down_blocks)
        width = level.width
    return widths, width


__all__ = ["ControlByNet", "ControlNet", "ControlNetConfig", "ControlPicture", "Hint", "Tower"]
