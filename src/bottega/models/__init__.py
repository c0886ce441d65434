"""Networks: each is a frozen configuration and the module built from it."""

from bottega.models.attention import AttentionMap, LogitBias
from bottega.models.context import Context
from bottega.models.control import Additions, Control
from bottega.models.controlnet import ControlNet, ControlNetConfig
from bottega.models.counting import PAPER_FIGURES, Description, count_parameters, describe
from bottega.models.moe import SpaceMoE, TimeMoE
from bottega.models.moe_config import GateNoise, SpaceMoEConfig, TimeMoEConfig
from bottega.models.moe_gates import Exploring, SpaceRoute, TimeRoute
from bottega.models.moe_load import (
    CollapseWarning,
    ExpertLoad,
    active_share,
    balance_loss,
    load_of,
    warn_of_collapse,
)
from bottega.models.plans import PLANS
from bottega.models.regions import (
    LargestLogit,
    LogitDeviation,
    PlacedPhrase,
    PlacedPhrases,
    RegionWeight,
)
from bottega.models.unet import UNet
from bottega.models.unet_config import UNetConfig

__all__ = [
    "PAPER_FIGURES",
    "PLANS",
    "Additions",
    "AttentionMap",
    "CollapseWarning",
    "Context",
    "Control",
    "ControlNet",
    "ControlNetConfig",
    "Description",
    "ExpertLoad",
    "Exploring",
    "GateNoise",
    "LargestLogit",
    "LogitBias",
    "LogitDeviation",
    "PlacedPhrase",
    "PlacedPhrases",
    "RegionWeight",
    "SpaceMoE",
    "SpaceMoEConfig",
    "SpaceRoute",
    "TimeMoE",
    "TimeMoEConfig",
    "TimeRoute",
    "UNet",
    "UNetConfig",
    "active_share",
    "balance_loss",
    "count_parameters",
    "describe",
    "load_of",
    "warn_of_collapse",
]
