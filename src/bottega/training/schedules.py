"""How the learning rate moves with the images seen: a linear warm-up, then one of four courses."""

import math
from dataclasses import dataclass

from bottega.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The peak rate to the end."""

    def factor(self, images_seen: int, total_images: int) -> float:
        """The share of the peak rate."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from the peak down to ``end_frac`` of it at the last image."""

    end_frac: float = 0.0

    def __post_init__(self) -> None:
        _check_frac("end_frac", self.end_frac)

    def factor(self, images_seen: int, total_images: int) -> float:
        """The share of the peak rate."""
        done = min(images_seen / total_images, 1.0)
        return self.end_frac + (1 - self.end_frac) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True, kw_only=True)
class Linear:
    """The peak rate until ``start_frac`` of the run, then a straight line to ``end_frac`` of it."""

    start_frac: float = 0.0
    end_frac: float = 0.0

    def __post_init__(self) -> None:
        _check_frac("end_frac", self.end_frac)
        if not 0 <= self.start_frac < 1:
            raise ConfigError(f"start_frac must be at least 0 and below 1, got {self.start_frac}")

    def factor(self, images_seen: int, total_images: int) -> float:
        """The share of the peak rate."""
        done = min(images_seen / total_images, 1.0)
        fallen = max(0.0, (done - self.start_frac) / (1 - self.start_frac))
        return 1 - (1 - self.end_frac) * fallen


@dataclass(frozen=True, kw_only=True)
class InverseSqrt:
    """The peak rate for ``reference_images``, then falling with the square root of the images seen.

    It does not ask how long the run will be, so a run may be lengthened without a jump.

    Source: Karras et al. 2024 (arXiv:2312.02696), eq. 67.
    """

    reference_images: int

    def __post_init__(self) -> None:
        if self.reference_images < 1:
            raise ConfigError(f"reference_images must be positive, got {self.reference_images}")

    def factor(self, images_seen: int, total_images: int) -> float:
        """The share of the peak rate."""
        return max(images_seen / self.reference_images, 1.0) ** -0.5


Schedule = Constant | Cosine | InverseSqrt | Linear


def learning_rate(
    schedule: Schedule, peak: float, images_seen: int, *, total_images: int, warmup_images: int
) -> float:
    """The rate of the step that brings the count to ``images_seen``; the first step's is above zero."""
    warm = min(images_seen / warmup_images, 1.0) if warmup_images > 0 else 1.0
    return peak * warm * schedule.factor(images_seen, total_images)


def _check_frac(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} must lie between 0 and 1, got {value}")


__all__ = ["Constant", "Cosine", "InverseSqrt", "Linear", "Schedule", "learning_rate"]
