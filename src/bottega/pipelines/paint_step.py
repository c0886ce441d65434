"""What painting yields step by step, and the settings that may be changed for one painting."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict, TypeVar

from PIL import Image

from bottega.diffusion import Dynamic, Static
from bottega.errors import InputError
from bottega.models import RegionWeight
from bottega.pipelines.output import to_pictures
from bottega.shapes import Images

T = TypeVar("T")
PerStage = T | Mapping[str, T]
"""One value for every stage, or a value for each of the stages named."""


class Overrides(TypedDict, total=False):
    """Settings of `StageSettings` to change for one painting."""

    steps: PerStage[int]
    sampler: PerStage[str]
    guidance_scale: PerStage[float]
    guidance_interval: PerStage[tuple[float, float] | None]
    sigma_min: PerStage[float]
    sigma_max: PerStage[float]
    rho: PerStage[float]
    thresholding: PerStage[Static | Dynamic | None]
    low_res_sigma: PerStage[float]
    grid: PerStage[str]
    region_strength: PerStage[float]
    region_weight: PerStage[RegionWeight]


@dataclass(frozen=True, kw_only=True, eq=False)
class PaintStep:
    """Where a painting stands: which pictures, which stage, which of its steps, and the newest estimate.

    ``pictures`` holds the finished pictures of ``indices`` on the last step of the last stage, and nothing before.
    """

    indices: tuple[int, ...]
    stage: str
    step: int
    num_steps: int
    sigma: float
    denoised: Images
    pictures: tuple[Image.Image, ...] = ()

    def previews(self) -> list[Image.Image]:
        """The estimates as pictures, at the size of the stage."""
        return to_pictures(self.denoised)


def check_finite(images: Images, stage: str) -> None:
    """Refuse what a stage painted when it is no picture.

    Raises:
        InputError: For values that are not finite.
    """
    if not bool(images.isfinite().all()):
        raise InputError(
            f"stage {stage} painted values that are not finite; settings nearer to the model's own avoid that "
            "(a lower guidance_scale or sigma_max, smaller scales of LoRAs and control pictures, or dtype float32)"
        )


__all__ = ["Overrides", "PaintStep", "PerStage", "check_finite"]
