"""LoRAs and ControlNets for the tiny model that have learned something, whatever it is."""

from pathlib import Path

import torch
from PIL import Image
from tiny_model import tiny_network, tiny_unet

from bottega.checkpoint import LoraFacts, save_lora
from bottega.checkpoint.controlnet import ControlNetFacts, save_controlnet
from bottega.models import ControlNet, ControlNetConfig, UNetConfig
from bottega.models.lora import LoraPlan, add_lora, lora_parameters

__all__ = ["some_edges", "write_controlnet", "write_lora"]


def write_lora(
    folder: Path,
    *,
    seed: int = 1,
    stage: str = "base",
    parts: tuple[str, ...] = (),
    network: UNetConfig | None = None,
    strength: float = 0.3,
    targets: tuple[str, ...] = ("attention",),
) -> Path:
    """A LoRA for the tiny base, far from silent."""
    plan = LoraPlan(rank=2, alpha=2.0, targets=targets)
    unet = tiny_unet(tiny_network() if network is None else network, 0)
    add_lora(unet, plan)
    draw = torch.Generator().manual_seed(seed)
    for parameter in lora_parameters(unet).values():
        parameter.data = torch.randn(parameter.shape, generator=draw) * strength
    facts = LoraFacts(stage=stage, parts=parts, model="tiny", plan=plan)
    save_lora(folder, lora_parameters(unet), facts)
    return folder


def write_controlnet(
    folder: Path,
    *,
    seed: int = 1,
    stage: str = "base",
    parts: tuple[str, ...] = (),
    network: UNetConfig | None = None,
    strength: float = 0.3,
) -> Path:
    """A ControlNet for the tiny base; with a strength of 0 as it is before training."""
    config = ControlNetConfig(network=tiny_network() if network is None else network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ControlNet(config)
        for name, parameter in net.named_parameters():
            if name.startswith(("zero", "hint.out")):
                parameter.data = torch.randn(parameter.shape) * strength
    facts = ControlNetFacts(controlnet=config, stage=stage, parts=parts, model="tiny")
    save_controlnet(folder, net.state_dict(), facts)
    return folder


def some_edges(size: int = 8) -> Image.Image:
    """A white square's outline on black."""
    picture = Image.new("L", (size, size))
    picture.paste(255, (1, 1, size - 1, size - 1))
    picture.paste(0, (2, 2, size - 2, size - 2))
    return picture
