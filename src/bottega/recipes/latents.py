"""Denoisers of latents: the autoencoder that a run names is found and opened, and its latents are kept where asked."""

import hashlib
import json
import time
from pathlib import Path

import torch

from bottega.config import to_json
from bottega.data import Source
from bottega.errors import ConfigError, InputError
from bottega.pipelines.hub import locate
from bottega.pipelines.latent import (
    Autoencoder,
    autoencoder_digest,
    find_autoencoder,
    stored_space,
)
from bottega.recipes.run import DenoiserTask, FolderConfig, LatentSpace, RunConfig
from bottega.training.latents import LatentCache

_SAY_EVERY_S = 30.0


def autoencoder_folder(latents: LatentSpace) -> Path:
    """Where the autoencoder lies that a run names.

    The Hugging Face Hub is not asked for it, only its cache: a run that names a folder must not wait for a network.

    Raises:
        CheckpointError: When the folder or model holds none.
        InputError: For a name that is no folder and no model.
    """
    try:
        place = locate(latents.autoencoder, local_files_only=True)
    except InputError as error:
        raise InputError(
            f"task.latents.autoencoder: {error}; train one with bottega train piccolo-autoencoder"
        ) from None
    return find_autoencoder(place)


def open_space(task: DenoiserTask, *, dtype: torch.dtype = torch.float32) -> Autoencoder | None:
    """The latents that a denoiser works in, their autoencoder opened once; None for pixels.

    Args:
        task: Names the autoencoder.
        dtype: What the autoencoder computes in.

    Raises:
        CheckpointError: When there is no such autoencoder, or it is damaged.
        ConfigError: When it shrinks pictures by another factor, or its latents have other channels, than the run says.
    """
    latents = task.latents
    if latents is None:
        return None
    folder = autoencoder_folder(latents)
    space = stored_space(folder, dtype=dtype)
    if space.factor != latents.factor:
        raise ConfigError(
            f"task.latents.factor is {latents.factor}, but the autoencoder {folder} shrinks by {space.factor}"
        )
    network = task.network
    if (network.in_channels, network.out_channels) != (space.channels, space.channels):
        raise ConfigError(
            f"the latents of {folder} have {space.channels} channels; task.network.in_channels and out_channels must "
            f"be that, got {network.in_channels} and {network.out_channels}"
        )
    return space


def kept_latents(
    source: Source,
    config: RunConfig,
    task: DenoiserTask,
    space: Autoencoder,
    beside: Path,
    *,
    device: torch.device | str = "cpu",
) -> LatentCache:
    """The latents of a run's pictures, all of them encoded and on the disk.

    Args:
        source: Of the pictures.
        config: The run.
        task: What it learns.
        space: Its latents.
        beside: The folder of runs, which share what was encoded by the same autoencoder.
        device: Where to encode.
    """
    assert task.latents is not None  # whoever opened its space has looked
    folder = beside / "latents" / cache_key(config, autoencoder_folder(task.latents))
    cache = LatentCache(folder, source, space.encode, device=device)
    cache.fill(_Encoding())
    return cache


class _Encoding:
    """Says how far it is, once it has taken long enough for someone to wonder."""

    def __init__(self) -> None:
        self._next = time.perf_counter() + _SAY_EVERY_S

    def __call__(self, done: int, total: int) -> None:
        if time.perf_counter() >= self._next:
            from rich.console import Console

            Console(stderr=True).print(f"encoding {done:,}/{total:,} pictures", highlight=False)
            self._next = time.perf_counter() + _SAY_EVERY_S


def cache_key(config: RunConfig, autoencoder: Path) -> str:
    """What latents depend on, as a folder's name: autoencoder, pictures, and size."""
    facts = {
        "autoencoder": autoencoder_digest(autoencoder),
        "data": to_json(config.data),
        "size": config.size,
        "num_examples": config.num_examples,
        "buckets": None if config.buckets is None else to_json(config.buckets),
    }
    if isinstance(config.data, FolderConfig):
        facts["files"] = _files(Path(config.data.path))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _files(folder: Path) -> list[tuple[str, int, int]]:
    """Every file with its size and the moment it was last written, so that changed pictures are encoded anew."""
    found = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        (str(path.relative_to(folder)), facts.st_size, facts.st_mtime_ns) for path, facts in found
    ]


__all__ = ["autoencoder_folder", "cache_key", "kept_latents", "open_space"]
