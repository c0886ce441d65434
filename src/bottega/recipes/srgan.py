"""How an enlarging network is trained, and how it leaves the run: the averaged generator, without its critic."""

from pathlib import Path

import torch

from bottega.checkpoint import load_manifest, save_module
from bottega.config import to_json
from bottega.data.emoji_world import EmojiWorldConfig, SceneMixture
from bottega.errors import CheckpointError
from bottega.evaluation.features import FeatureMaps
from bottega.evaluation.judge import KIND as JUDGE_KIND
from bottega.evaluation.judge import Judge
from bottega.models.srgan import RRDBNetConfig, SrGan, repeat_pixels
from bottega.pipelines import find_model, model_part, read_manifest, save_picture, sheet
from bottega.pipelines.enlarging import ENLARGER, bicubic, load_generator
from bottega.pipelines.output import to_pictures
from bottega.recipes.compare import averaged
from bottega.recipes.encoders import average_to_ship
from bottega.recipes.piccolo import NUM_THINGS
from bottega.recipes.run import EnlargerTask, RunConfig
from bottega.recipes.sources import preview_batch
from bottega.rundir import RunDir, exported
from bottega.training import AdamW, EmaConfig, Linear, PreviewHook, TrainConfig, TrainState
from bottega.training.denoiser_objective import shrink
from bottega.training.export import averaged_weights, find_checkpoint
from bottega.training.objective import Objective
from bottega.training.srgan_objective import FeatureMaps as Features
from bottega.training.srgan_objective import SrGanObjective, SrGanWeights

_PREVIEW_IMAGES = 4_000
_SHOWN = 4
_SHOWN_PX = 256
_GENERATOR = "generator."


def piccolo_srgan() -> RunConfig:
    """Real-ESRGAN's form, small: four times larger, as piccolo's 128 px to 512 px; half an hour on one core.

    It learns on squares of scenes at 256 px, at which the emoji are drawn at about their own size: larger scenes would
    teach it to be as soft as enlarged bitmaps are.
    """
    return RunConfig(
        name="piccolo-srgan",
        data=EmojiWorldConfig(num_things=NUM_THINGS, mixture=SceneMixture(style=0.2, tint=0.1)),
        size=256,
        task=EnlargerTask(
            network=RRDBNetConfig(width=32, num_blocks=4, grow=16),
            discriminator_width=16,
            weights=SrGanWeights(feature=0.5, adversarial=0.05),
            crop_px=96,
        ),
        train=TrainConfig(
            total_images=48_000,
            batch_size=8,
            learning_rate=4e-4,
            optimizer=AdamW(betas=(0.9, 0.99), weight_decay=0.0),
            schedule=Linear(start_frac=0.5),
            warmup_images=800,
            clip_norm=None,
            checkpoint_images=4_000,
            ema=EmaConfig(stds=(0.05,), every_images=128),
        ),
    )


def enlarger_parts(config: RunConfig, task: EnlargerTask) -> tuple[SrGan, Objective]:
    """The network of a run with its critic, and what both minimise; the same weights for the same seed.

    Raises:
        CheckpointError: When the judge, or the enlarger to begin with, is not there or is another.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        network = SrGan(task.network, task.discriminator_width)
    if task.start_from is None:
        repeat_pixels(network.generator)
    else:
        _begin_with(network, task)
    features: Features | None = None
    if task.weights.feature > 0:
        features = FeatureMaps(find_judge(task.judge))
    return network, SrGanObjective(
        weights=task.weights,
        degradations=task.degradations,
        crop_px=task.crop_px,
        features=features,
    )


def find_judge(place: str) -> Judge:
    """The judge in a folder, a run's that trained one, or that of a model, by its folder or by its name.

    Raises:
        CheckpointError: For a model without one, and a folder that is neither.
    """
    folder = exported(place) if Path(place).is_dir() else find_model(place)
    try:
        manifest = read_manifest(folder)
    except CheckpointError:  # no model: then a judge, or whatever its own error calls it
        return Judge.load(folder)
    if manifest.judge is None:
        raise CheckpointError(f"{place} comes without a {JUDGE_KIND}; name a model that has one")
    return Judge.load(model_part(folder, manifest, manifest.judge))


def _begin_with(network: SrGan, task: EnlargerTask) -> None:
    assert task.start_from is not None  # the caller asked
    given, _ = load_generator(task.start_from)
    if given.config != task.network:
        raise CheckpointError(
            f"{task.start_from} holds {given.config}, but task.network is {task.network}; make them alike"
        )
    network.generator.load_state_dict(given.state_dict())


def export_enlarger(config: RunConfig, run: RunDir, folder: Path) -> Path:
    """Write the averaged generator of a run as a checkpoint that `bottega enlarge` takes."""
    task = config.task
    assert isinstance(task, EnlargerTask)  # the caller chose by task
    checkpoint = find_checkpoint(run)
    manifest = load_manifest(checkpoint)
    std = average_to_ship(config.train)
    weights = averaged_weights(checkpoint, std)
    save_module(
        folder,
        {n.removeprefix(_GENERATOR): w for n, w in weights.items() if n.startswith(_GENERATOR)},
        kind=ENLARGER,
        config=to_json(task.network),
        images_seen=manifest.images_seen,
        dtype=torch.bfloat16,
        name=ENLARGER,
        parent=manifest.digest,
        extra={"ema": std},
    )
    return folder


def enlarger_preview(config: RunConfig) -> PreviewHook:
    """Shows on the way what the network of a run makes of unseen pictures."""
    return PreviewHook(EnlargedPreview(config), every_images=_PREVIEW_IMAGES)


class EnlargedPreview:
    """Sheets of unseen pictures: enlarged bicubically, by the averaged network, and as they really are."""

    def __init__(self, config: RunConfig) -> None:
        """Show the network of a run at work."""
        self._config = config

    def __call__(self, state: TrainState, target: Path) -> None:
        """Write a sheet to ``target``."""
        network = state.network
        assert isinstance(network, SrGan)  # built by `enlarger_parts`
        real = preview_batch(self._config, _SHOWN).clean()
        scale = network.generator.config.scale
        low_res = shrink(real, real.shape[-1] // scale)
        with averaged(state), torch.no_grad():
            made = network.generator(low_res.to(state.engine.device)).cpu()
        rows = zip(bicubic(low_res, scale), made, real, strict=True)
        middle = [_middle(image) for row in rows for image in row]
        captions = ["bicubic", "enlarged", "real"] * len(real)
        save_picture(sheet(to_pictures(torch.stack(middle)), 3, captions), target)


def _middle(image: torch.Tensor) -> torch.Tensor:
    """The middle of a picture too large for a sheet."""
    top, left = (max(0, (side - _SHOWN_PX) // 2) for side in image.shape[-2:])
    return image[:, top : top + _SHOWN_PX, left : left + _SHOWN_PX]


__all__ = [
    "EnlargedPreview",
    "enlarger_parts",
    "enlarger_preview",
    "export_enlarger",
    "find_judge",
    "piccolo_srgan",
]
