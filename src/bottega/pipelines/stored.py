"""One denoiser as a checkpoint: what a stage of a model, or a member of an ensemble, is on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bottega.checkpoint import (
    Manifest,
    load_manifest,
    load_module,
    load_tensors,
    save_module,
)
from bottega.checkpoint.store import check_names
from bottega.config import from_json, to_json
from bottega.diffusion import (
    Denoiser,
    EDMPrecond,
    LogNormal,
    TimestepDenoiser,
    TimestepPlan,
    TrainingNoise,
)
from bottega.errors import CheckpointError, ConfigError
from bottega.models import UNet, UNetConfig

DENOISER_KIND = "denoiser"


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """What a stage's denoiser is built from, and the noise it learned; the ``config`` of its checkpoint.

    ``timestep_plan`` is there for a network that was trained with them; ``precond`` and ``noise`` are then not read.
    """

    network: UNetConfig
    precond: EDMPrecond = field(default_factory=EDMPrecond)
    noise: LogNormal = field(default_factory=LogNormal)
    timestep_plan: TimestepPlan | None = None

    @property
    def training_noise(self) -> TrainingNoise:
        """The noise that it learned."""
        return self.noise if self.timestep_plan is None else self.timestep_plan


def save_denoiser(
    folder: Path | str,
    state: Mapping[str, Tensor],
    config: DenoiserConfig,
    *,
    dtype: torch.dtype = torch.bfloat16,
    images_seen: int = 0,
    parent: str | None = None,
) -> Manifest:
    """Write one stage's checkpoint from its network's ``state_dict()``, in bfloat16 unless asked otherwise."""
    return save_module(
        folder,
        state,
        kind=DENOISER_KIND,
        config=to_json(config),
        images_seen=images_seen,
        dtype=dtype,
        parent=parent,
    )


def load_denoiser(folder: Path | str) -> tuple[Denoiser, Manifest]:
    """Build a denoiser from its checkpoint, in float32, strictly.

    Raises:
        CheckpointError: When it is missing, damaged, or of another kind.
    """
    manifest = load_manifest(folder)
    denoiser = build_denoiser(denoiser_config(folder, manifest))
    manifest = load_module(denoiser.network, folder)
    return denoiser, manifest


def denoiser_config(folder: Path | str, manifest: Manifest) -> DenoiserConfig:
    """What the denoiser of a checkpoint is built from.

    Raises:
        CheckpointError: When it is of another kind, or damaged.
    """
    if manifest.kind != DENOISER_KIND:
        raise CheckpointError(f"{folder} holds a {manifest.kind}, not a {DENOISER_KIND}")
    try:
        return from_json(DenoiserConfig, manifest.config, where=f"{folder}: config")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def load_timestep_denoiser(folder: Path | str) -> tuple[TimestepDenoiser, Manifest]:
    """Read a denoiser that was trained with timesteps, its weights mapped from disk, but for convolutions.

    Raises:
        CheckpointError: When it is missing, damaged, or of another kind.
    """
    manifest = load_manifest(folder)
    config = denoiser_config(folder, manifest)
    if config.timestep_plan is None:
        raise CheckpointError(f"{folder} says nothing of timesteps that its network learned")
    with torch.device("meta"):
        network = UNet(config.network)
    tensors = load_tensors(folder, manifest=manifest)
    check_names(network.state_dict(), tensors, where=str(folder))
    network.load_state_dict(
        {name: _laid_out(tensor) for name, tensor in tensors.items()}, strict=True, assign=True
    )
    return config.timestep_plan.denoiser(network.requires_grad_(False).eval()), manifest


def _laid_out(tensor: Tensor) -> Tensor:
    """Convolutions channels-last, as a network is fastest with them; files hold them in the usual order."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def build_denoiser(config: DenoiserConfig) -> Denoiser:
    """A denoiser whose weights are yet to be read, ready to paint and not to learn."""
    with torch.random.fork_rng(devices=[]):  # the weights it starts from are overwritten
        denoiser = Denoiser(UNet(config.network), config.precond)
    return denoiser.requires_grad_(False).eval()


def build_expert(config: DenoiserConfig) -> Denoiser | TimestepDenoiser:
    """The same for one expert denoiser of an ensemble, which may have been trained with timesteps."""
    if config.timestep_plan is None:
        return build_denoiser(config)
    with torch.random.fork_rng(devices=[]):
        denoiser = config.timestep_plan.denoiser(UNet(config.network))
    return denoiser.requires_grad_(False).eval()


__all__ = [
    "DENOISER_KIND",
    "DenoiserConfig",
    "build_denoiser",
    "build_expert",
    "denoiser_config",
    "load_denoiser",
    "load_timestep_denoiser",
    "save_denoiser",
]
