"""What ``bottega show`` says of models that were another library's."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bottega.models import UNetConfig
    from bottega.pipelines import CascadeManifest, StageEntry


def shown_side(folder: Path, manifest: "CascadeManifest", entry: "StageEntry") -> int:
    """What a stage's network sees along each side: its pixels, or fewer positions in latents."""
    place = entry.autoencoder if manifest.parts is None else manifest.parts.autoencoder
    if place is None:
        return entry.size
    from bottega.pipelines.latent import read_autoencoder

    return entry.size // read_autoencoder(folder / place).factor


def autoencoder_lines(folder: Path) -> Iterator[str]:
    """What an autoencoder makes of pictures, and how large it is.

    Raises:
        CheckpointError: When it is damaged or not supported.
    """
    from bottega.checkpoint.foreign_files import read_weights
    from bottega.pipelines.latent import read_autoencoder

    space, tensors = read_autoencoder(folder), read_weights(folder)
    count = sum(tensor.numel() for tensor in tensors.values())
    stored = sum(tensor.nbytes for tensor in tensors.values())
    yield f"autoencoder        {space.channels} channels, a position for {space.factor} x {space.factor} pixels"
    each = "" if space.means is None else ", and for each channel one of its own"
    yield f"scale of latents   {space.scale:.5g}, after a shift of {space.shift:.5g}{each}"
    yield f"parameters         {count:,}, {stored / 1e6:,.1f} MB as stored"


def part_lines(folder: Path, manifest: "CascadeManifest") -> Iterator[str]:
    """What an imported model has beside its stages, and how much memory each part takes as it is stored."""
    parts = manifest.parts
    if parts is None:
        return
    yield f"from               {parts.pipeline} of diffusers"
    places = [text.folder for text in parts.texts]
    places += [] if parts.autoencoder is None else [parts.autoencoder]
    for place in places:
        size = sum(path.stat().st_size for path in (folder / place).glob("*.safetensors"))
        yield f"{place:18} {size / 1e6:,.1f} MB"


def pipeline_parts(folder: Path) -> "tuple[CascadeManifest, UNetConfig]":
    """A diffusers folder as a model, and the block plan of its network.

    Raises:
        CheckpointError: When it is damaged or not supported.
    """
    from bottega.checkpoint.foreign import plan_of
    from bottega.pipelines.foreign import manifest_of, read_pipeline

    pipeline = read_pipeline(folder)
    return manifest_of(pipeline), plan_of(pipeline.unet)


__all__ = ["autoencoder_lines", "part_lines", "pipeline_parts", "shown_side"]
