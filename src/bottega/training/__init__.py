"""The training loop and everything that turns with it."""

from bottega.training.config import EmaConfig, TrainConfig
from bottega.training.denoiser_objective import (
    DenoiserObjective,
    picture_share,
    random_crops,
    shrink,
)
from bottega.training.embedded import EmbeddedSource
from bottega.training.engine import AccelerateEngine, Engine, LocalEngine
from bottega.training.export import averaged_weights, export_ema, load_ema
from bottega.training.hooks import (
    CheckpointHook,
    Hook,
    JournalHook,
    PreviewHook,
    TensorBoardHook,
)
from bottega.training.objective import Loss, Objective
from bottega.training.optim import Adafactor, AdamW, Muon
from bottega.training.progress import ProgressHook
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
    "DenoiserObjective",
    "EmaConfig",
    "EmbeddedSource",
    "Engine",
    "Hook",
    "InverseSqrt",
    "JournalHook",
    "Linear",
    "LocalEngine",
    "Loss",
    "Muon",
    "Objective",
    "PreviewHook",
    "ProgressHook",
    "StepReport",
    "TensorBoardHook",
    "TrainConfig",
    "TrainState",
    "averaged_weights",
    "export_ema",
    "fit",
    "load_ema",
    "picture_share",
    "random_crops",
    "shrink",
]
