"""The latents of Stable Diffusion: diffusers' AutoencoderKL, read with our checks, behind the interface of a space."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bottega.checkpoint.foreign_files import check_keys, read_config, read_weights
from bottega.checkpoint.store import check_names
from bottega.errors import CheckpointError
from bottega.pipelines.space import Latents
from bottega.shapes import Images

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


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = read_config(path)
    named = config.get("_class_name")
    if named != "AutoencoderKL":
        raise CheckpointError(
            f"{path} describes a {named}, which is not supported; supported is AutoencoderKL"
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


__all__ = ["Autoencoder", "open_autoencoder", "read_autoencoder"]
