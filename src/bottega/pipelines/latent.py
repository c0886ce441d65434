"""Latents: an autoencoder in diffusers' format, ours or another's, read with our checks, as a space."""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bottega.checkpoint.foreign_files import STEMS, check_keys, read_config, read_weights
from bottega.checkpoint.store import check_names
from bottega.config import from_json
from bottega.errors import CheckpointError, ConfigError
from bottega.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from bottega.pipelines.space import Latents
from bottega.rundir import as_others
from bottega.shapes import Images

AUTOENCODER_CLASS = "AutoencoderKL"
"""The one class of autoencoders that is read and written."""

_USUAL_PLACES = ("export", "autoencoder", "vae")

_OLD_NAMES = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
"""How files from before 2023 call the projections of attention."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Autoencoder:
    """The space of an autoencoder: ``(z - shift) * scale`` is what a denoiser sees.

    Where it has ``means`` and ``spreads``, one of each for each channel, ``(z - shift - mean) * scale / spread`` is.
    ``module`` opens the AutoencoderKL, or gives the one that is open; it computes in the precision of its weights. With
    ``tiled``, pictures larger than the autoencoder learned on are decoded in overlapping tiles, so that
    memory stays bounded; where tiles meet, the picture differs a little.

    Source: Rombach et al. 2022 (arXiv:2112.10752), section 3.1.
    """

    module: Callable[[], AutoencoderKL]
    channels: int
    factor: int
    scale: float
    shift: float = 0.0
    means: tuple[float, ...] | None = None
    spreads: tuple[float, ...] | None = None
    tiled: bool = False

    @torch.no_grad()
    def encode(self, images: Images) -> Latents:
        """The mean of the latents of pictures in [-1, 1]."""
        module = self.module().to(device=images.device)
        mean = module.encode(images.to(module.dtype), tiled=self.tiled).mean
        shift, scale = self._moves(mean)
        return (mean.float() - shift) * scale

    @torch.no_grad()
    def decode(self, latents: Latents) -> Images:
        """Pictures in [-1, 1], values outside not clipped."""
        module = self.module().to(device=latents.device)
        shift, scale = self._moves(latents)
        inner = latents.float() / scale + shift
        return module.decode(inner.to(module.dtype), tiled=self.tiled).float()

    def _moves(self, latents: Latents) -> tuple[float | Tensor, float | Tensor]:
        """What is taken from latents, and what they are then multiplied by; where channels differ, for each."""
        if self.means is None or self.spreads is None:
            return self.shift, self.scale

        def of_channels(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, device=latents.device)[:, None, None]

        return self.shift + of_channels(self.means), self.scale / of_channels(self.spreads)

    def preview(self, latents: Latents) -> Images:
        """The first three channels, at the latents' own size: shapes, not colours."""
        return (latents[:, :3].float() / 3).expand(-1, 3, -1, -1)


def read_autoencoder(
    folder: Path, *, module: Callable[[], AutoencoderKL] | None = None, tiled: bool = False
) -> Autoencoder:
    """The space that the AutoencoderKL of a diffusers folder spans.

    Args:
        folder: Holds ``config.json`` and the weights.
        module: What opens it; by default `open_autoencoder`, anew at every use.
        tiled: See `Autoencoder`.

    Raises:
        CheckpointError: When the configuration is missing, damaged, of another class, or asks for more than is known.
    """
    config = _settings(folder)
    return Autoencoder(
        module=(lambda: open_autoencoder(folder)) if module is None else module,
        channels=config.latent_channels,
        factor=config.factor,
        scale=config.scaling_factor,
        shift=0.0 if config.shift_factor is None else config.shift_factor,
        means=config.latents_mean,
        spreads=config.latents_std,
        tiled=tiled,
    )


def stored_space(
    folder: Path, *, tiled: bool = False, dtype: torch.dtype = torch.float32
) -> Autoencoder:
    """The same with an autoencoder that stays open, once it was needed.

    Args:
        folder: Holds ``config.json`` and the weights.
        tiled: See `Autoencoder`.
        dtype: What it computes in. Some published ones overflow in float16, and only there.

    Raises:
        CheckpointError: As `read_autoencoder`.
    """

    @functools.cache
    def module() -> AutoencoderKL:
        opened = open_autoencoder(folder)
        if dtype == torch.float32:
            return opened  # its weights stay mapped
        return opened.to(dtype=dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    return read_autoencoder(folder, module=module, tiled=tiled)


def open_autoencoder(folder: Path) -> AutoencoderKL:
    """The AutoencoderKL of a diffusers folder, frozen and in float32, its weights mapped where they are that already.

    Raises:
        CheckpointError: When configuration and tensors do not fit, naming what is missing, surplus or misshapen.
    """
    config = _settings(folder)
    tensors = _renamed(read_weights(folder))
    with torch.device("meta"):
        module = AutoencoderKL(config)
    check_names(module.state_dict(), tensors, where=str(folder))
    module.load_state_dict({k: t.float() for k, t in tensors.items()}, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def is_autoencoder(folder: Path) -> bool:
    """Whether a folder holds an autoencoder as diffusers writes them."""
    path = folder / "config.json"
    try:
        return path.is_file() and read_config(path).get("_class_name") == AUTOENCODER_CLASS
    except CheckpointError:
        return False


def find_autoencoder(place: Path | str) -> Path:
    """The autoencoder's own folder: ``place`` itself, or what a run, a model of ours or one of diffusers holds.

    Raises:
        CheckpointError: When there is none.
    """
    place = Path(place)
    for folder in (place, *(place / inner for inner in _USUAL_PLACES)):
        if is_autoencoder(folder):
            return folder
    raise CheckpointError(
        f"{place} holds no autoencoder: expected an {AUTOENCODER_CLASS} of diffusers there or in "
        f"{', '.join(_USUAL_PLACES)}; train one with the recipe piccolo-autoencoder"
    )


def autoencoder_digest(folder: Path) -> str:
    """One SHA-256 over all that decides what its latents are."""
    total = hashlib.sha256(json.dumps(_config(folder), sort_keys=True).encode())
    for name, tensor in sorted(read_weights(folder).items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def measured_scale(module: AutoencoderKL, batches: Iterable[Images]) -> tuple[float, float]:
    """What makes the latents of these pictures zero in the mean and one in spread: their shift, and the scale after it.

    Source: Rombach et al. 2022 (arXiv:2112.10752), appendix G, where latents are only divided, by the spread of the
    first batch.
    """
    count, total, squares = 0, 0.0, 0.0
    with torch.no_grad():
        for images in batches:
            mean = module.encode(images.float()).mean.double()
            count += mean.numel()
            total += float(mean.sum())
            squares += float(mean.square().sum())
    if count == 0:
        raise ConfigError("the scale of latents is measured on at least one picture")
    shift = total / count
    variance = squares / count - shift**2
    if not variance > 0:
        raise ConfigError("these latents say nothing: they are the same everywhere")
    return shift, variance**-0.5


def write_autoencoder(
    folder: Path,
    settings: AutoencoderKLConfig,
    tensors: Mapping[str, Tensor],
    *,
    scale: float = 1.0,
    shift: float = 0.0,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write an autoencoder as diffusers does, whole or not at all; an older one there is replaced.

    Args:
        folder: Where to.
        settings: What it is built from.
        tensors: Its weights.
        scale: What latents are multiplied by.
        shift: What is taken from them before.
        dtype: Of the weights written.
    """
    scaled = replace(settings, scaling_factor=scale, shift_factor=shift)
    config = {"_class_name": AUTOENCODER_CLASS, **asdict(scaled)}
    stored = {
        name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in tensors.items()
    }
    building = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        text = json.dumps(config, indent=2) + "\n"
        (building / "config.json").write_text(text, encoding="utf-8")
        weights = building / f"{STEMS[0]}.safetensors"
        save_file(stored, weights, metadata={"format": "pt"})
        as_others(weights)
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = read_config(path)
    named = config.get("_class_name")
    if named != AUTOENCODER_CLASS:
        raise CheckpointError(
            f"{path} describes a {named}, which is not supported; supported is {AUTOENCODER_CLASS}"
        )
    return check_keys(config, AutoencoderKLConfig.__dataclass_fields__, where=str(path))


def _settings(folder: Path) -> AutoencoderKLConfig:
    where = str(folder / "config.json")
    try:
        return from_json(AutoencoderKLConfig, _config(folder), where=where)
    except ConfigError as error:
        message = str(error)
        raise CheckpointError(
            message if message.startswith(where) else f"{where}: {message}"
        ) from None


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The attention of old files under its new names."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".attentions." in name:
            for old, new in _OLD_NAMES.items():
                name = name.replace(old, new)
        renamed[name] = tensor
    return renamed


__all__ = [
    "AUTOENCODER_CLASS",
    "Autoencoder",
    "autoencoder_digest",
    "find_autoencoder",
    "is_autoencoder",
    "measured_scale",
    "open_autoencoder",
    "read_autoencoder",
    "stored_space",
    "write_autoencoder",
]
