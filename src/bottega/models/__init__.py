"""Networks: each is a frozen configuration and the module built from it."""

from bottega.models.attention import AttentionMap, LogitBias
from bottega.models.context import Context
from bottega.models.counting import PAPER_FIGURES, Description, count_parameters, describe
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
    "AttentionMap",
    "Context",
    "Description",
    "LargestLogit",
    "LogitBias",
    "LogitDeviation",
    "PlacedPhrase",
    "PlacedPhrases",
    "RegionWeight",
    "UNet",
    "UNetConfig",
    "count_parameters",
    "describe",
]
