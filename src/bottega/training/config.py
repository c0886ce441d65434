"""The settings of a training run, all counted in images."""

from dataclasses import dataclass, field
from typing import Literal

from bottega.checkpoint import Retention
from bottega.errors import ConfigError
from bottega.training.optim import Adafactor, AdamW, Muon
from bottega.training.schedules import Constant, Cosine, InverseSqrt, Linear


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Which averages of the weights are kept beside them.

    ``stds`` are lengths of power-function averages relative to the whole run: 0.05 averages over about the last
    tenth of it. ``halflife_images`` adds a classic exponential average. Averages move every ``every_images``.
    ``head_start_images`` count as averaged before the run began: a child starts from its parent's average.

    Source: Karras et al. 2024 (arXiv:2312.02696), section 3.
    """

    stds: tuple[float, ...] = (0.05, 0.10)
    halflife_images: int | None = None
    every_images: int = 512
    head_start_images: int = 0

    def __post_init__(self) -> None:
        for std in self.stds:
            if not 0 < std < 0.288:  # a power-function average cannot be longer than 1/sqrt(12)
                raise ConfigError(f"ema.stds must lie between 0 and 0.288, got {std}")
        if len(set(self.stds)) != len(self.stds):
            raise ConfigError(f"ema.stds must differ, got {self.stds}")
        _positive("ema.every_images", self.every_images)
        if self.head_start_images < 0:
            raise ConfigError(
                f"ema.head_start_images must not be negative, got {self.head_start_images}"
            )
        if self.halflife_images is not None:
            _positive("ema.halflife_images", self.halflife_images)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how fast and how exactly to train.

    ``batch_size`` is over all processes. ``microbatch`` is how many images one process takes at once; gradients of
    several are added in float32. ``precision`` "bf16" keeps the network in bfloat16 and the optimiser's copy of it in
    float32. ``checkpoint_images`` is the distance between checkpoints. ``compile`` hands the network's calls to
    ``torch.compile``; ``prefetch`` is how many microbatches are drawn ahead.
    """

    total_images: int
    batch_size: int = 64
    microbatch: int | None = None
    learning_rate: float = 1e-3
    optimizer: AdamW | Adafactor | Muon = field(default_factory=AdamW)
    schedule: Constant | Cosine | InverseSqrt | Linear = field(default_factory=Constant)
    warmup_images: int = 0
    clip_norm: float | None = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = False
    ema: EmaConfig = field(default_factory=EmaConfig)
    seed: int = 0
    checkpoint_images: int = 100_000
    retention: Retention = field(default_factory=Retention)
    prefetch: int = 4

    def __post_init__(self) -> None:
        _positive("total_images", self.total_images)
        _positive("batch_size", self.batch_size)
        _positive("checkpoint_images", self.checkpoint_images)
        _positive("prefetch", self.prefetch)
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(
                f"learning_rate must be positive and finite, got {self.learning_rate}"
            )
        if self.warmup_images < 0:
            raise ConfigError(f"warmup_images must not be negative, got {self.warmup_images}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(f"clip_norm must be positive or none, got {self.clip_norm}")
        if self.microbatch is not None:
            _positive("microbatch", self.microbatch)
        if not -(2**63) <= self.seed < 2**64:
            raise ConfigError(f"seed must be a number of 64 bits, got {self.seed}")

    def microbatch_for(self, world_size: int) -> int:
        """How many images each of ``world_size`` processes takes at once.

        Raises:
            ConfigError: If the batch cannot be shared out evenly.
        """
        share, rest = divmod(self.batch_size, world_size)
        if rest or share == 0:
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be shared by {world_size} processes; make it a multiple"
            )
        if self.microbatch is None:
            return share
        if share % self.microbatch:
            raise ConfigError(
                f"microbatch {self.microbatch} must divide the {share} images of each process "
                f"(batch_size {self.batch_size}, {world_size} processes)"
            )
        return self.microbatch


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}")


__all__ = ["EmaConfig", "TrainConfig"]
