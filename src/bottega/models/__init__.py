"""Networks: each is a frozen configuration and the module built from it."""

from bottega.models.attention import AttentionMap
from bottega.models.context import Context
from bottega.models.unet import UNet
from bottega.models.unet_config import UNetConfig

__all__ = ["AttentionMap", "Context", "UNet", "UNetConfig"]
