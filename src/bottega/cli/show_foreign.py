"""What ``bottega show`` says of models that were another library's."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bottega.models import UNetConfig
    from bottega.pipelines import CascadeManifest


def shown_side(folder: Path, manifest: "CascadeManifest", size: int) -> int:
    """What a network sees along each side where pictures have ``size`` pixels: fewer positions in latents."""
    if manifest.parts is None or manifest.parts.autoencoder is None:
        return size
    from bottega.pipelines.latent import read_autoencoder

    return size // read_autoencoder(folder / manifest.parts.autoencoder).factor


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


__all__ = ["part_lines", "pipeline_parts", "shown_side"]
