"""Branching: a child begins with its parent's averaged weights and learns only its own part of the noise.

A child's run is a folder like any other. It holds its weights of the first moment in ``start``, so that nothing that
happens to the parent afterwards can change what the child grew from. A parent is a run, or an imported model as it is.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, bfloat16, nn

from bottega import config as configs
from bottega import seeding
from bottega.checkpoint import (
    Manifest,
    list_checkpoints,
    load_manifest,
    load_module,
    load_tensors,
    save_module,
)
from bottega.checkpoint.ensemble import (
    Member,
    check_parent,
    file_member,
    folder_for,
    is_ensemble,
    read_ensemble,
)
from bottega.checkpoint.standing import is_within
from bottega.config import from_json, override, to_json
from bottega.diffusion import TrainingNoise
from bottega.ensemble import Part, parse_part, sigma_bounds
from bottega.errors import CheckpointError, ConfigError, InputError
from bottega.pipelines import DenoiserConfig
from bottega.recipes.encoders import average_to_ship
from bottega.recipes.finetune import imported_run, imported_stage
from bottega.recipes.run import Branch, DenoiserTask, ImportedTask, RunConfig
from bottega.rundir import RunDir
from bottega.training.export import averaged_weights, export_ema, find_checkpoint

START = "start"
"""The folder of a child's run in which its first weights lie."""

SHARE_OF_ROOT = 0.1
"""How long a child of the root trains unless told otherwise, as a share of the root's own length: eDiff-I's Figure 7
has 50k steps after 500k."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """A run that is ready to train: its settings and its folder, and the ensemble that it belongs to."""

    config: RunConfig
    run: Path
    ensemble: Path


def read_config(folder: Path | str) -> RunConfig:
    """The settings of a run.

    Raises:
        InputError: If there is no run in the folder.
        ConfigError: If its settings are damaged.
    """
    path = Path(folder) / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = ""
        if (Path(folder) / "model_index.json").is_file():
            hint = f"; import it first: bottega import {folder} MODEL"
        raise InputError(f"{folder} is not a run: it holds no config.json{hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged: {error}; choose another folder") from None
    return from_json(RunConfig, data, where=str(path))


def denoiser_task(config: RunConfig) -> DenoiserTask:
    """What a run learns, if it is a denoiser.

    Raises:
        InputError: If it is anything else.
    """
    if not isinstance(config.task, DenoiserTask):
        raise InputError(f"{config.name} trains no denoiser; only denoisers have expert denoisers")
    return config.task


def branching_task(config: RunConfig) -> DenoiserTask | ImportedTask:
    """The same for a denoiser of ours or an imported one."""
    return config.task if isinstance(config.task, ImportedTask) else denoiser_task(config)


def stage_config(task: DenoiserTask | ImportedTask) -> DenoiserConfig:
    """What a denoiser's checkpoint says it is built from."""
    if isinstance(task, ImportedTask):
        return imported_stage(task).config
    return DenoiserConfig(
        network=task.network,
        precond=task.precond,
        noise=task.noise,
        timestep_plan=task.timestep_plan,
    )


def parent_config(parent: Path | str) -> RunConfig:
    """The settings that a child inherits: those of a run, or for an imported model those of the recipe ``finetune``.

    Raises:
        InputError: If there is neither in the folder.
        ConfigError: If settings are damaged.
        CheckpointError: If it is a model that was not imported.
    """
    is_model = not _is_run(parent) and (Path(parent) / "manifest.json").is_file()
    return imported_run(parent) if is_model else read_config(parent)


def begin_child(
    parent: Path | str,
    part: Part | str,
    run: Path | str | None = None,
    *,
    ensemble: Path | str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Child:
    """Make a child's run folder: its settings, and its parent's averaged weights to begin with.

    The parent is filed in the ensemble first, where it stands in for all children that are still missing.

    Args:
        parent: The run folder of a denoiser, which may be a child itself, or the folder of an imported model.
        part: The noise that the child is to learn; inside the parent's own.
        run: The child's folder; beside the parent's by default.
        ensemble: The ensemble's folder; the parent's own, or one beside the run at the root, by default.
        settings: Further settings by dotted path, as ``--set`` takes them.

    Raises:
        InputError: If the part is not below the parent's.
        ConfigError: For settings that make no sense, or a folder that holds a run already.
        CheckpointError: If the parent has no whole checkpoint, or the ensemble holds another parent.
    """
    child = plan_child(parent, part, run, ensemble=ensemble, settings=settings)
    if (child.run / "config.json").exists() or list_checkpoints(child.run / "checkpoints"):
        raise ConfigError(
            f"{child.run} already holds a run: go on with bottega train --resume --run {child.run}, or choose "
            "another folder"
        )
    task = branching_task(child.config)
    member, weights = _filed_parent(Path(parent), child.ensemble)
    branch = Branch(
        ensemble=os.path.relpath(child.ensemble, child.run),
        parent_part=member.part,
        parent=member.digest,
    )
    config = replace(child.config, branch=branch)
    folder = RunDir(child.run)
    save_module(
        child.run / START,
        weights,
        kind="denoiser",
        config=to_json(stage_config(task)),
        images_seen=member.images_seen,
        parent=member.digest,
        node=str(task.part),
    )
    folder.write_text("config.json", configs.dumps(config))
    return replace(child, config=config)


def plan_child(
    parent: Path | str,
    part: Part | str,
    run: Path | str | None = None,
    *,
    ensemble: Path | str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Child:
    """What `begin_child` would make, with everything checked and nothing written."""
    parent = Path(parent)
    config = parent_config(parent)
    task = branching_task(config)
    own = parse_part(part) if isinstance(part, str) else part
    if not is_within(own, task.part, stage_config(task).training_noise):
        raise InputError(
            f"{own} is not below {task.part}, which {parent} learned; branch it from a run whose noise holds all of it"
        )
    if run is None:
        stem = parent.name.removesuffix(f"-{folder_for(str(task.part))}")
        run = parent.with_name(f"{stem}-{folder_for(str(own))}")
    home = ensemble_of(config, parent) if ensemble is None else Path(ensemble)
    seen: int | None = None
    if _is_run(parent):
        seen = load_manifest(find_checkpoint(RunDir(parent))).images_seen
        if config.branch is not None and is_ensemble(home):
            seen += read_ensemble(home).path_images(config.branch.parent_part)
    child = child_config(config, own, {} if settings is None else settings, seen=seen)
    return Child(config=child, run=Path(run), ensemble=home)


def _is_run(folder: Path | str) -> bool:
    return (Path(folder) / "config.json").is_file()


def _filed_parent(parent: Path, ensemble: Path) -> tuple[Member, dict[str, Tensor]]:
    """The parent as a member of the ensemble, and the weights that its children begin with."""
    config = parent_config(parent)
    if _is_run(parent):
        weights = averaged_weights(find_checkpoint(RunDir(parent)), average_to_ship(config.train))
        return file_run(config, RunDir(parent), ensemble), weights
    task = config.task
    assert isinstance(task, ImportedTask)  # what is no run is an imported model
    stage, part = imported_stage(task), str(task.part)
    weights = load_tensors(stage.place)

    def write(target: Path) -> Manifest:
        built = to_json(stage.config)
        return save_module(target, weights, kind="denoiser", config=built, node=part)

    member = file_member(ensemble, part, write, noise=stage.timestep_plan)
    return member, weights


def child_config(
    parent: RunConfig, part: Part, settings: Mapping[str, str], *, seen: int | None
) -> RunConfig:
    """The settings of a child: its parent's, over a shorter run with a fresh course of the learning rate.

    Its seed is its own, so that it does not meet its parent's pictures in its parent's order again.

    Args:
        parent: The parent's settings.
        part: The child's noise.
        settings: Further settings by dotted path.
        seen: How many images the weights it begins with have seen; its averages go on from there, with a head start
            of at most the child's own length. None for an imported model, which has seen more than any child will.

    Raises:
        ConfigError: If the settings change what the child shares with its parent.
    """
    task, train = branching_task(parent), parent.train
    length = _length(parent, settings, SHARE_OF_ROOT if seen is not None else 1.0)
    short = replace(
        train,
        total_images=length,
        warmup_images=round(train.warmup_images * length / train.total_images),
        checkpoint_images=max(train.batch_size, min(train.checkpoint_images, length)),
        seed=seeding.derive(train.seed, "branch", str(part)) % 2**31,
        ema=replace(
            train.ema,
            head_start_images=length if seen is None else min(seen, length),
            # However short the run, its averages move; else it would be filed as a copy of its parent.
            every_images=min(train.ema.every_images, max(train.batch_size, length // 20)),
        ),
    )
    apart = {"start_from": None} if isinstance(task, DenoiserTask) else {}
    child = replace(
        parent,
        name=f"{parent.name.split('@')[0]}@{part}",
        task=replace(task, part=part, **apart),
        train=short,
        branch=None,
    )
    changed = override(child, settings)
    for path in ("name", "size", "branch", *_FIXED[type(task)]):
        if _at(changed, path) != _at(child, path):
            raise ConfigError(f"{path} cannot be set for a child: it is its parent's, or its place")
    return changed


_FIXED: Mapping[type, tuple[str, ...]] = {
    DenoiserTask: (
        "task.part",
        "task.network",
        "task.noise",
        "task.precond",
        "task.timestep_plan",
        "task.latents",
        "task.low_res_size",
        "task.start_from",
    ),
    ImportedTask: ("task.part", "task.model", "task.stage"),
}
"""What a child shares with its parent, or what its place settles."""


def noise_of(config: RunConfig) -> str:
    """What a run learns, in words: ``9/511, noise above 9.61, 149,952 images``."""
    task = branching_task(config)
    words = noise_in_words(task.part, stage_config(task).training_noise)
    return f"{task.part}, noise {words}, {config.train.total_images:,} images"


def noise_in_words(part: Part, noise: TrainingNoise) -> str:
    """A part's sigmas as a person says them: ``above 9.61``, ``from 0.0757 to 9.61``."""
    pieces: list[str] = []
    for low, high in sigma_bounds(part, noise):
        if high == math.inf:
            pieces.append("of all strengths" if low == 0 else f"above {low:.4g}")
        else:
            pieces.append(f"below {high:.4g}" if low == 0 else f"from {low:.4g} to {high:.4g}")
    return " and ".join(pieces)


def ensemble_of(config: RunConfig, run: Path | str) -> Path:
    """The folder of the ensemble that a run belongs to, or would if it were branched from."""
    run = Path(run)
    if config.branch is None:
        return run.with_name(f"{run.name}-ensemble")
    return Path(os.path.normpath(run / config.branch.ensemble))


def load_start(network: nn.Module, config: RunConfig, run: RunDir) -> Manifest:
    """Fill a child's network with the weights it begins with.

    Raises:
        CheckpointError: If they are damaged, or the child's, its ensemble's and its own word of its parent differ.
    """
    branch = config.branch
    assert branch is not None  # the caller asked whether it is a child
    manifest = load_manifest(run.path / START)
    if manifest.parent != branch.parent:
        raise CheckpointError(
            f"{run.path / START} is not what the run says it grew from, a parent with digest {branch.parent[:12]}; "
            "branch again"
        )
    check_parent(ensemble_of(config, run.path), branch.parent_part, branch.parent)
    return load_module(network, run.path / START)


def file_run(config: RunConfig, run: RunDir, ensemble: Path | str) -> Member:
    """File a run's averaged weights in an ensemble, with its parent's digest if it is a child.

    Raises:
        CheckpointError: If its parent is not the one in the ensemble, or it would orphan children of its own.
    """
    task, branch = branching_task(config), config.branch
    dtype = imported_stage(task).dtype if isinstance(task, ImportedTask) else bfloat16

    def write(target: Path) -> Manifest:
        return export_ema(
            run,
            target,
            std=average_to_ship(config.train),
            config=to_json(stage_config(task)),
            dtype=dtype,
            node=str(task.part),
        )

    return file_member(
        ensemble,
        str(task.part),
        write,
        noise=stage_config(task).training_noise,
        parent_part=None if branch is None else branch.parent_part,
        parent=None if branch is None else branch.parent,
    )


def _length(parent: RunConfig, settings: Mapping[str, str], share: float) -> int:
    """How many images a child sees: as told, as its parent where that is a child, or a share of the root's."""
    told = settings.get("train.total_images", "")
    if told.isdecimal():  # whatever else it says, `override` answers in its own words
        return int(told)
    length, batch = parent.train.total_images, parent.train.batch_size
    if parent.branch is None:
        length = round(length * share)
    return max(batch, length - length % batch)


def _at(config: RunConfig, path: str) -> object:
    value: object = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


__all__ = [
    "SHARE_OF_ROOT",
    "START",
    "Child",
    "begin_child",
    "branching_task",
    "child_config",
    "denoiser_task",
    "ensemble_of",
    "file_run",
    "load_start",
    "noise_in_words",
    "noise_of",
    "parent_config",
    "plan_child",
    "read_config",
    "stage_config",
]
