"""Training an imported model further: its own objective, encoders and latents, and a model folder that paints."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bottega.conditioning import Encoders
from bottega.config import to_json
from bottega.errors import CheckpointError, ConfigError, nearest
from bottega.models import UNet
from bottega.pipelines.cascade import (
    CascadeManifest,
    StageEntry,
    assemble,
    read_manifest,
    verify_files,
)
from bottega.pipelines.opening import Opener
from bottega.pipelines.residency import Residency
from bottega.pipelines.stored import DenoiserConfig, load_timestep_denoiser
from bottega.recipes.run import FolderConfig, ImportedTask, RunConfig
from bottega.rundir import RunDir
from bottega.training import AdamW, Constant, TrainConfig
from bottega.training.export import Average, export_ema
from bottega.training.timestep_objective import TimestepObjective


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportedParts:
    """What a run trains, minimises and hears."""

    network: UNet
    objective: TimestepObjective
    encoders: Encoders


def finetune() -> RunConfig:
    """An imported model on pictures of your own, 512 px unless asked otherwise."""
    return RunConfig(
        name="finetune",
        data=FolderConfig(path="pictures"),
        size=512,
        task=ImportedTask(model="model"),
        train=TrainConfig(
            total_images=200_000,
            batch_size=32,
            learning_rate=1e-5,
            schedule=Constant(),
            warmup_images=5_000,
            checkpoint_images=20_000,
            optimizer=AdamW(),
        ),
    )


def imported_parts(config: RunConfig, *, rank: int = 0, world_size: int = 1) -> ImportedParts:
    """The network of a stage, with its own weights and its own loss.

    Raises:
        CheckpointError: When the model is damaged, or was not imported.
        ConfigError: For an unknown stage, one that enlarges, or pictures of another size than the model paints.
    """
    task = _task(config)
    folder = Path(task.model)
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    entry = _entry(manifest, task, config.size)
    denoiser, _ = load_timestep_denoiser(folder / entry.folder)
    network = cast(UNet, denoiser.network).float().requires_grad_(True)
    network.checkpointing = task.gradient_checkpointing
    stages, encoders = Opener(folder=folder, residency=Residency()).cascade(manifest)
    stage = next(stage for stage in stages if stage.name == entry.name)
    assert stage.timestep_plan is not None  # every imported stage has them
    objective = TimestepObjective(
        plan=stage.timestep_plan,
        encode=None if stage.space is None else stage.space.encode,
        dropout=task.dropout,
        empty=encoders.condition([""]) if task.dropout > 0 else None,
        numbers=entry.numbers,
        rank=rank,
        world_size=world_size,
    )
    return ImportedParts(network=network, objective=objective, encoders=encoders)


def export_imported(config: RunConfig, run: RunDir, target: Path, std: Average) -> Path:
    """Write the model anew with the averaged weights of the run in place of the stage it began with."""
    task = _task(config)
    folder = Path(task.model)
    manifest = read_manifest(folder)
    entry = _entry(manifest, task, config.size)
    denoiser, _ = load_timestep_denoiser(folder / entry.folder)
    network = cast(UNet, denoiser.network)
    building = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        shutil.rmtree(building, ignore_errors=True)
        shutil.copytree(folder, building)
        shutil.rmtree(building / entry.folder)
        plan = Opener(folder=folder, residency=Residency()).cascade(manifest)[0][0].timestep_plan
        stored = DenoiserConfig(network=network.config, timestep_plan=plan)
        export_ema(
            run, building / entry.folder, std=std, config=to_json(stored), dtype=network.dtype
        )
        assemble(
            building,
            name=manifest.name,
            stages=manifest.stages,
            encoders=manifest.encoders,
            judge=manifest.judge,
            parts=manifest.parts,
        )
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _task(config: RunConfig) -> ImportedTask:
    assert isinstance(config.task, ImportedTask)  # whoever calls has looked
    return config.task


def _entry(manifest: CascadeManifest, task: ImportedTask, size: int) -> StageEntry:
    if manifest.parts is None:
        raise CheckpointError(
            f"{task.model} was not imported from diffusers; train models of ours with their own recipes"
        )
    names = [stage.name for stage in manifest.stages]
    if task.stage not in names:
        raise ConfigError(f"{task.model} has no stage {task.stage!r}{nearest(task.stage, names)}")
    entry = manifest.stages[names.index(task.stage)]
    if entry.low_res_from is not None:
        raise ConfigError(
            f"stage {task.stage} enlarges pictures; only stages that do not can be trained further"
        )
    if entry.size != size:
        raise ConfigError(
            f"stage {task.stage} paints {entry.size} px: give --set size={entry.size}, got {size}"
        )
    return entry


__all__ = ["ImportedParts", "export_imported", "finetune", "imported_parts"]
