"""A complete model small enough for a test: real encoders, networks and files, with random weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bottega.conditioning import (
    TinyClipConfig,
    TinyT5Config,
    TokenizerConfig,
    build_clip,
    build_t5,
    save_clip,
    save_t5,
    train_tokenizer,
)
from bottega.models import UNet, UNetConfig
from bottega.models.unet_config import (
    Level,
    LowRes,
    Middle,
    PooledVector,
    SelfThenCross,
    StreamPlan,
)
from bottega.pipelines import DenoiserConfig, StageEntry, StageSettings, assemble, save_denoiser

WIDTH = 32
WORDS = ["a pizza to the left of a cat", "two apples on a blue background", "a red car", "a dog"]


def tiny_network(low_res: LowRes | None = None) -> UNetConfig:
    """A U-Net of two levels that hears all three encoders."""
    return UNetConfig(
        levels=(Level(width=16, stride=1, down_blocks=1, up_blocks=1), Level(width=WIDTH)),
        middle=Middle(attention=SelfThenCross(head_width=16)),
        time_width=32,
        context_width=WIDTH,
        streams=(
            StreamPlan(name="t5", width=WIDTH),
            StreamPlan(name="clip_text", width=WIDTH, pool=PooledVector(width=WIDTH)),
            StreamPlan(name="clip_image", width=WIDTH, pool=PooledVector(width=WIDTH)),
        ),
        low_res=low_res,
    )


def tiny_unet(network: UNetConfig, seed: int) -> UNet:
    """A network whose every weight matters: what is zero at the start of training is random here."""
    unet = UNet(network)
    generator = torch.Generator().manual_seed(seed)
    for parameter in unet.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.05 * noise
    return unet


def write_tiny_model(folder: Path) -> Path:
    """Write a model that paints 8 px and enlarges them to 16, in a second or two."""
    lengths = TokenizerConfig(vocab_size=512, max_tokens=32)
    t5 = train_tokenizer(WORDS, "t5", lengths)
    small_t5 = TinyT5Config(d_model=WIDTH, num_heads=2, d_ff=32, num_layers=1, num_decoder_layers=1)
    save_t5(build_t5(small_t5, t5), t5, folder / "t5")
    clip = train_tokenizer(WORDS, "clip", lengths)
    small_clip = TinyClipConfig(
        text_width=WIDTH,
        text_layers=2,
        text_heads=2,
        text_ff=32,
        vision_width=16,
        vision_layers=1,
        vision_heads=2,
        vision_ff=32,
        image_size_px=16,
        patch_px=8,
        projection=WIDTH,
    )
    save_clip(build_clip(small_clip, clip), clip, folder / "clip")
    base, large = tiny_network(), tiny_network(LowRes(scale=2))
    for seed, (name, network) in enumerate({"base": base, "sr16": large}.items()):
        state = tiny_unet(network, seed).state_dict()
        save_denoiser(folder / name, state, DenoiserConfig(network=network))
    quick = StageSettings(steps=3)
    assemble(
        folder,
        name="tiny",
        stages=[
            StageEntry(name="base", folder="base", size=8, settings=quick),
            StageEntry(
                name="sr16",
                folder="sr16",
                size=16,
                low_res_from="base",
                settings=replace(quick, steps=2, low_res_sigma=0.1),
            ),
        ],
        encoders={"t5": "t5", "clip": "clip"},
    )
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model on disk, to be read only."""
    return write_tiny_model(tmp_path_factory.mktemp("model"))
