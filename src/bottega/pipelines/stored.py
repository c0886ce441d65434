"""One denoiser as a checkpoint: what a stage of a model, or a member of an ensemble, is on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bottega.checkpoint import Manifest, load_manifest, load_module, save_module
from bottega.config import from_json, to_json
from bottega.diffusion import Denoiser, EDMPrecond, LogNormal
from bottega.errors import CheckpointError, ConfigError
from bottega.models import UNet, UNetConfig

DENOISER_KIND = "denoiser"


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """What a stage's denoiser is built from, and the noise it learned; the ``config`` of its checkpoint."""

    network: UNetConfig
    precond: EDMPrecond = field(default_factory=EDMPrecond)
    noise: LogNormal = field(default_factory=LogNormal)


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


def build_denoiser(config: DenoiserConfig) -> Denoiser:
    """A denoiser whose weights are yet to be read, ready to paint and not to learn."""
    with torch.random.fork_rng(devices=[]):  # the weights it starts from are overwritten
        denoiser = Denoiser(UNet(config.network), config.precond)
    return denoiser.requires_grad_(False).eval()


__all__ = [
    "DENOISER_KIND",
    "DenoiserConfig",
    "build_denoiser",
    "denoiser_config",
    "load_denoiser",
    "save_denoiser",
]
