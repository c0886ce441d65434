"""Real-ESRGAN's published generators: what they are built from, told by their tensors, and those tensors by our names.

The names are the same; only what wraps them is taken off.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bottega.checkpoint.foreign_files import check_safetensors
from bottega.errors import CheckpointError
from bottega.models.srgan import RRDBNetConfig

_WRAPPINGS = ("params_ema.", "params.", "module.", "generator.")
_SCALES = {3: 4, 12: 2, 48: 1}
"""Channels that the first convolution reads to how many times larger it all becomes."""

_MAX_BLOCKS = 1000


def read_real_esrgan(path: Path | str) -> tuple[RRDBNetConfig, dict[str, Tensor]]:
    """The configuration and the weights of a generator in one safetensors file.

    Raises:
        CheckpointError: When it is missing, a pickle, damaged, or another network.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    check_safetensors(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    plain = _unwrapped(tensors)
    return _config(plain, path), {name: tensor.float() for name, tensor in plain.items()}


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of several sets of the same weights, the averaged ones come first among the wrappings."""
    for wrapping in _WRAPPINGS:
        inner = {k.removeprefix(wrapping): v for k, v in tensors.items() if k.startswith(wrapping)}
        if inner:
            return inner
    return dict(tensors)


def _config(tensors: Mapping[str, Tensor], path: Path) -> RRDBNetConfig:
    first, inner = tensors.get("conv_first.weight"), tensors.get("body.0.rdb1.conv1.weight")
    blocks = [int(found[1]) for name in tensors if (found := re.match(r"body\.(\d{1,9})\.", name))]
    if first is None or inner is None or first.ndim != 4 or inner.ndim != 4:
        raise CheckpointError(
            f"{path} holds no RRDBNet: expected conv_first.weight and body.0.rdb1.conv1.weight, as in "
            "RealESRGAN_x4plus; Real-ESRGAN's compact networks (SRVGGNet) are others"
        )
    if first.shape[1] not in _SCALES or max(blocks) >= _MAX_BLOCKS:
        raise CheckpointError(
            f"{path} is no RRDBNet for 3 channels: its first convolution reads {first.shape[1]}, and it numbers "
            f"{max(blocks) + 1} blocks"
        )
    if len(set(blocks)) <= max(blocks):  # before room is made for those that are not there
        raise CheckpointError(
            f"{path} is damaged: it numbers {max(blocks) + 1} blocks and holds {len(set(blocks))}"
        )
    whole = sorted(name for name, tensor in tensors.items() if not tensor.is_floating_point())
    if whole:
        raise CheckpointError(
            f"{path}: {whole[0]} holds {str(tensors[whole[0]].dtype).removeprefix('torch.')}, no weights"
        )
    return RRDBNetConfig(
        scale=cast(Literal[1, 2, 4], _SCALES[first.shape[1]]),
        width=first.shape[0],
        num_blocks=max(blocks) + 1,
        grow=inner.shape[0],
    )


__all__ = ["read_real_esrgan"]
