"""What edge heads are to draw: exact outlines where the world is drawn, Canny's or HED's edges of other pictures."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import load_file
from torch import Tensor

from bottega.checkpoint.foreign_files import check_safetensors
from bottega.data import Batch, Canny, Groups, Source, groups_of
from bottega.errors import CheckpointError, DataError
from bottega.models.hed import HedNetwork, hed_from_weights

EdgeBatch = UInt8[Tensor, "batch edge_height edge_width"]
"""255 on an edge."""


@dataclass(frozen=True, kw_only=True)
class WorldEdges:
    """The exact outlines of what is seen in the drawn world."""


@dataclass(frozen=True, kw_only=True)
class HedEdges:
    """What a network for holistically-nested edge detection sees; ``weights`` is its safetensors file.

    Source: RAPHAEL (arXiv:2305.18295), section 3.3, learns from its edges. Weights are not shipped.
    """

    weights: str


EdgeTargets = WorldEdges | Canny | HedEdges
"""Where the edges come from that heads learn."""


class EdgedSource:
    """The batches of a source with their edges, found in the loader's thread."""

    def __init__(self, source: Source, targets: EdgeTargets) -> None:
        """Find edges in the pictures of ``source``.

        Raises:
            CheckpointError: For weights of a network that cannot be used.
        """
        self._source = source
        self._find = edge_finder(targets)

    @property
    def num_examples(self) -> int | None:
        """As many as the source beneath has."""
        return self._source.num_examples

    @property
    def groups(self) -> Groups | None:
        """Those of the source beneath."""
        return groups_of(self._source)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The source's batch with its edges."""
        batch = self._source.batch(indices)
        return dataclasses.replace(batch, edges=self._find(batch))


def load_hed(path: Path | str) -> HedNetwork:
    """HED from a safetensors file with published names.

    Raises:
        CheckpointError: If there is no such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no {path}; HED's weights are one safetensors file")
    check_safetensors(path)
    try:
        return hed_from_weights(load_file(path))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def edge_finder(targets: EdgeTargets) -> Callable[[Batch], EdgeBatch]:
    """What finds the edges of a batch's pictures.

    Raises:
        CheckpointError: For weights of a network that cannot be used.
    """
    match targets:
        case WorldEdges():
            return _of_world
        case Canny():
            return lambda batch: _by_canny(batch, targets)
        case HedEdges(weights=weights):
            network = load_hed(weights)
            return lambda batch: _by_hed(batch, network)


def _of_world(batch: Batch) -> EdgeBatch:
    size = (batch.images.shape[-2], batch.images.shape[-1])
    if not all(hasattr(example, "edges") for example in batch.examples) or not batch.examples:
        raise DataError(
            "exact edges are known of the drawn world only; take Canny or HedEdges as targets "
            "for other pictures"
        )
    return _as_bytes([example.edges(size) for example in batch.examples])


def _by_canny(batch: Batch, canny: Canny) -> EdgeBatch:
    return _as_bytes([canny(picture) for picture in batch.images.permute(0, 2, 3, 1).numpy()])


def _by_hed(batch: Batch, network: HedNetwork) -> EdgeBatch:
    with torch.no_grad():
        return (network(batch.clean())[:, 0] * 255).round().to(torch.uint8)


def _as_bytes(edges: Sequence[np.ndarray]) -> EdgeBatch:
    return torch.from_numpy(np.stack(edges).astype(np.uint8) * 255)


__all__ = [
    "EdgeBatch",
    "EdgeTargets",
    "EdgedSource",
    "HedEdges",
    "WorldEdges",
    "edge_finder",
    "load_hed",
]
