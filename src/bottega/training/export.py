"""From a run's checkpoint to weights that can be shipped or painted with."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bottega.checkpoint import (
    Manifest,
    latest_good,
    load_manifest,
    load_strictly,
    load_tensors,
    name_for,
    save_module,
)
from bottega.errors import CheckpointError
from bottega.models.edge_head import EdgeSupervised, without_heads
from bottega.rundir import RunDir
from bottega.training.state import CHECKPOINT_KIND

Average = float | Literal["halflife"] | None
"""Which average: the std of a power-function average, the classic one, or None for the weights as they are."""


def export_ema(
    run: RunDir,
    folder: Path | str,
    *,
    std: Average,
    config: Any,
    kind: str = "denoiser",
    name: str = "denoiser",
    dtype: torch.dtype | None = torch.bfloat16,
    images_seen: int | None = None,
    node: Any = None,
) -> Manifest:
    """Write averaged weights as a checkpoint that needs no training code to read.

    Args:
        run: Where the training happened.
        folder: Where to; an older export is replaced.
        std: Which average.
        config: Plain JSON from which a reader builds the module: network, preconditioning, noise.
        kind: What the weights are.
        name: The file's name without its ending.
        dtype: Of the floating tensors written; None keeps float32.
        images_seen: Which checkpoint; the newest whole one when None.
        node: Its place in a tree of expert denoisers.

    Raises:
        CheckpointError: If there is no such checkpoint, or it kept no such average.
    """
    source = find_checkpoint(run, images_seen)
    manifest = load_manifest(source)
    return save_module(
        folder,
        averaged_weights(source, std),
        kind=kind,
        config=config,
        images_seen=manifest.images_seen,
        dtype=dtype,
        name=name,
        parent=manifest.digest,
        node=node,
        extra={"ema": std},
    )


def load_ema(
    network: nn.Module, run: RunDir, *, std: Average, images_seen: int | None = None
) -> Manifest:
    """Fill a network with averaged weights of a run, in the network's own precision."""
    source = find_checkpoint(run, images_seen)
    heads = isinstance(network, EdgeSupervised)
    load_strictly(network, averaged_weights(source, std, heads=heads), where=str(source))
    return load_manifest(source)


def averaged_weights(checkpoint: Path, std: Average, *, heads: bool = False) -> dict[str, Tensor]:
    """A complete ``state_dict`` from a training checkpoint, its trained weights averaged.

    Edge heads are for training only, and are left out unless they are asked for.

    Raises:
        CheckpointError: If the checkpoint is damaged, of another kind, or kept no such average.
    """
    manifest = load_manifest(checkpoint)
    if manifest.kind != CHECKPOINT_KIND:
        raise CheckpointError(
            f"{checkpoint} holds a {manifest.kind}, not the state of a training run"
        )
    weights = load_tensors(checkpoint, "network", manifest=manifest)
    if std is not None:
        wanted = f"ema-{std:g}" if isinstance(std, float) else f"ema-{std}"
        if f"{wanted}.safetensors" not in manifest.digests:
            kept = sorted(n.removesuffix(".safetensors") for n in manifest.digests)
            averages = ", ".join(n.removeprefix("ema-") for n in kept if n.startswith("ema-"))
            raise CheckpointError(
                f"{checkpoint} keeps no average {std}; it keeps: {averages or 'none'}"
            )
        weights |= load_tensors(checkpoint, wanted, manifest=manifest)
    tied: dict[str, str] = manifest.extra["tied"]
    weights |= {alias: weights[owner] for alias, owner in tied.items()}
    return weights if heads else without_heads(weights)


def find_checkpoint(run: RunDir, images_seen: int | None = None) -> Path:
    """The run's checkpoint at ``images_seen``, or its newest whole one.

    Raises:
        CheckpointError: If there is none.
    """
    if images_seen is not None:
        return run.checkpoints / name_for(images_seen)
    path, problems = latest_good(run.checkpoints)
    if path is None:
        raise CheckpointError(
            f"{run.path} holds no whole checkpoint" + "".join(f"; {p}" for p in problems)
        )
    return path


__all__ = ["Average", "averaged_weights", "export_ema", "find_checkpoint", "load_ema"]
