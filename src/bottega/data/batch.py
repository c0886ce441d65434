"""What a training step is handed: pictures as bytes, their captions, and who they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from bottega.condition import Condition
from bottega.shapes import Images


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Pictures of one size with their captions.

    ``examples`` holds what the source knows beyond the picture (layouts, styles, edges), one per picture, or
    nothing. ``condition`` holds the captions' embeddings once an embedding cache has looked them up. ``edges``, where
    a source was asked for them, is 255 on an edge and 0 far from any. ``latents`` are the pictures as a network of
    latents sees them, where they were encoded before.
    """

    images: UInt8[Tensor, "batch 3 height width"]
    captions: tuple[str, ...]
    indices: tuple[int, ...]
    examples: tuple[Any, ...] = ()
    condition: Condition | None = None
    edges: UInt8[Tensor, "batch height width"] | None = None
    latents: Float[Tensor, "batch latent_channels latent_height latent_width"] | None = None

    def clean(self) -> Images:
        """The pictures as float32 in [-1, 1]."""
        return self.images.float() / 127.5 - 1

    def __len__(self) -> int:
        return len(self.captions)


@runtime_checkable
class Source(Protocol):
    """Anything batches can be drawn from by index; the same index always gives the same picture."""

    @property
    def num_examples(self) -> int | None:
        """How many pictures there are; None when they never end."""
        ...

    def batch(self, indices: Sequence[int]) -> Batch:
        """The pictures at ``indices``, in that order."""
        ...


__all__ = ["Batch", "Source"]
