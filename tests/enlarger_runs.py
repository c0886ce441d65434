"""An enlarger of a few hundred weights and a judge that has learned nothing, for tests of what is built on them."""

import dataclasses
from pathlib import Path

import torch

from bottega.data.emoji_world import EmojiWorldConfig
from bottega.evaluation.judge import Judge
from bottega.evaluation.judge_network import JudgeConfig, JudgeNetwork
from bottega.evaluation.judge_world import judge_config
from bottega.models.srgan import RRDBNetConfig
from bottega.recipes import RunConfig, recipe
from bottega.recipes.run import EnlargerTask
from bottega.training import EmaConfig

__all__ = ["toy_enlarger", "write_toy_judge"]


def write_toy_judge(folder: Path) -> Path:
    """Sixteen pixels is all that it looks at."""
    config = judge_config(EmojiWorldConfig(num_things=4))
    torch.manual_seed(0)
    small = JudgeConfig(**{**vars(config), "widths": (16, 16, 16), "size_px": 16})
    Judge(JudgeNetwork(small)).save(folder)
    return folder


def toy_enlarger(judge: Path, images: int = 16, **task: object) -> RunConfig:
    """From 8 px to 32, learned on squares of 16."""
    config = recipe("piccolo-srgan")
    assert isinstance(config.task, EnlargerTask)
    settings = {
        "network": RRDBNetConfig(width=4, num_blocks=1, grow=2),
        "discriminator_width": 2,
        "crop_px": 16,
        "judge": str(judge),
        **task,
    }
    return dataclasses.replace(
        config,
        size=32,
        data=dataclasses.replace(config.data, num_things=4),
        task=dataclasses.replace(config.task, **settings),
        train=dataclasses.replace(
            config.train,
            total_images=images,
            batch_size=8,
            warmup_images=0,
            checkpoint_images=8,
            precision="fp32",
            ema=EmaConfig(stds=(0.1,), every_images=8),
        ),
    )
