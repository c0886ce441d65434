"""RAPHAEL on a folder of pictures, and a small one on the drawn world."""

import math
from dataclasses import replace

from bottega.conditioning import ConditionDropout
from bottega.data import Canny
from bottega.data.buckets import Buckets
from bottega.diffusion import EDMPrecond, LogNormal, TimestepPlan
from bottega.models import plans
from bottega.models.raphael_plans import raphael_arms
from bottega.recipes import piccolo
from bottega.recipes.run import DenoiserTask, FolderConfig, LatentSpace, RunConfig
from bottega.training import AdamW, Constant, EmaConfig, TrainConfig
from bottega.training.edge_objective import EdgeSupervision

BELOW_TIMESTEP_500 = 1.615
"""Between the noise of timesteps 499 and 500 of this recipe, 1.613 and 1.618."""

_STEPS = 500_000
_BATCH = 2_000


def raphael() -> RunConfig:
    """RAPHAEL at full size on a folder of pictures: eps at 1000 timesteps, in latents, in nine shapes.

    ``runs/autoencoder`` has to be an AutoencoderKL in diffusers' format, Stable Diffusion's for one; ``task.encoders``
    a folder with OpenCLIP g/14 as ``clip``.

    Source: RAPHAEL (arXiv:2305.18295), section 4 and Table 2: AdamW at 1e-4 without weight decay, 20,000 steps of
    warm-up, batches of 2000, T = 1000, gradient checkpointing, nine shapes. Number of steps, betas, averages and text
    dropout are not stated: ours are half a million, latent diffusion's, a half-life as eDiff-I's, and one in ten. Edges
    are learned below timestep 500, from Canny's where the paper has HED's, whose weights are not at hand everywhere.
    """
    return RunConfig(
        name="raphael",
        data=FolderConfig(path="pictures"),
        size=640,
        buckets=Buckets(multiple=64),
        task=DenoiserTask(
            network=plans.raphael(),
            timestep_plan=TimestepPlan(betas="scaled_linear", beta_start=0.00085, beta_end=0.012),
            latents=LatentSpace(autoencoder="runs/autoencoder", factor=8),
            dropout=ConditionDropout(t5=1.0, clip_text=0.1, clip_image=1.0),
            edges=EdgeSupervision(targets=Canny(), below_sigma=BELOW_TIMESTEP_500),
            gradient_checkpointing=True,
        ),
        train=TrainConfig(
            total_images=_STEPS * _BATCH,
            batch_size=_BATCH,
            microbatch=20,
            learning_rate=1e-4,
            optimizer=AdamW(weight_decay=0.0),
            schedule=Constant(),
            warmup_images=20_000 * _BATCH,
            ema=EmaConfig(stds=(), halflife_images=6_931 * _BATCH, every_images=_BATCH),
            checkpoint_images=1_000 * _BATCH,
        ),
    )


def piccolo_raphael() -> RunConfig:
    """A RAPHAEL of ten million weights, in the latents of `piccolo-autoencoder` for 64 px; hours on two cores.

    Latents have a spread of one where pictures have about a half, so all noise is twice as strong as piccolo's.
    """
    base = piccolo.piccolo_base()
    assert isinstance(base.task, DenoiserTask)
    noise = base.task.noise
    return replace(
        base,
        name="piccolo-raphael",
        size=64,
        task=DenoiserTask(
            network=plans.piccolo_raphael(),
            noise=LogNormal(mean=noise.mean + math.log(2), std=noise.std),
            precond=EDMPrecond(sigma_data=1.0),
            latents=LatentSpace(autoencoder="runs/piccolo-autoencoder", factor=4),
        ),
    )


def lab_raphael() -> RunConfig:
    """The lab's forty things by the small RAPHAEL, in pixels: what experts change can be measured in an hour."""
    return _lab("lab-raphael", "both")


def lab_raphael_time() -> RunConfig:
    """The same without space experts."""
    return _lab("lab-raphael-time", "time")


def lab_raphael_space() -> RunConfig:
    """The same without time experts."""
    return _lab("lab-raphael-space", "space")


def lab_raphael_dense() -> RunConfig:
    """The same with an ordinary feed-forward of about the cost of the experts at work; see `raphael_arms`."""
    return _lab("lab-raphael-dense", "dense")


def _lab(name: str, arm: str) -> RunConfig:
    base = piccolo.lab()
    assert isinstance(base.task, DenoiserTask)
    return replace(base, name=name, task=replace(base.task, network=raphael_arms()[arm]))


__all__ = [
    "BELOW_TIMESTEP_500",
    "lab_raphael",
    "lab_raphael_dense",
    "lab_raphael_space",
    "lab_raphael_time",
    "piccolo_raphael",
    "raphael",
]
