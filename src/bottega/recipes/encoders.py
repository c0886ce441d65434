"""How the small encoders of piccolo are trained, and how they leave the run as Hugging Face folders."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from torch import nn

from bottega.conditioning import build_clip, build_t5, save_clip, save_t5, train_tokenizer
from bottega.conditioning.pictures import PicturePreparation
from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig
from bottega.data.emoji_world.vocabulary import vocabulary
from bottega.recipes.run import ClipTask, RunConfig, T5Task
from bottega.rundir import RunDir
from bottega.training import TrainConfig
from bottega.training.encoder_objectives import ClipContrast, SpanCorruption
from bottega.training.export import Average, load_ema
from bottega.training.objective import Objective

_TOKENIZER_CAPTIONS = 5_000


def encoder_parts(config: RunConfig, task: T5Task | ClipTask) -> tuple[nn.Module, Objective, Any]:
    """The network of an encoder recipe, what it minimises, and its tokenizer; all functions of ``config``."""
    kind = "t5" if isinstance(task, T5Task) else "clip"
    tokenizer = train_tokenizer(_reading(config), kind, task.tokenizer)
    seed = config.train.seed
    if isinstance(task, T5Task):
        network = build_t5(task.model, tokenizer, seed=seed)
        return network, SpanCorruption(tokenizer, texts=tuple(_words())), tokenizer
    network = build_clip(task.model, tokenizer, seed=seed)
    return network, ClipContrast(tokenizer, _preparation(task.model.image_size_px)), tokenizer


def export_encoder(config: RunConfig, run: RunDir, folder: Path) -> Path:
    """Write the run's averaged weights as a Hugging Face folder that `bottega.conditioning` loads."""
    task = config.task
    assert isinstance(task, (T5Task, ClipTask))  # the caller chose by task
    network, _, tokenizer = encoder_parts(config, task)
    load_ema(network, run, std=average_to_ship(config.train))
    save = save_t5 if isinstance(task, T5Task) else save_clip
    save(network, tokenizer, folder)
    return folder


def average_to_ship(config: TrainConfig) -> Average:
    """Which average of the weights a run exports: the first that it keeps."""
    if config.ema.stds:
        return config.ema.stds[0]
    return None if config.ema.halflife_images is None else "halflife"


def _preparation(size: int) -> PicturePreparation:
    return PicturePreparation(image_size_px=size)


def _reading(config: RunConfig) -> Iterator[str]:
    """What a tokenizer learns from: captions of the world, and every name and keyword there is."""
    assert isinstance(config.data, EmojiWorldConfig)  # RunConfig refuses an encoder on a folder
    world = EmojiWorld(config.data)
    captions = (world[i].caption for i in range(_TOKENIZER_CAPTIONS))
    return chain(captions, _words())


def _words() -> Iterator[str]:
    for thing in vocabulary("full"):
        yield from (thing.name, *thing.synonyms, *thing.keywords)


__all__ = ["average_to_ship", "encoder_parts", "export_encoder"]
