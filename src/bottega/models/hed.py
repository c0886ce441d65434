"""Holistically-nested edge detection: a VGG whose every stage says where edges are. Published weights load by name."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bottega.errors import CheckpointError, InputError, nearest
from bottega.shapes import Images

STAGE_CONVS = (2, 2, 3, 3, 3)
"""Convolutions per stage; the picture is halved before every stage but the first."""

SMALLEST_PX = 16
"""The shortest side of which the last stage still sees a pixel."""

_STAGES = ("One", "Two", "Thr", "Fou", "Fiv")
_CAFFE_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
_HALF = "module"  # what the published file of 2018 calls what its code has long called "net"


class Stage(nn.Module):
    """Convolutions with ReLU, and a 1 x 1 convolution that reads edges off the result."""

    def __init__(self, in_width: int, width: int, num_convs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(in_width if number == 0 else width, width, 3, padding=1)
            for number in range(num_convs)
        )
        self.edges = nn.Conv2d(width, 1, 1)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch features height width"], Float[Tensor, "batch 1 height width"]]:
        """Features for the next stage, and this stage's logits of edges."""
        for layer in self.convs:
            x = F.relu(layer(x))
        return x, self.edges(x)


class HedNetwork(nn.Module):
    """Pictures in [-1, 1] to the probability of an edge at every pixel.

    ``fused`` has a learned mixture of the stages and reads blue, green, red, as the network of 2015 does; without it
    the stages are averaged and colours come in our order, as in ControlNet's network.

    Source: Xie & Tu 2015 (arXiv:1504.06375). Their framework padded the picture and cut the result; we pad every
    convolution, as all later implementations do.
    """

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512, 512), *, fused: bool) -> None:
        super().__init__()
        before = (3, *widths)
        self.stages = nn.ModuleList(
            Stage(before[i], widths[i], count) for i, count in enumerate(STAGE_CONVS)
        )
        self.fuse = nn.Conv2d(len(STAGE_CONVS), 1, 1) if fused else None
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(_CAFFE_MEAN_BGR).view(1, 3, 1, 1))

    def forward(self, images: Images) -> Float[Tensor, "batch 1 height width"]:
        """Detect edges.

        Raises:
            InputError: For pictures too small for the last stage.
        """
        size = images.shape[-2:]
        if min(size) < SMALLEST_PX:
            raise InputError(
                f"HED needs pictures of at least {SMALLEST_PX} px, got {size[0]} x {size[1]}"
            )
        x = (images + 1) * 127.5
        x = (x if self.fuse is None else x.flip(1)) - self.mean
        sides: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            if number > 0:
                x = F.max_pool2d(x, 2)
            x, side = stage(x)
            sides.append(F.interpolate(side, size=size, mode="bilinear", align_corners=False))
        together = torch.cat(sides, dim=1)
        logits = together.mean(dim=1, keepdim=True) if self.fuse is None else self.fuse(together)
        return logits.sigmoid()


def hed_from_weights(weights: Mapping[str, Tensor]) -> HedNetwork:
    """The network that published weights belong to, told apart by their names.

    Known are ``netVggOne.0.weight`` ... ``netCombine.0.bias`` (also as ``moduleVggOne...``), the network of 2015 as
    github.com/sniklaus/pytorch-hed converted it, and ``block1.convs.0.weight`` ... ``norm``, ControlNet's own.

    Raises:
        CheckpointError: For names of neither kind, or tensors that are missing, unknown or of another shape.
    """
    given = {_today(name): tensor for name, tensor in weights.items()}
    kinds = {True: _names_2015(), False: _names_controlnet()}
    fused = "netCombine.0.weight" in given
    names = kinds[fused]
    unknown = sorted(set(given) - set(names))
    missing = sorted(set(names) - set(given))
    if missing:
        raise CheckpointError(
            f"these are no weights of HED: {missing[0]} is missing"
            + (f", {unknown[0]} is unknown" if unknown else "")
        )
    if unknown:
        raise CheckpointError(f"HED has no tensor {unknown[0]}{nearest(unknown[0], names)}")
    firsts = [name for name, ours in names.items() if ours.endswith("convs.0.weight")]
    network = HedNetwork(tuple(len(given[name]) for name in firsts), fused=fused)
    state = network.state_dict()
    for name, ours in names.items():
        if state[ours].shape != given[name].shape:
            raise CheckpointError(
                f"HED's {name} must be of shape {tuple(state[ours].shape)}, got "
                f"{tuple(given[name].shape)}"
            )
        state[ours] = given[name].float()
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _today(name: str) -> str:
    return f"net{name.removeprefix(_HALF)}" if name.startswith(_HALF) else name


def _names_2015() -> dict[str, str]:
    """Published names and ours. A stage's list begins with its pooling, and every convolution has a ReLU after it."""
    names: dict[str, str] = {}
    for number, (stage, count) in enumerate(zip(_STAGES, STAGE_CONVS, strict=True)):
        first = 0 if number == 0 else 1
        for kind in ("weight", "bias"):
            for i in range(count):
                names[f"netVgg{stage}.{first + 2 * i}.{kind}"] = f"stages.{number}.convs.{i}.{kind}"
            names[f"netScore{stage}.{kind}"] = f"stages.{number}.edges.{kind}"
    return names | {f"netCombine.0.{kind}": f"fuse.{kind}" for kind in ("weight", "bias")}


def _names_controlnet() -> dict[str, str]:
    names = {"norm": "mean"}
    for number, count in enumerate(STAGE_CONVS):
        block, ours = f"block{number + 1}", f"stages.{number}"
        for kind in ("weight", "bias"):
            for i in range(count):
                names[f"{block}.convs.{i}.{kind}"] = f"{ours}.convs.{i}.{kind}"
            names[f"{block}.projection.{kind}"] = f"{ours}.edges.{kind}"
    return names


__all__ = ["SMALLEST_PX", "STAGE_CONVS", "HedNetwork", "Stage", "hed_from_weights"]
