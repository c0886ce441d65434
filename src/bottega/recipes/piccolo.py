"""The runs that make piccolo, the model that ships with bottega; they run in this order on a laptop."""

import math
from dataclasses import replace

from bottega.data.emoji_world import EmojiWorldConfig, SceneMixture
from bottega.diffusion import AugmentationLevels, EDMPrecond, LogNormal
from bottega.evaluation.judge_world import judge_world
from bottega.models.plans import piccolo_base as base_plan
from bottega.models.plans import piccolo_sr as sr_plan
from bottega.recipes.run import (
    ClipTask,
    DenoiserTask,
    JudgeTask,
    LatentSpace,
    RunConfig,
    T5Task,
)
from bottega.training import AdamW, EmaConfig, Linear, Muon, TrainConfig

NUM_THINGS = 100
"""How many things of the core vocabulary version 1 paints."""

_NOISE = LogNormal(mean=-0.5, std=1.3)
"""Small flat pictures decide what they show at higher noise than photographs, for which EDM has -1.2, 1.2."""

_SCENES = SceneMixture(
    single=0.45,
    pair=0.41,
    count=0.06,
    between=0.01,
    corner=0.02,
    sizes=0.02,
    several=0.01,
    words=0.02,
    style=0.04,
    tint=0.04,
    synonym=0.03,
    varied_phrasing=0.25,
    grid=16,
    freedom=0.3,
)
"""What the base sees: mostly plain things in the middle of their places, on whole pixels of the base's patches. It
learns what things look like first; with more pictures than two cores see in an afternoon the room can be widened."""


def piccolo_t5() -> RunConfig:
    """A T5 that has read captions of the whole core vocabulary; about a quarter of an hour on one core."""
    return RunConfig(
        name="piccolo-t5",
        data=EmojiWorldConfig(
            mixture=SceneMixture(single=0.3, pair=0.5, synonym=0.15, long_caption=0.1)
        ),
        size=32,
        task=T5Task(),
        train=TrainConfig(
            total_images=150_016,
            batch_size=64,
            learning_rate=1e-3,
            schedule=Linear(start_frac=0.0),
            warmup_images=20_000,
            checkpoint_images=50_000,
            ema=EmaConfig(stds=(0.05,), every_images=1024),
        ),
    )


def piccolo_clip() -> RunConfig:
    """A CLIP of captions and pictures in every style; about a quarter of an hour on two cores."""
    return RunConfig(
        name="piccolo-clip",
        data=EmojiWorldConfig(
            mixture=SceneMixture(synonym=0.15, style=0.3, tint=0.15, long_caption=0.08)
        ),
        size=64,
        task=ClipTask(),
        train=TrainConfig(
            total_images=400_000,
            batch_size=256,
            learning_rate=1e-3,
            schedule=Linear(start_frac=0.3),
            warmup_images=20_000,
            checkpoint_images=50_000,
            optimizer=AdamW(weight_decay=0.05),
            ema=EmaConfig(stds=(0.05,), every_images=1024),
        ),
    )


def piccolo_judge() -> RunConfig:
    """The judge of piccolo's things; about a quarter of an hour on two cores."""
    return RunConfig(
        name="piccolo-judge",
        data=judge_world(num_things=NUM_THINGS),
        size=64,
        task=JudgeTask(),
        train=TrainConfig(
            total_images=250_000,
            batch_size=64,
            learning_rate=2e-3,
            schedule=Linear(start_frac=0.3),
            warmup_images=10_000,
            checkpoint_images=50_000,
            ema=EmaConfig(stds=(0.05,), every_images=512),
        ),
    )


def piccolo_base() -> RunConfig:
    """The 32 px base in eDiff-I's form; hours on two cores, to be continued with --resume."""
    return RunConfig(
        name="piccolo-base",
        data=EmojiWorldConfig(num_things=NUM_THINGS, mixture=_SCENES),
        size=32,
        num_examples=200_000,
        task=DenoiserTask(network=base_plan(), noise=_NOISE),
        train=TrainConfig(
            total_images=600_000,
            batch_size=64,
            learning_rate=2e-3,
            optimizer=Muon(),
            schedule=Linear(start_frac=0.5),
            warmup_images=10_000,
            checkpoint_images=20_000,
        ),
    )


def piccolo_sr() -> RunConfig:
    """The super-resolution net from 32 to 128 px; an hour on two cores.

    What an enlarged picture lacks has a spread of .12, .14 with noise of .1 on it: the net is preconditioned around the
    enlarged picture, and its noise levels lie where these details are decided.
    """
    return RunConfig(
        name="piccolo-sr",
        data=EmojiWorldConfig(num_things=NUM_THINGS),
        size=128,
        num_examples=50_000,
        task=DenoiserTask(
            network=sr_plan(),
            noise=LogNormal(mean=-1.8, std=1.5),
            precond=EDMPrecond(sigma_data=0.15, around="low_res"),
            low_res_size=32,
            augmentation=AugmentationLevels(max_level=0.2),
        ),
        train=TrainConfig(
            total_images=150_000,
            batch_size=32,
            learning_rate=2e-3,
            optimizer=Muon(),
            schedule=Linear(start_frac=0.5),
            warmup_images=3_000,
            checkpoint_images=5_000,
        ),
    )


def lab() -> RunConfig:
    """Forty things, one at a time: learns something that can be measured in a quarter of an hour on two cores."""
    return RunConfig(
        name="lab",
        data=EmojiWorldConfig(
            num_things=40,
            mixture=SceneMixture(
                single=1.0,
                pair=0.0,
                together=0.0,
                count=0.0,
                between=0.0,
                corner=0.0,
                sizes=0.0,
                several=0.0,
                words=0.0,
                tint=0.0,
                style=0.0,
                grid=16,
                freedom=0.3,
            ),
        ),
        size=32,
        num_examples=50_000,
        task=DenoiserTask(network=base_plan(), noise=_NOISE),
        train=TrainConfig(
            total_images=150_000,
            batch_size=64,
            learning_rate=2e-3,
            optimizer=Muon(),
            schedule=Linear(start_frac=0.4),
            warmup_images=4_000,
            checkpoint_images=10_000,
        ),
    )


def lab_latent() -> RunConfig:
    """The lab at 64 px in the latents of `piccolo-autoencoder`, by the same network at nearly the same cost.

    Latents have a spread of one where pictures have about a half, so all noise is twice as strong.
    """
    base = base_plan()
    return replace(
        lab(),
        name="lab-latent",
        size=64,
        task=DenoiserTask(
            network=replace(base, patch=1, in_channels=4, out_channels=4),
            noise=LogNormal(mean=_NOISE.mean + math.log(2), std=_NOISE.std),
            precond=EDMPrecond(sigma_data=1.0),
            latents=LatentSpace(autoencoder="runs/piccolo-autoencoder", factor=4, cached=True),
        ),
    )


__all__ = [
    "NUM_THINGS",
    "lab",
    "lab_latent",
    "piccolo_base",
    "piccolo_clip",
    "piccolo_judge",
    "piccolo_sr",
    "piccolo_t5",
]
