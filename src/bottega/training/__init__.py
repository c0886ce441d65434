"""The training loop and everything that turns with it."""

from bottega.training.config import EmaConfig, TrainConfig
from bottega.training.engine import AccelerateEngine, Engine, LocalEngine
from bottega.training.hooks import (
    CheckpointHook,
    Hook,
    JournalHook,
    PreviewHook,
    TensorBoardHook,
)
from bottega.training.objective import Loss, Objective
from bottega.training.optim import Adafactor, AdamW
from bottega.training.schedules import Constant, Cosine, InverseSqrt, Linear
from bottega.training.state import StepReport, TrainState
from bottega.training.trainer import fit

__all__ = [
    "AccelerateEngine",
    "Adafactor",
    "AdamW",
    "CheckpointHook",
    "Constant",
    "Cosine",
    "EmaConfig",
    "Engine",
    "Hook",
    "InverseSqrt",
    "JournalHook",
    "Linear",
    "LocalEngine",
    "Loss",
    "Objective",
    "PreviewHook",
    "StepReport",
    "TensorBoardHook",
    "TrainConfig",
    "TrainState",
    "fit",
]
