"""Training an imported model further: the recipe, and its own network, objective, encoders and latents."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from bottega.checkpoint import load_manifest
from bottega.checkpoint.ensemble import is_ensemble
from bottega.conditioning import Encoders
from bottega.diffusion import TimestepPlan
from bottega.diffusion.denoiser import parameter_dtype
from bottega.ensemble import probability_intervals
from bottega.errors import CheckpointError, ConfigError, nearest
from bottega.models import UNet
from bottega.pipelines.cascade import (
    CascadeManifest,
    StageEntry,
    read_manifest,
    verify_files,
)
from bottega.pipelines.opening import Opener, plan_in
from bottega.pipelines.residency import Residency
from bottega.pipelines.stored import DenoiserConfig, denoiser_config, load_timestep_denoiser
from bottega.recipes.experts import with_experts
from bottega.recipes.run import FolderConfig, ImportedTask, RunConfig
from bottega.training import AdamW, Constant, Objective, TrainConfig
from bottega.training.timestep_objective import TimestepObjective


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportedParts:
    """What a run trains, minimises and hears."""

    network: UNet
    objective: Objective
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


@dataclass(frozen=True, kw_only=True)
class ImportedStage:
    """Where the stage that a run trains lies, and what its model folder says of it."""

    place: Path
    manifest: CascadeManifest
    entry: StageEntry

    @property
    def config(self) -> DenoiserConfig:
        """What its denoiser is built from."""
        return denoiser_config(self.place, load_manifest(self.place))

    @property
    def dtype(self) -> torch.dtype:
        """The precision that its weights are stored in."""
        return parameter_dtype(load_timestep_denoiser(self.place)[0], torch.float32)

    @property
    def timestep_plan(self) -> TimestepPlan:
        """The timesteps that it learned."""
        return plan_in(self.place)


def imported_stage(task: ImportedTask) -> ImportedStage:
    """The stage that a run begins with.

    Raises:
        CheckpointError: When the model is damaged, was not imported, or has expert denoisers there already.
        ConfigError: For an unknown stage, or one that enlarges.
    """
    folder = Path(task.model)
    manifest = read_manifest(folder)
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
    place = folder / entry.folder
    if is_ensemble(place):
        raise CheckpointError(
            f"stage {task.stage} of {task.model} is made of expert denoisers; branch from their runs, or train the "
            "model that they grew from"
        )
    return ImportedStage(place=place, manifest=manifest, entry=entry)


def imported_run(model: Path | str, stage: str = "base") -> RunConfig:
    """What a child inherits that is branched from an imported model itself, not from a run.

    Raises:
        CheckpointError: When it is no model that was imported.
        ConfigError: For an unknown stage, or one that enlarges.
    """
    task = ImportedTask(model=str(model), stage=stage)
    return replace(finetune(), size=imported_stage(task).entry.size, task=task)


def imported_parts(config: RunConfig, *, rank: int = 0, world_size: int = 1) -> ImportedParts:
    """The network of a stage, with its own weights and its own loss.

    Raises:
        CheckpointError: When the model is damaged, or was not imported.
        ConfigError: For an unknown stage, one that enlarges, or pictures of another size than the model paints.
    """
    task = config.task
    assert isinstance(task, ImportedTask)  # whoever calls has looked
    known = imported_stage(task)
    manifest, entry = known.manifest, known.entry
    if entry.size != config.size:
        raise ConfigError(
            f"stage {task.stage} paints {entry.size} px: give --set size={entry.size}, got {config.size}"
        )
    verify_files(Path(task.model), manifest)
    denoiser, _ = load_timestep_denoiser(known.place)
    network = cast(UNet, denoiser.network).float().requires_grad_(True)
    network.checkpointing = task.gradient_checkpointing
    stages, encoders = Opener(folder=Path(task.model), residency=Residency()).cascade(manifest)
    stage = next(stage for stage in stages if stage.name == entry.name)
    assert stage.timestep_plan is not None  # every imported stage has them
    if config.buckets is not None:
        config.buckets.check_multiple(stage.multiple)
    objective = TimestepObjective(
        plan=stage.timestep_plan,
        encode=None if stage.space is None else stage.space.encode,
        dropout=task.dropout,
        empty=encoders.condition([""]) if task.dropout > 0 else None,
        numbers=entry.numbers,
        intervals=probability_intervals(task.part, stage.timestep_plan),
        rank=rank,
        world_size=world_size,
    )
    learned = with_experts(objective, network.config, task.balance)
    return ImportedParts(network=network, objective=learned, encoders=encoders)


__all__ = [
    "ImportedParts",
    "ImportedStage",
    "finetune",
    "imported_parts",
    "imported_run",
    "imported_stage",
]
