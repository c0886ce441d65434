"""How an autoencoder is trained, and how it leaves the run as a folder that diffusers reads too."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from bottega.checkpoint import load_manifest
from bottega.data import Batch
from bottega.data.emoji_world import EmojiWorldConfig, SceneMixture
from bottega.journal import Journal
from bottega.models.autoencoder import build_autoencoder
from bottega.pipelines import save_picture, sheet
from bottega.pipelines.latent import Autoencoder, measured_scale, write_autoencoder
from bottega.pipelines.output import to_pictures
from bottega.recipes.compare import averaged
from bottega.recipes.encoders import average_to_ship
from bottega.recipes.piccolo import NUM_THINGS
from bottega.recipes.run import AutoencoderTask, RunConfig
from bottega.recipes.sources import preview_batch
from bottega.rundir import RunDir
from bottega.shapes import Images
from bottega.training import EmaConfig, Linear, Muon, TrainConfig, TrainState
from bottega.training.autoencoder_objective import AutoencoderObjective
from bottega.training.export import averaged_weights, find_checkpoint
from bottega.training.objective import Objective

PREVIEW_IMAGES = 5_000
"""How often an autoencoder shows what it gives back; it learns in minutes."""

_SHOWN = 16
_AT_ONCE = 64


def piccolo_autoencoder() -> RunConfig:
    """Latents of a quarter of the side, with four channels, for 64 px; a quarter of an hour on one core."""
    return RunConfig(
        name="piccolo-autoencoder",
        data=EmojiWorldConfig(num_things=NUM_THINGS, mixture=SceneMixture(style=0.2, tint=0.1)),
        size=64,
        task=AutoencoderTask(),
        train=TrainConfig(
            total_images=40_000,
            batch_size=16,
            learning_rate=2e-3,
            optimizer=Muon(),
            schedule=Linear(start_frac=0.3),
            warmup_images=500,
            checkpoint_images=10_000,
            ema=EmaConfig(stds=(0.05,), every_images=256),
        ),
    )


def autoencoder_parts(config: RunConfig, task: AutoencoderTask) -> tuple[nn.Module, Objective]:
    """The untrained autoencoder of a run and what it minimises; the same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        network = build_autoencoder(task.model, config.size)
    return network, AutoencoderObjective(kl_weight=task.kl_weight, edge_weight=task.edge_weight)


def export_autoencoder(config: RunConfig, run: RunDir, folder: Path) -> Path:
    """Write a run's averaged weights as an AutoencoderKL, with the scale of its latents, measured.

    The journal is told the scale, and how far what it gives back is from unseen pictures.
    """
    task = config.task
    assert isinstance(task, AutoencoderTask)  # the caller chose by task
    checkpoint = find_checkpoint(run)
    tensors = averaged_weights(checkpoint, average_to_ship(config.train))
    # What is measured is what will be read: the weights with the digits that are written.
    tensors = {name: tensor.to(torch.bfloat16).float() for name, tensor in tensors.items()}
    module = build_autoencoder(task.model, config.size)
    module.load_state_dict(tensors, strict=True)
    module.eval().requires_grad_(False)
    pictures = preview_batch(config, task.scale_pictures)
    shift, scale = measured_scale(module, _pieces(pictures))
    space = Autoencoder(
        module=lambda: module,
        channels=task.model.latent_channels,
        factor=task.model.factor,
        scale=scale,
        shift=shift,
    )
    quality = signal_to_noise(space, _pieces(pictures))
    settings = task.model.settings(config.size)
    write_autoencoder(folder, settings, tensors, scale=scale, shift=shift)
    record = {"event": "latents", "scale": scale, "shift": shift, "psnr_db": quality}
    seen = load_manifest(checkpoint).images_seen
    Journal(run.journal).append({"images_seen": seen, **record})
    return folder


def signal_to_noise(space: Autoencoder, batches: Iterable[Images]) -> float:
    """How near pictures come back from latents, as the peak signal-to-noise ratio over all of them, in decibels.

    It is of pictures as one sees them: values outside [-1, 1] are clipped. 6 more are half the error.
    """
    squares, count = 0.0, 0
    for images in batches:
        error = space.decode(space.encode(images)).clamp(-1, 1) - images
        squares += float(error.double().square().sum())
        count += error.numel()
    mean = torch.tensor(max(squares, 1e-12) / count, dtype=torch.float64)
    return float(10 * torch.log10(4 / mean))  # the peak is the range from -1 to 1


class Reconstructions:
    """Sheets of unseen pictures, each with what comes back of it under it."""

    def __init__(self, config: RunConfig) -> None:
        """Show the autoencoder of a run."""
        self._config = config

    def __call__(self, state: TrainState, target: Path) -> None:
        """Write a sheet to ``target``."""
        clean = preview_batch(self._config, _SHOWN).clean().to(state.engine.device)
        columns = min(_SHOWN // 2, len(clean))
        clean = clean[: len(clean) - len(clean) % columns]
        with averaged(state), torch.no_grad():
            given = reconstructed(state.network, clean)
        rows = [
            half
            for pair in zip(clean.split(columns), given.split(columns), strict=True)
            for half in pair
        ]
        save_picture(sheet(to_pictures(torch.cat(rows)), columns=columns), target)


def reconstructed(network: nn.Module, pictures: Images) -> Images:
    """What an autoencoder gives back of pictures, from the mean of their latents, in the type of its weights."""
    inputs = pictures.to(next(network.parameters()).dtype)
    given: Tensor = network(inputs)
    return given.float()


def _pieces(batch: Batch) -> Iterator[Images]:
    """The pictures a few at a time, because as floats all of them might not fit."""
    for pictures in batch.images.split(_AT_ONCE):
        yield pictures.float() / 127.5 - 1


__all__ = [
    "PREVIEW_IMAGES",
    "Reconstructions",
    "autoencoder_parts",
    "export_autoencoder",
    "piccolo_autoencoder",
    "reconstructed",
    "signal_to_noise",
]
