"""Upcycling on disk: a dense denoiser's checkpoint, or a run's, becomes one whose blocks have experts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bottega import config as configs
from bottega.checkpoint import list_checkpoints, load_manifest, load_tensors, save_module
from bottega.checkpoint.ensemble import is_ensemble
from bottega.config import override, to_json
from bottega.errors import ConfigError, InputError
from bottega.models import UNetConfig, count_parameters
from bottega.models.upcycling import Upcycling, upcycled_plan, upcycled_weights
from bottega.pipelines.stored import denoiser_config
from bottega.recipes.branch import START, denoiser_task, read_config, stage_config
from bottega.recipes.encoders import average_to_ship
from bottega.rundir import RunDir
from bottega.training.export import averaged_weights, find_checkpoint


@dataclass(frozen=True, kw_only=True)
class Upcycled:
    """What was written: the denoiser's checkpoint, and whether ``folder`` is a run that can be trained on.

    ``before`` and ``after`` count parameters.
    """

    folder: Path
    is_run: bool
    before: int
    after: int


def upcycle(
    source: Path | str,
    target: Path | str,
    wanted: Upcycling,
    *,
    settings: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Upcycled:
    """Give a dense denoiser experts, without changing what it computes.

    Args:
        source: A denoiser's checkpoint (a stage of a model, an export), or the folder of a run that trained one.
        target: The new checkpoint; of a run, the new run's folder, which begins with its averaged weights.
        wanted: The experts.
        settings: For a run further settings by dotted path, as ``--set`` takes them.
        seed: Of the gates.

    Raises:
        InputError: If the source is neither, or settings were given for a checkpoint.
        ConfigError: If the network has no transformer blocks or has experts, or the target is taken.
        CheckpointError: If weights are missing or damaged.
    """
    source, target = Path(source), Path(target)
    _check_free(target)
    if is_ensemble(source):
        raise InputError(
            f"{source} is an ensemble; give one of its members, which are checkpoints themselves"
        )
    if (source / "config.json").is_file():
        return _upcycle_run(source, target, wanted, {} if settings is None else settings, seed)
    if not (source / "manifest.json").is_file():
        raise InputError(f"{source} is neither a denoiser's checkpoint nor a run")
    if settings:
        raise InputError("--set changes the settings of a run; a checkpoint has none")
    return _upcycle_checkpoint(source, target, wanted, seed)


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
    source: Path, target: Path, wanted: Upcycling, settings: Mapping[str, str], seed: int
) -> Upcycled:
    config = read_config(source)
    task = denoiser_task(config)
    before = stage_config(task)
    plan = upcycled_plan(task.network, wanted)
    checkpoint = find_checkpoint(RunDir(source))
    manifest = load_manifest(checkpoint)
    start = (target / START).resolve()
    task = replace(task, network=plan, start_from=str(start))
    grown = override(replace(config, task=task, branch=None), settings)
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
