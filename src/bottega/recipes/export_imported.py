"""What became of an imported model: a model folder that paints with the weights that a run has trained."""

import os
import shutil
from pathlib import Path

from bottega.checkpoint.ensemble import ENSEMBLE, read_ensemble
from bottega.config import to_json
from bottega.pipelines.cascade import assemble
from bottega.recipes.branch import ensemble_of, file_run
from bottega.recipes.finetune import imported_stage
from bottega.recipes.run import ImportedTask, RunConfig
from bottega.rundir import RunDir
from bottega.training.export import Average, export_ema


def export_imported(config: RunConfig, run: RunDir, target: Path, std: Average) -> Path:
    """Write the model anew with the averaged weights of the run in place of the stage it began with.

    A child takes its place among the expert denoisers that have been filed so far, and all of them paint.
    """
    task = config.task
    assert isinstance(task, ImportedTask)  # whoever calls has looked
    stage = imported_stage(task)
    building = target.with_name(f".{target.name}.writing-{os.getpid()}")
    place = building / stage.entry.folder
    try:
        shutil.rmtree(building, ignore_errors=True)
        shutil.copytree(Path(task.model), building)
        shutil.rmtree(place)
        if config.branch is None:
            stored = to_json(stage.config)
            export_ema(run, place, std=std, config=stored, dtype=stage.dtype)
        else:
            _gather(config, run, place)
        assemble(
            building,
            name=stage.manifest.name,
            stages=stage.manifest.stages,
            encoders=stage.manifest.encoders,
            judge=stage.manifest.judge,
            parts=stage.manifest.parts,
        )
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _gather(config: RunConfig, run: RunDir, place: Path) -> None:
    """The child's ensemble with the child in it: the family tree, and the weights of those that paint."""
    home = ensemble_of(config, run.path)
    place.mkdir()
    shutil.copy(home / ENSEMBLE, place / ENSEMBLE)
    own = file_run(config, run, place)
    for member, _ in read_ensemble(place).painting():
        if member.part != own.part:
            shutil.copytree(home / member.folder, place / member.folder)
    (place / ".lock").unlink()


__all__ = ["export_imported"]
