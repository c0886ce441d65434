"""What a painting is steered by beside its words: control pictures, as asked for, as recorded, as a stage has them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bottega.condition import Condition
from bottega.data.decoding import as_seen
from bottega.ensemble import MixtureContext
from bottega.errors import InputError
from bottega.models import ControlNet
from bottega.pipelines import given
from bottega.pipelines.style import style_digest


@dataclass(frozen=True, kw_only=True)
class LoraRecord:
    """A LoRA that a picture was painted with, and how strongly."""

    name: str
    digest: str
    scale: float

    def __post_init__(self) -> None:
        check_scale(self.scale)


@dataclass(frozen=True, kw_only=True)
class ControlRecord:
    """A ControlNet that a picture was painted with, the digest of the picture it read, and how strongly."""

    name: str
    digest: str
    picture: str
    scale: float

    def __post_init__(self) -> None:
        check_scale(self.scale)


@dataclass(frozen=True, eq=False)
class Guide:
    """A control picture, as large as what is painted by the stage it steers, and how hard to follow it.

    Attributes:
        picture: White where there is an edge, for a ControlNet that reads edges.
        scale: 0 leaves the painting as it is, 1 is what the ControlNet learned.
    """

    picture: Image.Image
    scale: float = 1.0

    def __post_init__(self) -> None:
        given.picture(self.picture, "a control picture")
        check_scale(self.scale)


Guides = Guide | Image.Image | Sequence[Guide | Image.Image] | None
"""One control picture or several; a bare one is followed at scale 1."""


def guides_of(controls: Any) -> list[Guide]:
    """What a caller gave as `Guides`, as a list.

    Raises:
        InputError: For anything else; of a path it says how to open it.
    """
    if controls is None:
        return []
    alone = isinstance(controls, (Guide, Image.Image))
    several = [controls] if alone else given.listed(controls, "control pictures")
    return [one if isinstance(one, Guide) else Guide(one) for one in several]


@dataclass(frozen=True, kw_only=True, eq=False)
class StageControl:
    """A ControlNet with the picture it reads, for the ``parts`` of a ``stage``; without parts for all of it."""

    net: ControlNet
    stage: str
    parts: tuple[str, ...]
    picture: Float[Tensor, "1 channels height width"]
    scale: float
    record: ControlRecord

    def onto(self, context: Any, condition: Condition) -> Any:
        """The context of that condition, steered."""
        picture = self.picture.expand(condition.batch_size, -1, -1, -1)
        control = self.net.control(replace(condition, control=picture), self.scale)
        if isinstance(context, MixtureContext):
            return context.with_control(control, self.parts)
        return context.with_control(control)

    def check_size(self, height: int, width: int) -> None:
        """Refuse a picture of another size than what is painted.

        Raises:
            InputError: Naming both sizes.
        """
        found = (self.picture.shape[2], self.picture.shape[3])
        if found != (height, width):
            raise InputError(
                f"the control picture is {found[1]} x {found[0]}, but stage {self.stage} paints "
                f"{width} x {height}; make one of that size (bottega data edges --size {height}x{width})"
            )


def control_tensor(picture: Image.Image, channels: int) -> Float[Tensor, "1 channels height width"]:
    """A control picture in [0, 1], grey for one channel and in colour for three."""
    plain = np.array(as_seen(picture).convert("L" if channels == 1 else "RGB"))
    planes = torch.from_numpy(plain).float() / 255
    return planes[None, None] if planes.ndim == 2 else planes.permute(2, 0, 1)[None]


def control_record(name: str, digest: str, guide: Guide) -> ControlRecord:
    """What a description keeps of a control picture."""
    return ControlRecord(
        name=name, digest=digest, picture=style_digest(guide.picture), scale=guide.scale
    )


def guides_again(records: Sequence[ControlRecord], pictures: Sequence[Image.Image]) -> list[Guide]:
    """The same control pictures again, with the scales that they had.

    Raises:
        InputError: When one is missing, too many, or another than it was.
    """
    if len(pictures) != len(records):
        raise InputError(
            f"it was painted with {len(records)} control pictures, got {len(pictures)}"
        )
    for record, picture in zip(records, pictures, strict=True):
        if style_digest(picture) != record.picture:
            raise InputError(f"it was painted with another control picture for {record.name}")
    return [Guide(p, record.scale) for record, p in zip(records, pictures, strict=True)]


def check_scale(scale: float) -> None:
    """Refuse a scale that is no number.

    Raises:
        InputError: For infinity, or what is none.
    """
    if not math.isfinite(given.number(scale, "a scale")):
        raise InputError(f"a scale is a finite number, got {scale}")


__all__ = [
    "ControlRecord",
    "Guide",
    "Guides",
    "LoraRecord",
    "StageControl",
    "check_scale",
    "control_record",
    "control_tensor",
    "guides_again",
    "guides_of",
]
