"""The networks that `foreign.py` races, in the settings of diffusers' own class, and what they are asked."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TOKENS = 77
SD = {
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 8,
}
IF = {
    "in_channels": 3,
    "out_channels": 6,
    "down_block_types": ("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
    "addition_embed_type": "text",
    "cross_attention_norm": "group_norm",
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
}
SHAPES: dict[str, dict[str, Any]] = {
    "sd-tiny": SD
    | {"sample_size": 16, "block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 32},
    "sd-142m": SD
    | {"sample_size": 64, "block_out_channels": (128, 256, 512, 512), "cross_attention_dim": 768},
    "sd15": SD
    | {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768},
    "if-tiny": IF
    | {
        "sample_size": 16,
        "block_out_channels": (32, 32, 64, 64),
        "layers_per_block": 1,
        "attention_head_dim": 16,
        "cross_attention_dim": 32,
        "encoder_hid_dim": 32,
        "addition_embed_type_num_heads": 2,
    },
    "if-144m": IF
    | {
        "sample_size": 64,
        "block_out_channels": (128, 256, 384, 512),
        "layers_per_block": 2,
        "attention_head_dim": 64,
        "cross_attention_dim": 512,
        "encoder_hid_dim": 1024,
        "addition_embed_type_num_heads": 64,
    },
}


def make(shape: str, folder: Path) -> None:
    """Save a random network of that shape."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SHAPES[shape])
    for parameter in unet.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    unet.save_pretrained(folder)


def inputs(shape: str, images: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """The first noise, and what guidance is told with and without a prompt."""
    settings = SHAPES[shape]
    width = settings.get("encoder_hid_dim", settings["cross_attention_dim"])
    generator = torch.Generator().manual_seed(1)
    side, channels = settings["sample_size"], settings["in_channels"]
    noise = torch.randn(images, channels, side, side, generator=generator)
    texts = torch.randn(2, images, TOKENS, width, generator=generator)
    return noise.to(device), texts[0].to(device), texts[1].to(device)
