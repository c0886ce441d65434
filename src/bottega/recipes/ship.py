"""From finished runs to a model folder that paints: what they exported, gathered under one manifest."""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bottega.checkpoint.ensemble import ENSEMBLE, is_ensemble, read_ensemble
from bottega.diffusion import Static
from bottega.errors import CheckpointError, InputError, nearest
from bottega.pipelines import (
    MANIFEST,
    SHIPPED,
    CascadeManifest,
    StageEntry,
    StageSettings,
    assemble,
    file_digests,
    find_model,
    load_stages,
    model_part,
    read_manifest,
)
from bottega.recipes.branch import denoiser_task, ensemble_of, read_config
from bottega.recipes.denoisers import settings_for
from bottega.recipes.execute import PLAN, is_filed
from bottega.recipes.latents import autoencoder_folder
from bottega.recipes.programme import read_plan
from bottega.recipes.run import RunConfig
from bottega.recipes.train import encoder_folders

_PARTS = {
    "t5": "piccolo-t5",
    "clip": "piccolo-clip",
    "base": "piccolo-base",
    "sr128": "piccolo-sr",
    "judge": "piccolo-judge",
}

AUTOENCODER = "autoencoder"
"""The folder of a model in which its autoencoder lies."""

# Flat colours lie at the very ends of [-1, 1], where dynamic thresholding would grey them: hence static.
BASE_SETTINGS = StageSettings(
    steps=32,
    sampler="euler_ancestral",
    guidance_scale=3.0,
    sigma_min=0.02,
    sigma_max=40.0,
    rho=5.0,
    thresholding=Static(),
)
SR_SETTINGS = StageSettings(
    steps=8,
    guidance_scale=1.0,
    sigma_min=0.005,
    sigma_max=5.0,
    thresholding=Static(),
    low_res_sigma=0.05,
)


def ship_piccolo(runs: Path | str, target: Path | str) -> CascadeManifest:
    """Gather the exports of piccolo's five runs into a model folder.

    A denoiser that was branched is taken as the ensemble that it has become. The model is put together beside
    ``target`` and takes its place when it is whole and its stages have been loaded.

    Args:
        runs: Holds the run folders ``piccolo-t5``, ``piccolo-clip``, ``piccolo-base``, ``piccolo-sr`` and
            ``piccolo-judge``, and perhaps ``piccolo-base-ensemble`` or ``piccolo-sr-ensemble``.
        target: The model folder; the parts of a model that is there already are replaced.

    Raises:
        CheckpointError: When a run has exported nothing yet, or nothing that fits; when ``target`` holds something
            that is no model, or cannot be written.
    """
    runs = Path(runs)
    parts = {part: _newest(runs / run, runs / f"{run}-ensemble") for part, run in _PARTS.items()}
    missing = [run for part, run in _PARTS.items() if not parts[part].is_dir()]
    if missing:
        raise CheckpointError(
            f"{runs} lacks finished runs of {', '.join(missing)}: train them with bottega train RECIPE"
        )
    stages = (
        StageEntry(name="base", folder="base", size=32, settings=BASE_SETTINGS),
        StageEntry(
            name="sr128", folder="sr128", size=128, low_res_from="base", settings=SR_SETTINGS
        ),
    )
    return _gather(Path(target), "piccolo", stages, parts)


def ship_programme(
    folder: Path | str,
    target: Path | str,
    *,
    name: str | None = None,
    judge: Path | str | None = None,
    borrow: str | None = None,
) -> CascadeManifest:
    """Gather what a programme has trained, and the encoders that it heard, into a model folder.

    Args:
        folder: The programme's, with its ``plan.json``.
        target: The model folder, as for `ship_piccolo`.
        name: What the model is called; as the programme unless told otherwise.
        judge: A judge's folder; that of the encoders' model, where it has one, unless told otherwise.
        borrow: A model that ships with bottega. What it has too, byte for byte, of encoders and judge is not copied:
            the model is smaller, and needs an installation with that one.

    Raises:
        CheckpointError: When a node is still to be trained, the stages do not make a cascade, or ``target`` cannot
            become the model.
    """
    folder = Path(folder)
    programme = read_plan(folder / PLAN)
    for stage in programme.stages:
        lacking = [part for part in stage.parts if not is_filed(folder, stage, part)]
        if lacking:
            raise CheckpointError(
                f"{stage.name} still lacks {', '.join(lacking)}: go on with bottega train --plan {folder / PLAN} "
                f"--run {folder} --resume"
            )
    trained = [(stage.run, folder / stage.name) for stage in programme.stages]
    called = programme.name if name is None else name
    return _ship_stages(trained, Path(target), called, judge, borrow)


def ship_runs(
    runs: Sequence[Path | str],
    target: Path | str,
    *,
    name: str | None = None,
    judge: Path | str | None = None,
    borrow: str | None = None,
) -> CascadeManifest:
    """Gather what a denoiser's run exported, and further ones that enlarge its pictures, into a model folder.

    Encoders and autoencoder are those that the runs name. A denoiser that was branched is taken as the ensemble that
    it has become.

    Args:
        runs: The folder of a base's run, then those of super-resolution runs.
        target: The model folder, as for `ship_piccolo`.
        name: What the model is called; as the base's recipe unless told otherwise.
        judge: As for `ship_programme`.
        borrow: As for `ship_programme`.

    Raises:
        InputError: For a folder that is no run, or a run that trains no denoiser.
        CheckpointError: When a run has exported nothing yet, or the stages do not make a cascade.
    """
    trained: list[tuple[RunConfig, Path]] = []
    for run in map(Path, runs):
        config = read_config(run)
        denoiser_task(config)
        exported = _newest(run, ensemble_of(config, run))
        if config.branch is not None and not is_ensemble(exported):
            raise CheckpointError(
                f"{run} is an expert denoiser and paints only in its ensemble, which is not in {exported}"
            )
        if not exported.is_dir():
            raise CheckpointError(
                f"{run} has exported nothing yet: go on with bottega train --resume --run {run}"
            )
        trained.append((config, exported))
    called = trained[0][0].name if name is None else name
    return _ship_stages(trained, Path(target), called, judge, borrow)


def _ship_stages(
    trained: Sequence[tuple[RunConfig, Path]],
    target: Path,
    name: str,
    judge: Path | str | None,
    borrow: str | None,
) -> CascadeManifest:
    """A model of what runs have trained, from the smallest pictures to the largest."""
    stages: list[StageEntry] = []
    parts: dict[str, Path] = {}
    for config, place in trained:
        entry = _entry(config, stages)
        stages.append(entry)
        parts[entry.folder] = place
        latents = denoiser_task(config).latents
        if latents is not None:
            parts[AUTOENCODER] = autoencoder_folder(latents)
    heard = {denoiser_task(config).encoders for config, _ in trained}
    if len(heard) > 1:
        raise CheckpointError(f"the stages hear other encoders: {', '.join(sorted(heard))}")
    place = heard.pop()
    parts |= encoder_folders(place)
    known = _judge_of(place) if judge is None else Path(judge)
    if known is not None:
        parts["judge"] = known
    borrowed = {} if borrow is None else _borrowed(parts, borrow)
    return _gather(target, name, tuple(stages), parts, borrowed)


def _judge_of(place: str) -> Path | None:
    """The judge of the model whose encoders were heard, where it is one and has one."""
    folder = Path(place) if Path(place).is_dir() else find_model(place)
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder)
    return None if manifest.judge is None else model_part(folder, manifest, manifest.judge)


def _borrowed(parts: Mapping[str, Path], lender: str) -> dict[str, str]:
    """Which encoders and judge a shipped model has too, byte for byte, under the same name.

    Raises:
        InputError: When the lender does not ship with bottega, or has nothing of it.
    """
    if lender not in SHIPPED:
        raise InputError(
            f"only a model that ships with bottega can lend; {lender!r} does not{nearest(lender, SHIPPED)}"
        )
    folder = find_model(lender)
    files = read_manifest(folder).files
    same: dict[str, str] = {}
    for part in ("t5", "clip", "judge"):
        lent = {name: digest for name, digest in files.items() if name.startswith(f"{part}/")}
        if part in parts and lent and lent == file_digests(parts[part], part):
            same[part] = lender
    if not same:
        raise InputError(
            f"{lender} has other encoders and another judge, so that nothing can be borrowed"
        )
    return same


def _entry(config: RunConfig, earlier: Sequence[StageEntry]) -> StageEntry:
    task, size = denoiser_task(config), config.size
    if task.low_res_size is None:
        return StageEntry(
            name="base",
            folder="base",
            size=size,
            settings=settings_for(task, BASE_SETTINGS),
            autoencoder=None if task.latents is None else AUTOENCODER,
        )
    low = task.low_res_size
    enlarged = next((entry.name for entry in earlier if entry.size == low), None)
    if enlarged is None:
        raise CheckpointError(
            f"{config.name} enlarges pictures of {low} px, and no stage before it paints any"
        )
    name = f"sr{size}"
    return StageEntry(
        name=name, folder=name, size=size, low_res_from=enlarged, settings=SR_SETTINGS
    )


def _newest(run: Path, ensemble: Path) -> Path:
    """What a run has come to: its ensemble if it was branched or is a branch, or what it exported."""
    return ensemble if is_ensemble(ensemble) else run / "export"


def _gather(
    target: Path,
    name: str,
    stages: tuple[StageEntry, ...],
    parts: Mapping[str, Path],
    borrowed: Mapping[str, str] = MappingProxyType({}),
) -> CascadeManifest:
    """Copy every part that is not borrowed under its name, and let the whole take the place of ``target``."""
    _refuse_foreign(target, parts)
    building = target.resolve().parent / f".{target.resolve().name}.building-{os.getpid()}"
    try:
        building.mkdir(parents=True)
        for part, source in parts.items():
            if part not in borrowed:
                _copy(source, building / part)
        manifest = assemble(
            building,
            name=name,
            stages=stages,
            encoders={kind: kind for kind in ("t5", "clip") if kind in parts},
            judge="judge" if "judge" in parts else None,
            borrowed=borrowed,
        )
        load_stages(building, manifest)
        _put_in_place(building, target, parts)
    except OSError as error:
        raise CheckpointError(f"cannot write the model {target}: {error}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return manifest


def _copy(source: Path, target: Path) -> None:
    """All of a folder; of an ensemble its family tree, and the weights of those that paint."""
    if not is_ensemble(source):
        shutil.copytree(source, target)
        return
    target.mkdir()
    shutil.copy(source / ENSEMBLE, target / ENSEMBLE)
    for member, _ in read_ensemble(source).painting():
        shutil.copytree(source / member.folder, target / member.folder)


def _refuse_foreign(target: Path, parts: Iterable[str]) -> None:
    """Replace parts of a model only: another folder may hold a ``base`` or a ``t5`` that somebody needs."""
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"cannot write the model {target}: it is a file")
    if (target / MANIFEST).exists():
        read_manifest(target)
        return
    in_the_way = [part for part in parts if (target / part).exists()]
    if in_the_way:
        raise CheckpointError(
            f"{target} is no model, but holds {', '.join(in_the_way)}, which would be replaced; choose another folder"
        )


def _put_in_place(building: Path, target: Path, parts: Iterable[str]) -> None:
    """The manifest comes last: whoever stops in the middle leaves digests that refuse the mixture."""
    if not target.exists():
        building.rename(target)
        return
    for part in parts:
        if (target / part).exists():
            shutil.rmtree(target / part)
        if (building / part).exists():  # what is borrowed is not
            (building / part).rename(target / part)
    (building / "manifest.json").replace(target / MANIFEST)


__all__ = [
    "AUTOENCODER",
    "BASE_SETTINGS",
    "SR_SETTINGS",
    "ship_piccolo",
    "ship_programme",
    "ship_runs",
]
