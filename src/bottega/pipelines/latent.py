"""Latents: diffusers' AutoencoderKL, ours or another's, read with our checks, behind the interface of a space."""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bottega.checkpoint.foreign_files import STEMS, check_keys, read_config, read_weights
from bottega.checkpoint.store import check_names
from bottega.errors import CheckpointError, ConfigError
from bottega.pipelines.space import Latents
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

    ``module`` opens the AutoencoderKL, or gives the one that is open; it computes in float32, because some overflow in
    less. With ``tiled``, pictures larger than the autoencoder learned on are decoded in overlapping tiles, so that
    memory stays bounded; where tiles meet, the picture differs a little.

    Source: Rombach et al. 2022 (arXiv:2112.10752), section 3.1.
    """

    module: Callable[[], Any]
    channels: int
    factor: int
    scale: float
    shift: float = 0.0
    tiled: bool = False

    @torch.no_grad()
    def encode(self, images: Images) -> Latents:
        """The mean of the latents of pictures in [-1, 1]."""
        module = self._open(images)
        mean: Tensor = module.encode(images.float()).latent_dist.mean
        return (mean - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, latents: Latents) -> Images:
        """Pictures in [-1, 1], values outside not clipped."""
        module = self._open(latents)
        decoded: Tensor = module.decode(latents.float() / self.scale + self.shift).sample
        return decoded

    def preview(self, latents: Latents) -> Images:
        """The first three channels, at the latents' own size: shapes, not colours."""
        return (latents[:, :3].float() / 3).expand(-1, 3, -1, -1)

    def _open(self, like: Tensor) -> Any:
        module = self.module().to(device=like.device)
        module.use_tiling = self.tiled
        return module


def read_autoencoder(
    folder: Path, *, module: Callable[[], Any] | None = None, tiled: bool = False
) -> Autoencoder:
    """The space that the AutoencoderKL of a diffusers folder spans.

    Args:
        folder: Holds ``config.json`` and the weights.
        module: What opens it; by default `open_autoencoder`, anew at every use.
        tiled: See `Autoencoder`.

    Raises:
        CheckpointError: When the configuration is missing, or of another class.
    """
    config = _config(folder)
    shift = config.get("shift_factor")
    return Autoencoder(
        module=(lambda: open_autoencoder(folder)) if module is None else module,
        channels=int(config.get("latent_channels", 4)),
        factor=2 ** (len(config.get("block_out_channels", (64,))) - 1),
        scale=float(config.get("scaling_factor", 0.18215)),
        shift=0.0 if shift is None else float(shift),
        tiled=tiled,
    )


def stored_space(folder: Path, *, tiled: bool = False) -> Autoencoder:
    """The same with an autoencoder that stays open, once it was needed.

    Raises:
        CheckpointError: As `read_autoencoder`.
    """
    module = functools.cache(lambda: open_autoencoder(folder))
    return read_autoencoder(folder, module=module, tiled=tiled)


def open_autoencoder(folder: Path) -> Any:
    """The AutoencoderKL of a diffusers folder, frozen and in float32, its weights mapped where they are that already.

    Raises:
        CheckpointError: When configuration and tensors do not fit, naming what is missing, surplus or misshapen.
    """
    autoencoder_class = _autoencoder_class()
    config = _config(folder)
    tensors = _renamed(read_weights(folder))
    with torch.device("meta"):
        module = autoencoder_class(**config)
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


def measured_scale(module: Any, batches: Iterable[Images]) -> tuple[float, float]:
    """What makes the latents of these pictures zero in the mean and one in spread: their shift, and the scale after it.

    Source: Rombach et al. 2022 (arXiv:2112.10752), appendix G, where latents are only divided, by the spread of the
    first batch.
    """
    count, total, squares = 0, 0.0, 0.0
    with torch.no_grad():
        for images in batches:
            mean: Tensor = module.encode(images.float()).latent_dist.mean.double()
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
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    scale: float = 1.0,
    shift: float = 0.0,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write an autoencoder as diffusers does, whole or not at all; an older one there is replaced.

    Args:
        folder: Where to.
        settings: What diffusers builds it from.
        tensors: Its weights.
        scale: What latents are multiplied by.
        shift: What is taken from them before.
        dtype: Of the weights written.
    """
    from diffusers import __version__

    config = {
        "_class_name": AUTOENCODER_CLASS,
        "_diffusers_version": __version__,
        **settings,
        "scaling_factor": scale,
        "shift_factor": shift,
    }
    stored = {
        name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in tensors.items()
    }
    building = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        text = json.dumps(config, indent=2) + "\n"
        (building / "config.json").write_text(text, encoding="utf-8")
        save_file(stored, building / f"{STEMS[0]}.safetensors", metadata={"format": "pt"})
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
    known = dict.fromkeys(_autoencoder_class().__init__.__annotations__)
    plain = check_keys(config, known, where=str(path))
    for key in ("latents_mean", "latents_std"):
        if plain.get(key) is not None:
            raise CheckpointError(f"{path} has the setting {key}, which is not supported here")
    return plain


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The attention of old files under its new names."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".attentions." in name:
            for old, new in _OLD_NAMES.items():
                name = name.replace(old, new)
        renamed[name] = tensor
    return renamed


def _autoencoder_class() -> Any:
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        raise CheckpointError(
            "latents need the autoencoder of the package diffusers: pip install diffusers"
        ) from None
    return AutoencoderKL


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
