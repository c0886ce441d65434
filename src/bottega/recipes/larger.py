"""Runs for machines with an accelerator: medio on the drawn world, and the papers' networks on pictures of one's own.

The papers' runs need real encoders: ``--set task.encoders=FOLDER`` with T5-XXL as ``t5`` and CLIP L/14 as ``clip``.
"""

from bottega.conditioning import ConditionDropout
from bottega.data import Degradations
from bottega.data.emoji_world import EmojiWorldConfig
from bottega.diffusion import AugmentationLevels, LogNormal
from bottega.models import UNetConfig, plans
from bottega.models.unet_config import AddSkips, CrossOnly, Level, LowRes, SelfThenCross
from bottega.recipes.run import DenoiserTask, FolderConfig, RunConfig
from bottega.training import Adafactor, AdamW, Constant, Cosine, EmaConfig, TrainConfig

_MEDIO_NOISE = LogNormal(mean=-0.8, std=1.6)
_IMAGEN_DROPOUT = ConditionDropout(t5=0.1, clip_text=1.0, clip_image=1.0)


def medio_base() -> RunConfig:
    """The full vocabulary at 64 px, for one accelerator."""
    return RunConfig(
        name="medio-base",
        data=EmojiWorldConfig(vocabulary="full"),
        size=64,
        num_examples=2_000_000,
        task=DenoiserTask(network=_medio_base_plan(), noise=_MEDIO_NOISE),
        train=TrainConfig(
            total_images=20_000_000,
            batch_size=512,
            learning_rate=1e-3,
            schedule=Cosine(),
            warmup_images=200_000,
            checkpoint_images=200_000,
        ),
    )


def medio_sr() -> RunConfig:
    """The full vocabulary from 64 to 256 px, for one accelerator."""
    return RunConfig(
        name="medio-sr",
        data=EmojiWorldConfig(vocabulary="full"),
        size=256,
        num_examples=500_000,
        task=DenoiserTask(
            network=_medio_sr_plan(),
            low_res_size=64,
            augmentation=AugmentationLevels(),
            degradations=Degradations(),
        ),
        train=TrainConfig(
            total_images=4_000_000,
            batch_size=128,
            learning_rate=1e-3,
            schedule=Cosine(),
            warmup_images=50_000,
            checkpoint_images=100_000,
        ),
    )


def ediffi_base64() -> RunConfig:
    """eDiff-I's base network on a folder of pictures.

    Source: eDiff-I (arXiv:2211.01324), section 5 and Table 7: AdamW at 1e-4 with weight decay .01, batch 2048, 1.9M
    steps, EMA .9999 (a half-life of 6,931 steps). Warm-up and clipping are not stated; ours are NeMo's.
    """
    return _paper_run("ediffi-base64", 64, plans.ediffi_base64(), steps=1_900_000)


def ediffi_sr256() -> RunConfig:
    """eDiff-I's network from 64 to 256 px on a folder of pictures.

    Source: eDiff-I (arXiv:2211.01324), Table 7: 2M steps; section 4.2: small pictures spoilt as Real-ESRGAN does. How
    strongly is not stated: ours are mild. Noise is put on them too, as Imagen has it.
    """
    return _paper_run("ediffi-sr256", 256, plans.ediffi_sr256(), steps=2_000_000)


def ediffi_sr1024() -> RunConfig:
    """eDiff-I's network from 256 to 1024 px, trained on squares of 256 px, on a folder of pictures.

    Source: eDiff-I (arXiv:2211.01324), Table 7: 1.7M steps; section 4.2 for the crops. Small pictures are spoilt as for
    256 px.
    """
    return _paper_run(
        "ediffi-sr1024", 1024, plans.ediffi_sr1024(), steps=1_700_000, low_res_size=256, crop_px=256
    )


def imagen_base64() -> RunConfig:
    """Imagen's base network on a folder of pictures.

    Source: Imagen (arXiv:2205.11487), section 4.1 and appendix F.1: Adafactor at 1e-4, cosine over 2.5M steps, batch
    2048, text dropped for one picture in ten. We train in EDM's form, where the paper predicts eps on a cosine
    schedule.
    """
    return _paper_run("imagen-base64", 64, plans.imagen_base64(), steps=2_500_000, imagen=True)


def imagen_sr256() -> RunConfig:
    """Imagen's network from 64 to 256 px on a folder of pictures.

    Source: Imagen (arXiv:2205.11487), section 4.1 and appendix F.2: Adam, because Adafactor hurt here.
    """
    return _paper_run("imagen-sr256", 256, plans.imagen_sr256(), steps=2_500_000, imagen=True)


def imagen_sr1024() -> RunConfig:
    """Imagen's network from 256 to 1024 px, trained on squares of 256 px, on a folder of pictures.

    Source: Imagen (arXiv:2205.11487), sections 2.5 and 4.1 and appendix F.3.
    """
    return _paper_run(
        "imagen-sr1024",
        1024,
        plans.imagen_sr1024(),
        steps=2_500_000,
        imagen=True,
        low_res_size=256,
        crop_px=256,
    )


def _medio_base_plan() -> UNetConfig:
    return UNetConfig(
        patch=2,
        levels=(
            Level(width=256, stride=1, down_blocks=2, up_blocks=3),
            Level(width=512, down_blocks=3, up_blocks=3, attention=SelfThenCross()),
            Level(width=768, down_blocks=2, up_blocks=3, attention=SelfThenCross()),
        ),
        skips=AddSkips(),
        time_width=768,
        streams=plans.ediffi_streams(256, 256),
        context_width=512,
    )


def _medio_sr_plan() -> UNetConfig:
    return UNetConfig(
        patch=4,
        levels=(
            Level(width=128, stride=1, down_blocks=1, up_blocks=2),
            Level(width=256, down_blocks=2, up_blocks=3),
            Level(width=512, down_blocks=2, up_blocks=3, attention=CrossOnly()),
        ),
        middle=None,
        skips=AddSkips(),
        residual="scaled_sum",
        time_width=512,
        streams=plans.ediffi_streams(256, 256),
        context_width=512,
        low_res=LowRes(scale=4),
    )


def _paper_run(
    name: str,
    size: int,
    network: UNetConfig,
    *,
    steps: int,
    imagen: bool = False,
    low_res_size: int = 64,
    crop_px: int | None = None,
) -> RunConfig:
    batch = 2048
    enlarges = network.low_res is not None
    decay = 0.0 if imagen else 0.01
    return RunConfig(
        name=name,
        data=FolderConfig(path="pictures"),
        size=size,
        task=DenoiserTask(
            network=network,
            dropout=_IMAGEN_DROPOUT if imagen else ConditionDropout(),
            low_res_size=low_res_size if enlarges else None,
            augmentation=AugmentationLevels() if enlarges else None,
            degradations=Degradations() if enlarges and not imagen else None,
            crop_px=crop_px,
            gradient_checkpointing=True,
        ),
        train=TrainConfig(
            total_images=steps * batch,
            batch_size=batch,
            microbatch=32,
            learning_rate=1e-4,
            optimizer=Adafactor() if imagen and not enlarges else AdamW(weight_decay=decay),
            schedule=Cosine() if imagen else Constant(),
            warmup_images=10_000 * batch,
            ema=EmaConfig(stds=(), halflife_images=6_931 * batch, every_images=batch),
            checkpoint_images=1_000 * batch,
        ),
    )


__all__ = [
    "ediffi_base64",
    "ediffi_sr256",
    "ediffi_sr1024",
    "imagen_base64",
    "imagen_sr256",
    "imagen_sr1024",
    "medio_base",
    "medio_sr",
]
