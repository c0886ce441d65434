"""U-Nets of the diffusers library read as ours, and written back tensor for tensor."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from bottega.checkpoint.foreign.unet_names import to_ours, to_theirs
from bottega.checkpoint.foreign.unet_settings import (
    CLASS_NAME,
    UNetSettings,
    plan_of,
    read_settings,
)
from bottega.checkpoint.foreign_files import STEMS, read_config, read_weights
from bottega.checkpoint.store import check_names
from bottega.errors import CheckpointError
from bottega.models import UNet
from bottega.rundir import as_others, sync_folder

_WEIGHTS = f"{STEMS[0]}.safetensors"


@dataclass(frozen=True, kw_only=True)
class ForeignInfo:
    """What a foreign network's folder says beyond our block plan: its ``config.json`` as it stood.

    Plain JSON, so that a checkpoint of ours can carry it and be exported again.
    """

    config: Mapping[str, Any]

    @property
    def settings(self) -> UNetSettings:
        """The configuration, typed."""
        return read_settings(self.config, where="config.json")

    @property
    def stream(self) -> str:
        """The stream of the condition that holds the network's text."""
        return self.settings.stream

    @property
    def sample_size(self) -> int | None:
        """Height and width it was trained on, where it says so and they are the same."""
        size = self.settings.sample_size
        return size if isinstance(size, int) else None

    @property
    def learns_variance(self) -> bool:
        """Whether half of its output is a variance, and not the picture."""
        settings = self.settings
        channels = settings.in_channels // (2 if settings.takes_low_res else 1)
        return settings.out_channels == 2 * channels


def load_foreign_unet(
    folder: Path | str, *, dtype: torch.dtype | None = None
) -> tuple[UNet, ForeignInfo]:
    """Read a diffusers U-Net: ``config.json`` and safetensors, whole or in shards.

    Weights are mapped from disk. Convolutions, which are laid out anew, and what ours stacks are copied once;
    everything else stays where it is until it is used.

    Args:
        folder: The network's own folder (``unet`` within a pipeline's).
        dtype: Convert to this; None keeps what the file holds.

    Raises:
        CheckpointError: For a folder that holds no such network, a pickle, a damaged file, a setting that is not
            supported, or tensors that do not fit the settings, which are named.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is no folder; expected one with config.json and safetensors"
        )
    where = str(folder / "config.json")
    config = read_config(folder / "config.json")
    settings = read_settings(config, where=where)
    plan = plan_of(config, where=where)
    with torch.device("meta"):
        unet = UNet(plan)
    linear = settings.use_linear_projection
    tensors = read_weights(folder)
    check_names(to_theirs(unet, linear_projection=linear), tensors, where=str(folder))
    wrong = sorted(name for name, tensor in tensors.items() if not tensor.is_floating_point())
    if wrong:
        raise CheckpointError(f"{folder}: {wrong[0]} holds {tensors[wrong[0]].dtype}, no weights")
    if dtype is None:
        dtype = tensors["conv_in.weight"].dtype
    state = to_ours(unet, tensors, linear_projection=linear, dtype=dtype)
    unet.load_state_dict(state, assign=True)
    return unet.eval(), ForeignInfo(config=config)


def save_foreign_unet(unet: UNet, info: ForeignInfo, folder: Path | str) -> None:
    """Write a network as a folder that ``UNet2DConditionModel.from_pretrained`` reads.

    Written under a temporary name and renamed, so that a crash leaves nothing half-written.

    Raises:
        CheckpointError: When ``info`` describes another network, or the folder is not empty or cannot be written.
    """
    folder = Path(folder)
    if plan_of(info.config) != unet.config:
        raise CheckpointError(
            "the network is not what its foreign configuration describes, so that it cannot be exported"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} is not empty; choose another folder")
    tensors = to_theirs(unet, linear_projection=info.settings.use_linear_projection)
    config = {"_class_name": CLASS_NAME, **info.config}
    temporary = folder.parent / f".{folder.name}.writing-{os.getpid()}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_file(
            {n: _storable(t) for n, t in tensors.items()},
            temporary / _WEIGHTS,
            metadata={"format": "pt"},
        )
        text = json.dumps(config, indent=2, allow_nan=False) + "\n"
        (temporary / "config.json").write_text(text, encoding="utf-8")
        as_others(temporary / _WEIGHTS)
        for path in temporary.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
        sync_folder(folder.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"cannot write {folder}: {error}") from error


def _storable(tensor: Tensor) -> Tensor:
    """A contiguous tensor with a storage of its own, as the format asks for; copied only where it is not one."""
    plain = tensor.detach().cpu().contiguous()
    whole = plain.untyped_storage().nbytes() == plain.numel() * plain.element_size()
    return plain if whole else plain.clone()


__all__ = ["ForeignInfo", "load_foreign_unet", "save_foreign_unet"]
