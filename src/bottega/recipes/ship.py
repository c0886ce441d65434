"""From finished runs to a model folder that paints: what they exported, gathered under one manifest."""

import shutil
from pathlib import Path

from bottega.errors import CheckpointError
from bottega.pipelines import CascadeManifest, StageEntry, StageSettings, assemble

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

    Args:
        runs: Holds the run folders ``piccolo-t5``, ``piccolo-clip``, ``piccolo-base``, ``piccolo-sr`` and
            ``piccolo-judge``.
        target: The model folder; parts that are there already are replaced.

    Raises:
        CheckpointError: When a run has exported nothing yet.
    """
    runs, target = Path(runs), Path(target)
    missing = [run for run in _PARTS.values() if not (runs / run / "export").is_dir()]
    if missing:
        raise CheckpointError(
            f"{runs} lacks finished runs of {', '.join(missing)}: train them with bottega train RECIPE"
        )
    target.mkdir(parents=True, exist_ok=True)
    for part, run in _PARTS.items():
        shutil.rmtree(target / part, ignore_errors=True)
        shutil.copytree(runs / run / "export", target / part)
    stages = (
        StageEntry(name="base", folder="base", size=32, settings=BASE_SETTINGS),
        StageEntry(
            name="sr128", folder="sr128", size=128, low_res_from="base", settings=SR_SETTINGS
        ),
    )
    encoders = {"t5": "t5", "clip": "clip"}
    return assemble(target, name="piccolo", stages=stages, encoders=encoders, judge="judge")


__all__ = ["BASE_SETTINGS", "SR_SETTINGS", "ship_piccolo"]
