"""Denoisers of a few thousand weights that train for a moment, on encoders that have learned nothing."""

import dataclasses
import json
from pathlib import Path

from tiny_model import tiny_network

from bottega.config import to_json
from bottega.data.emoji_world import EmojiWorldConfig
from bottega.models.unet_config import LowRes
from bottega.recipes import RunConfig, recipe
from bottega.recipes.run import DenoiserTask
from bottega.training import EmaConfig

__all__ = ["toy_base", "toy_settings", "toy_sr"]


def toy_base(encoders: Path, images: int = 16) -> RunConfig:
    """An 8 px base."""
    return _toy("piccolo-base", encoders, images, size=8)


def toy_sr(encoders: Path, images: int = 16) -> RunConfig:
    """From 8 to 16 px."""
    return _toy("piccolo-sr", encoders, images, size=16)


def _toy(name: str, encoders: Path, images: int, size: int) -> RunConfig:
    config = recipe(name)
    assert isinstance(config.task, DenoiserTask)
    enlarges = config.task.low_res_size is not None
    task = dataclasses.replace(
        config.task,
        network=tiny_network(LowRes(scale=2) if enlarges else None),
        low_res_size=8 if enlarges else None,
        encoders=str(encoders),
    )
    train = dataclasses.replace(
        config.train,
        total_images=images,
        batch_size=8,
        warmup_images=0,
        checkpoint_images=8,
        precision="fp32",
        ema=EmaConfig(stds=(0.1,), every_images=8),
    )
    lab = recipe(
        "lab"
    ).data  # one thing at a time: captions that the toy's encoders read to the end
    assert isinstance(lab, EmojiWorldConfig)
    data = dataclasses.replace(lab, num_things=4)
    return dataclasses.replace(
        config, size=size, data=data, task=task, train=train, num_examples=16
    )


def toy_settings(config: RunConfig) -> list[str]:
    """The ``--set`` arguments that make a recipe this toy; each is for its recipe alone."""
    facts = to_json(config)
    changed = (
        "data",
        "task",
        "size",
        "train",
        "num_examples",
    )  # sizes fit each other in this order
    pairs = [f"{config.name}:{key}={json.dumps(facts[key])}" for key in changed]
    return [part for pair in pairs for part in ("--set", pair)]
