"""Scores of single pictures by CLIP: how well a caption fits, and whatever a linear head on its vectors was taught.

Source: the predictors of LAION (https://github.com/LAION-AI/aesthetic-predictor), which RAPHAEL (arXiv:2305.18295,
section 4) filters by: a linear head on CLIP's picture vector of unit length. Those of several linear layers without
anything between them are one linear head, and are read as one.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bottega.checkpoint.foreign_files import check_safetensors
from bottega.conditioning.encoders import load_clip_image, load_clip_text
from bottega.data.samples import Sample
from bottega.errors import CheckpointError

Vectors = Float[Tensor, "batch width"]
"""Of unit length."""


class LinearHead:
    """A number for each vector of a CLIP: weight times vector plus bias."""

    def __init__(self, weight: Float[Tensor, "1 width"], bias: Float[Tensor, "1"]) -> None:
        self.weight, self.bias = weight.double(), bias.double()

    @classmethod
    def load(cls, path: Path | str) -> "LinearHead":
        """Read a head from a safetensors file: ``weight`` and ``bias``, or a chain of such layers, numbered.

        Raises:
            CheckpointError: When there is no such file, or it holds anything else.
        """
        check_safetensors(Path(path))
        try:
            tensors = load_file(Path(path))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None
        weight, bias = None, torch.zeros(1, dtype=torch.float64)
        for name in _layers(tensors, path):
            layer = tensors[f"{name}weight"].double()
            own = tensors.get(f"{name}bias")
            shift = torch.zeros(len(layer)).double() if own is None else own.double()
            if shift.shape != (len(layer),) or not bool(layer.isfinite().all()):
                raise CheckpointError(
                    f"{path} is damaged: layer {name or 'weight'} makes no numbers"
                )
            if weight is None:
                weight, bias = layer, shift
            elif layer.shape[1] == weight.shape[0]:
                weight, bias = layer @ weight, layer @ bias + shift
            else:
                raise CheckpointError(
                    f"{path}: layer {name or 'weight'} takes {layer.shape[1]} numbers, but {weight.shape[0]} come"
                )
        if weight is None or weight.shape[0] != 1 or bias.shape != (1,):
            raise CheckpointError(f"{path} is no head: expected layers that end in one number")
        return cls(weight, bias)

    @property
    def width(self) -> int:
        """Of the vectors it takes."""
        return self.weight.shape[1]

    def __call__(self, vectors: Vectors) -> list[float]:
        """A score for each."""
        return (vectors.double() @ self.weight.T + self.bias)[:, 0].tolist()


def _layers(tensors: dict[str, Tensor], path: Path | str) -> list[str]:
    """What comes before ``weight`` in the name of each layer, in their order."""
    names = [name.removesuffix("weight") for name in tensors if name.endswith("weight")]
    left = {
        name for name in tensors if name.removesuffix("weight").removesuffix("bias") not in names
    }
    wrong = [name for name in tensors if name.endswith("weight") and tensors[name].ndim != 2]
    if left or wrong or not names:
        some = sorted(left | set(wrong)) or ["nothing"]
        raise CheckpointError(f"{path} is no head of linear layers: it holds {some[0]}")
    return sorted(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


class ClipScores:
    """Scores through one CLIP, which sees every picture once however many scores ask for it."""

    def __init__(self, folder: Path | str, *, device: torch.device | str = "cpu") -> None:
        """Open a CLIP in Hugging Face's format.

        Raises:
            CheckpointError: When the folder cannot be read as one.
        """
        self._folder = Path(folder)
        self._images = load_clip_image(self._folder).to(device)
        self._text = load_clip_text(self._folder).to(device)
        # By what reads their bytes, since samples of two data sets may have one name.
        self._seen: dict[Callable[[], bytes], Tensor] = {}

    @property
    def width(self) -> int:
        """Of its vectors."""
        return self._images.width

    def pictures(self, samples: Sequence[Sample]) -> Vectors:
        """The vectors of pictures; those of the last samples that were asked about are remembered."""
        known = {s.read: self._seen[s.read] for s in samples if s.read in self._seen}
        for sample in samples:
            if sample.read not in known:
                picture = self._smaller(sample.picture())
                pixels = np.asarray(picture, np.float32).transpose(2, 0, 1) / 127.5 - 1
                vector = self._images.encode(torch.from_numpy(pixels)[None]).pooled
                assert vector is not None  # a picture encoder always has one
                known[sample.read] = F.normalize(vector[0].cpu(), dim=0)
        self._seen = known
        return torch.stack([known[sample.read] for sample in samples])

    def _smaller(self, picture: Any) -> Any:
        """A very large picture made smaller by whole steps, to no less than four times what the CLIP looks at."""
        times = min(picture.size) // (4 * self._images.preparation.image_size_px)
        return picture.reduce(times) if times > 1 else picture

    def captions(self, samples: Sequence[Sample]) -> Vectors:
        """The vectors of captions."""
        pooled = self._text.encode([sample.caption for sample in samples]).stream.pooled
        assert pooled is not None  # CLIP's text encoder always has one
        return F.normalize(pooled.cpu(), dim=1)

    def fit(self, samples: Sequence[Sample]) -> list[float]:
        """The cosine between each picture and its caption: CLIP's score, from -1 to 1."""
        return (self.pictures(samples) * self.captions(samples)).sum(1).tolist()

    def head(self, path: Path | str) -> LinearHead:
        """A head for the vectors of this CLIP.

        Raises:
            CheckpointError: When it cannot be read, or was made for vectors of another width.
        """
        head = LinearHead.load(path)
        if head.width != self.width:
            raise CheckpointError(
                f"{path} is for vectors of {head.width} numbers, the CLIP in {self._folder} gives {self.width}"
            )
        return head


class Aesthetic:
    """How much people would like a picture, from about 1 to 10, as a head was taught."""

    def __init__(self, clip: ClipScores, path: Path | str) -> None:
        """Read the head from a safetensors file."""
        self._clip, self._head = clip, clip.head(path)

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """A score for each."""
        return self._head(self._clip.pictures(samples))


class Watermark:
    """How likely a picture has a watermark, from 0 to 1: the logistic function of what a head says."""

    def __init__(self, clip: ClipScores, path: Path | str) -> None:
        """Read the head from a safetensors file."""
        self._clip, self._head = clip, clip.head(path)

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """A score for each."""
        logits = torch.tensor(self._head(self._clip.pictures(samples)), dtype=torch.float64)
        return torch.sigmoid(logits).tolist()


__all__ = ["Aesthetic", "ClipScores", "LinearHead", "Watermark"]
