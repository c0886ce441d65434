"""The judge: says what a picture shows, so that what was asked for can be checked.

Places and sizes are shares of the picture's side, with the origin at the top left.
"""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bottega.checkpoint import load_manifest, load_module, save_module
from bottega.config import from_json, to_json
from bottega.errors import CheckpointError, InputError
from bottega.evaluation.degrade import resized
from bottega.evaluation.judge_network import JudgeConfig, JudgeNetwork, Seen
from bottega.shapes import Images

CENTRE_THRESHOLD = 0.4
"""How sure the judge must be that something stands in a place before it counts."""

KIND = "judge"
FILE_NAME = "judge"

_MAX_DETECTIONS = 12

# Every call has this shape, so that a picture's reading never depends on its neighbours or their number.
_CHUNK = 16


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One thing that the judge sees: which, where its middle is, how large, and its tint (None = its own colours)."""

    thing: str
    score: float
    x: float
    y: float
    size: float
    tint: str | None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        half = self.size / 2
        return self.x - half, self.y - half, self.x + half, self.y + half


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Everything the judge says of one picture; ``detections`` come surest first, ``word`` is None where none is."""

    detections: tuple[Detection, ...]
    background: str
    style: str
    word: str | None

    def counts(self) -> Counter[str]:
        """How many of each thing there are."""
        return Counter(d.thing for d in self.detections)


@runtime_checkable
class Reader(Protocol):
    """Anything that can say what pictures show; `Judge` is the one that learns."""

    digest: str

    @property
    def config(self) -> JudgeConfig:
        """What it can name."""
        ...

    def read(self, images: Images) -> list[Reading]:
        """Say what each picture shows."""
        ...


class Judge:
    """A trained network and how its outputs become words."""

    def __init__(self, network: JudgeNetwork, *, digest: str = "unsaved") -> None:
        """Judge by a copy of ``network``, in float32 and for reading only; ``digest`` names it on cards."""
        self.network = copy.deepcopy(network).float().eval().requires_grad_(False)
        self.digest = digest

    @classmethod
    def load(cls, folder: Path | str) -> "Judge":
        """Read a judge that `save` wrote.

        Raises:
            CheckpointError: If there is none, it is damaged, or the folder holds something else.
        """
        manifest = load_manifest(folder)
        if manifest.kind != KIND:
            raise CheckpointError(f"{folder} holds a {manifest.kind}, not a {KIND}")
        network = JudgeNetwork(from_json(JudgeConfig, manifest.config))
        load_module(network, folder, FILE_NAME)
        return cls(network, digest=manifest.digest)

    def save(
        self,
        folder: Path | str,
        *,
        images_seen: int = 0,
        dtype: torch.dtype = torch.bfloat16,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """Write the judge as a checkpoint with its vocabulary, and return its digest.

        Half the digits are kept (``dtype``): load what was saved before reporting a score of it. ``extra`` is plain
        JSON worth keeping beside it, such as its accuracy on real pictures.
        """
        manifest = save_module(
            folder,
            self.network.state_dict(),
            kind=KIND,
            config=to_json(self.config),
            images_seen=images_seen,
            dtype=dtype,
            name=FILE_NAME,
            extra=extra,
        )
        return manifest.digest

    @property
    def config(self) -> JudgeConfig:
        """What the judge can name."""
        return self.network.config

    def read(self, images: Images) -> list[Reading]:
        """Say what each picture shows; pictures of any size, in [-1, 1].

        A reading depends on its picture alone, not on the others it came with.
        """
        readings: list[Reading] = []
        for seen, count in self._look(images):
            readings += _decode(seen, self.config)[:count]
        return readings

    def features(self, images: Images) -> Float[Tensor, "batch features"]:
        """What the network makes of each picture before it finds words: a vector to compare sets of pictures by."""
        parts = [seen.features[:count] for seen, count in self._look(images)]
        return torch.cat(parts) if parts else torch.zeros(0, self.feature_width)

    @property
    def feature_width(self) -> int:
        """The length of a feature vector."""
        return 2 * self.config.widths[2]

    @torch.no_grad()
    def _look(self, images: Images) -> list[tuple[Seen, int]]:
        if images.shape[1] != 3:
            raise InputError(f"the judge reads pictures of 3 channels, got {images.shape[1]}")
        device = self.network.stem.weight.device
        looks: list[tuple[Seen, int]] = []
        for chunk in images.split(_CHUNK) if len(images) else ():
            small = resized(chunk.float().to(device), self.config.size_px)
            padded = F.pad(small, (0, 0, 0, 0, 0, 0, 0, _CHUNK - len(small)))
            looks.append((Seen(*(part.cpu() for part in self.network(padded))), len(chunk)))
        return looks


def _decode(seen: Seen, config: JudgeConfig) -> list[Reading]:
    heat = seen.centre.sigmoid()
    peaks = F.max_pool2d(heat[:, None], 3, stride=1, padding=1)[:, 0]
    scores = torch.where(heat == peaks, heat, torch.zeros_like(heat)).flatten(1)
    best, cells = scores.topk(min(_MAX_DETECTIONS, scores.shape[1]), dim=1)
    columns = heat.shape[2]
    things, tints = seen.thing.argmax(1).flatten(1), seen.tint.argmax(1).flatten(1)
    offsets, sizes = seen.offset.flatten(2), seen.log_size.exp().flatten(1)
    backgrounds, styles = seen.background.argmax(1), seen.style.argmax(1)
    signs = seen.sign.argmax(1)
    readings: list[Reading] = []
    for i in range(len(heat)):
        found: list[Detection] = []
        for score, cell in zip(best[i].tolist(), cells[i].tolist(), strict=True):
            if score < CENTRE_THRESHOLD:
                break
            row, column = divmod(cell, columns)
            tint = int(tints[i, cell])
            found.append(
                Detection(
                    thing=config.things[int(things[i, cell])],
                    score=score,
                    x=(column + 0.5 + float(offsets[i, 0, cell])) / columns,
                    y=(row + 0.5 + float(offsets[i, 1, cell])) / heat.shape[1],
                    size=float(sizes[i, cell]),
                    tint=config.tints[tint - 1] if tint else None,
                )
            )
        sign = int(signs[i])
        readings.append(
            Reading(
                detections=_distinct(found),
                background=config.backgrounds[int(backgrounds[i])],
                style=config.styles[int(styles[i])],
                word=config.signs[sign - 1] if sign else None,
            )
        )
    return readings


def _distinct(found: Sequence[Detection]) -> tuple[Detection, ...]:
    """Drop the fainter of two detections that cover the same place."""
    kept: list[Detection] = []
    for candidate in found:
        if all(_overlap(candidate, other) < 0.5 for other in kept):
            kept.append(candidate)
    return tuple(kept)


def _overlap(one: Detection, other: Detection) -> float:
    """Intersection over union of two boxes."""
    left, top, right, bottom = (
        pick(ends)
        for pick, ends in zip(
            (max, max, min, min), zip(one.box, other.box, strict=True), strict=True
        )
    )
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    union = one.size**2 + other.size**2 - shared
    return shared / union if union > 0 else 0.0


__all__ = ["CENTRE_THRESHOLD", "FILE_NAME", "KIND", "Detection", "Judge", "Reader", "Reading"]
