"""Upcycling on disk: a dense denoiser's checkpoint, a run's or a model's, becomes one whose blocks have experts."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bottega import config as configs
from bottega.checkpoint import list_checkpoints, load_manifest, load_tensors, save_module
from bottega.checkpoint.ensemble import is_ensemble
from bottega.config import override, to_json
from bottega.errors import ConfigError, InputError, nearest
from bottega.models import UNetConfig, count_parameters
from bottega.models.upcycling import Upcycling, upcycled_plan, upcycled_weights
from bottega.pipelines.cascade import (
    KIND,
    MANIFEST,
    SHIPPED,
    CascadeManifest,
    StageEntry,
    assemble,
    find_model,
    read_manifest,
    verify_files,
)
from bottega.pipelines.convert import appearing
from bottega.pipelines.foreign import INDEX
from bottega.pipelines.stored import denoiser_config
from bottega.recipes.branch import START, denoiser_task, read_config, stage_config
from bottega.recipes.encoders import average_to_ship
from bottega.recipes.run import ImportedTask
from bottega.rundir import RunDir, exported
from bottega.training.export import averaged_weights, find_checkpoint


@dataclass(frozen=True, kw_only=True)
class Upcycled:
    """What was written: a denoiser's checkpoint, a run that can be trained on, or a model that paints.

    ``before`` and ``after`` count the denoiser's parameters. ``is_imported`` is for a model of another library.
    """

    folder: Path
    is_run: bool
    before: int
    after: int
    is_model: bool = False
    is_imported: bool = False


def upcycle(
    source: Path | str,
    target: Path | str,
    wanted: Upcycling,
    *,
    stage: str | None = None,
    settings: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Upcycled:
    """Give a dense denoiser experts, without changing what it computes.

    Args:
        source: A denoiser's checkpoint (a stage of a model, an export); the folder of a run that trained one; or a
            model, ours or imported, by folder or name. Of a run that trained an imported model its export is taken.
        target: The new checkpoint; of a run, the new run's folder, which begins with its averaged weights; of a model,
            the new model's, which differs in one stage.
        wanted: The experts.
        stage: Of a model the stage that is to have them; the first one by default.
        settings: For a run further settings by dotted path, as ``--set`` takes them.
        seed: Of the gates.

    Raises:
        InputError: If the source is none of these, or an option is for another kind of source.
        ConfigError: If the network has no transformer blocks or has experts, or the target is taken.
        CheckpointError: If weights are missing or damaged.
    """
    target = Path(target)
    _check_free(target)
    source = _found(source)
    kind = _kind(source)
    if kind is None and (source / "config.json").is_file():
        return _upcycle_run(source, target, wanted, stage, settings, seed)
    if is_ensemble(source):
        raise InputError(
            f"{source} is an ensemble; give one of its members, which are checkpoints themselves"
        )
    if kind is None:
        raise InputError(
            f"{source} is neither a denoiser's checkpoint nor a run nor a model{_hint(source)}"
        )
    if settings:
        raise InputError("--set changes the settings of a run; a checkpoint or a model has none")
    if kind == KIND:
        return _upcycle_model(source, target, wanted, stage, seed)
    _check_stage(source, stage)
    return _upcycle_checkpoint(source, target, wanted, seed)


def _found(source: Path | str) -> Path:
    """The folder that is meant, which may be that of a model that ships with bottega."""
    is_name = str(source) in SHIPPED and not Path(source).exists()
    return find_model(source) if is_name else Path(source)


def _check_stage(source: Path, stage: str | None) -> None:
    if stage is not None:
        raise InputError(f"--stage chooses one of a model's, and {source} is no model")


def _kind(folder: Path) -> str | None:
    """What the manifest in a folder is of; None where there is none, and for a damaged one that of a checkpoint."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _hint(folder: Path) -> str:
    for whole in (folder, folder.parent):
        if (whole / INDEX).is_file():
            return f"; import the model first: bottega import {whole} MODEL"
    return "" if folder.exists() else "; there is no such folder"


def _upcycle_model(
    source: Path, target: Path, wanted: Upcycling, stage: str | None, seed: int
) -> Upcycled:
    manifest = read_manifest(source)
    entry = _chosen(source, manifest, stage)
    place = source / entry.folder
    if is_ensemble(place):
        raise InputError(
            f"stage {entry.name} of {source} is made of expert denoisers, and one denoiser is wanted"
        )
    # before anything is copied
    upcycled_plan(denoiser_config(place, load_manifest(place)).network, wanted)
    verify_files(source, manifest)
    with appearing(target) as building:
        shutil.copytree(source, building, dirs_exist_ok=True)
        shutil.rmtree(building / entry.folder)
        made = _upcycle_checkpoint(place, building / entry.folder, wanted, seed)
        assemble(
            building,
            name=manifest.name,
            stages=manifest.stages,
            encoders=manifest.encoders,
            judge=manifest.judge,
            parts=manifest.parts,
            borrowed=manifest.borrowed,
        )
    imported = manifest.parts is not None
    return replace(made, folder=target, is_model=True, is_imported=imported)


def _chosen(source: Path, manifest: CascadeManifest, name: str | None) -> StageEntry:
    names = [entry.name for entry in manifest.stages]
    if name is not None and name not in names:
        raise InputError(f"{source} has no stage {name!r}{nearest(name, names)}")
    return manifest.stages[0 if name is None else names.index(name)]


def _upcycle_checkpoint(source: Path, target: Path, wanted: Upcycling, seed: int) -> Upcycled:
    manifest = load_manifest(source)
    config = denoiser_config(source, manifest)
    plan = upcycled_plan(config.network, wanted)
    tensors = load_tensors(source, manifest=manifest)
    save_module(
        target,
        upcycled_weights(config.network, tensors, plan, seed=seed),
        kind=manifest.kind,
        config=to_json(replace(config, network=plan)),
        images_seen=manifest.images_seen,
        parent=manifest.digest,
        node=manifest.node,
    )
    return _counted(target, config.network, plan, is_run=False)


def _upcycle_run(
    source: Path,
    target: Path,
    wanted: Upcycling,
    stage: str | None,
    settings: Mapping[str, str] | None,
    seed: int,
) -> Upcycled:
    hint = _hint(source)
    if hint:
        raise InputError(f"{source} is a part of a model of another library{hint}")
    config = read_config(source)
    if isinstance(config.task, ImportedTask):
        model = exported(source)
        if model == source:
            raise InputError(f"{source} has made no model yet; upcycle {config.task.model} itself")
        return upcycle(model, target, wanted, stage=stage, settings=settings, seed=seed)
    _check_stage(source, stage)
    task = denoiser_task(config)
    before = stage_config(task)
    plan = upcycled_plan(task.network, wanted)
    checkpoint = find_checkpoint(RunDir(source))
    manifest = load_manifest(checkpoint)
    start = (target / START).resolve()
    task = replace(task, network=plan, start_from=str(start))
    grown = override(replace(config, task=task, branch=None), {} if settings is None else settings)
    weights = averaged_weights(checkpoint, average_to_ship(config.train))
    save_module(
        start,
        upcycled_weights(before.network, weights, plan, seed=seed),
        kind="denoiser",
        config=to_json(replace(before, network=plan)),
        images_seen=manifest.images_seen,
        parent=manifest.digest,
    )
    RunDir(target).write_text("config.json", configs.dumps(grown))
    return _counted(target, before.network, plan, is_run=True)


def _counted(folder: Path, dense: UNetConfig, plan: UNetConfig, *, is_run: bool) -> Upcycled:
    return Upcycled(
        folder=folder, is_run=is_run, before=count_parameters(dense), after=count_parameters(plan)
    )


def _check_free(target: Path) -> None:
    taken = (target / "config.json").exists() or list_checkpoints(target / "checkpoints")
    if taken or (target / "manifest.json").exists():
        raise ConfigError(f"{target} already holds a run or a checkpoint; choose another folder")


__all__ = ["Upcycled", "upcycle"]
