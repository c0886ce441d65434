"""Others' networks as ours and back: folders of the diffusers library, tensor for tensor."""

from bottega.checkpoint.foreign.unet import ForeignInfo, load_foreign_unet, save_foreign_unet
from bottega.checkpoint.foreign.unet_settings import plan_of

__all__ = ["ForeignInfo", "load_foreign_unet", "plan_of", "save_foreign_unet"]
