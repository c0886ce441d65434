"""From finished runs to a model folder that paints: what they exported, gathered under one manifest."""

import os
import shutil
from pathlib import Path

from bottega.errors import CheckpointError
from bottega.pipelines import (
    CascadeManifest,
    StageEntry,
    StageSettings,
    assemble,
    load_stages,
    read_manifest,
)

_PARTS = {
    "t5": "piccolo-t5",
    "clip": "piccolo-clip",
    "base": "piccolo-base",
    "sr128": "piccolo-sr",
    "judge": "piccolo-judge",
}

BASE_SETTINGS = StageSettings(steps=24, guidance_scale=3.0)
SR_SETTINGS = StageSettings(steps=12, guidance_scale=1.5, low_res_sigma=0.1)


def ship_piccolo(runs: Path | str, target: Path | str) -> CascadeManifest:
    """Gather the exports of piccolo's five runs into a model folder.

    The model is put together beside ``target`` and takes its place when it is whole and its stages have been loaded.

    Args:
        runs: Holds the run folders ``piccolo-t5``, ``piccolo-clip``, ``piccolo-base``, ``piccolo-sr`` and
            ``piccolo-judge``.
        target: The model folder; the parts of a model that is there already are replaced.

    Raises:
        CheckpointError: When a run has exported nothing yet, or nothing that fits; when ``target`` holds something
            that is no model, or cannot be written.
    """
    runs, target = Path(runs), Path(target)
    missing = [run for run in _PARTS.values() if not (runs / run / "export").is_dir()]
    if missing:
        raise CheckpointError(
            f"{runs} lacks finished runs of {', '.join(missing)}: train them with bottega train RECIPE"
        )
    _refuse_foreign(target)
    building = target.resolve().parent / f".{target.resolve().name}.building-{os.getpid()}"
    try:
        building.mkdir(parents=True)
        for part, run in _PARTS.items():
            shutil.copytree(runs / run / "export", building / part)
        manifest = _described(building)
        load_stages(building, manifest)
        _put_in_place(building, target)
    except OSError as error:
        raise CheckpointError(f"cannot write the model {target}: {error}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return manifest


def _described(folder: Path) -> CascadeManifest:
    stages = (
        StageEntry(name="base", folder="base", size=32, settings=BASE_SETTINGS),
        StageEntry(
            name="sr128", folder="sr128", size=128, low_res_from="base", settings=SR_SETTINGS
        ),
    )
    encoders = {"t5": "t5", "clip": "clip"}
    return assemble(folder, name="piccolo", stages=stages, encoders=encoders, judge="judge")


def _refuse_foreign(target: Path) -> None:
    """Replace parts of a model only: another folder may hold a ``base`` or a ``t5`` that somebody needs."""
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"cannot write the model {target}: it is a file")
    if (target / "manifest.json").exists():
        read_manifest(target)
        return
    in_the_way = [part for part in _PARTS if (target / part).exists()]
    if in_the_way:
        raise CheckpointError(
            f"{target} is no model, but holds {', '.join(in_the_way)}, which would be replaced; choose another folder"
        )


def _put_in_place(building: Path, target: Path) -> None:
    """The manifest comes last: whoever stops in the middle leaves digests that refuse the mixture."""
    if not target.exists():
        building.rename(target)
        return
    for part in _PARTS:
        if (target / part).exists():
            shutil.rmtree(target / part)
        (building / part).rename(target / part)
    (building / "manifest.json").replace(target / "manifest.json")


__all__ = ["BASE_SETTINGS", "SR_SETTINGS", "ship_piccolo"]
