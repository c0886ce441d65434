"""Diffusers folders become model folders, and model folders that were imported become diffusers folders again."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from bottega.checkpoint import load_manifest, save_module
from bottega.checkpoint.ensemble import is_ensemble
from bottega.checkpoint.foreign import ForeignInfo, load_foreign_unet, save_foreign_unet
from bottega.checkpoint.foreign_files import read_config
from bottega.config import to_json
from bottega.errors import CheckpointError, InputError
from bottega.models import UNet
from bottega.pipelines.cascade import (
    CascadeManifest,
    StageEntry,
    assemble,
    read_manifest,
    verify_files,
)
from bottega.pipelines.foreign import (
    INDEX,
    NOISING,
    SCHEDULER,
    UNET,
    Pipeline,
    is_pipeline,
    read_pipeline,
    used_files,
)
from bottega.pipelines.hub import locate, model_name
from bottega.pipelines.opening import Opener
from bottega.pipelines.residency import Residency
from bottega.pipelines.stored import (
    DENOISER_KIND,
    DenoiserConfig,
    denoiser_config,
    load_timestep_denoiser,
)
from bottega.rundir import sync_folder

ORIGIN = "origin"
"""The folder of a model folder that keeps the other library's configurations."""

_LEFT_OUT = ("feature_extractor", "image_encoder", "safety_checker", "watermarker")
"""Components that do not paint, and are not carried over."""


def import_model(
    source: str | Path,
    target: Path | str,
    *,
    then: Sequence[str | Path] = (),
    local_files_only: bool = False,
) -> CascadeManifest:
    """Write a diffusers pipeline as a model folder.

    Args:
        source: A diffusers folder, or an id of the Hub.
        target: The model folder; it must not be there yet.
        then: Pipelines that enlarge what the one before paints, such as the second stage of DeepFloyd IF.
        local_files_only: Take ids from the Hub's cache, and fetch nothing.

    Raises:
        InputError: When the target is there already, or a source is not.
        CheckpointError: For a source that is damaged or not supported.
    """
    target = Path(target)
    pipelines = [_found(place, local_files_only) for place in (source, *then)]
    first, *others = pipelines
    if first.family.enlarges:
        raise InputError(
            f"{first.folder} enlarges pictures: name the pipeline before it first, and this one with --then"
        )
    for other in others:
        if not other.family.enlarges:
            raise InputError(
                f"{other.folder} enlarges nothing, so it cannot come after {first.folder}"
            )
        if other.family.stream != first.family.stream:
            raise InputError(
                f"{other.folder} is told texts by {other.family.stream}, and {first.folder} by {first.family.stream}: "
                "they make no cascade"
            )
    if len(others) > 1:
        raise InputError(
            "at most one pipeline can follow another, as the second stage of DeepFloyd IF does"
        )
    with appearing(target) as building:
        return _write_model(building, pipelines)


def export_model(model: Path | str, target: Path | str) -> list[Path]:
    """Write a model folder that was imported as diffusers folders again.

    Args:
        model: The model folder.
        target: The diffusers folder; for a model of several stages, the folder of their folders. It must not be there.

    Returns:
        The diffusers folders.

    Raises:
        InputError: When the target is there already.
        CheckpointError: When the model is damaged, or was not imported.
    """
    model, target = Path(model), Path(target)
    manifest = read_manifest(model)
    if manifest.parts is None:
        raise CheckpointError(
            f"{model} was not imported from diffusers, which has no network like it; only imported models are exported"
        )
    for entry in manifest.stages:
        if is_ensemble(model / entry.folder):
            raise CheckpointError(
                f"stage {entry.name} of {model} is made of expert denoisers, which no pipeline of diffusers can hold; "
                "export the model that they grew from"
            )
        if _has_experts(model / entry.folder):
            raise CheckpointError(
                f"stage {entry.name} of {model} has experts inside, as no network of diffusers has; export the model "
                "that was given them"
            )
    verify_files(model, manifest)
    with appearing(target) as building:
        names = [entry.name for entry in manifest.stages] if len(manifest.stages) > 1 else [""]
        for entry, name in zip(manifest.stages, names, strict=True):
            _write_pipeline(model, manifest, entry, building / name)
    return [target / name for name in names]


def _has_experts(place: Path) -> bool:
    return denoiser_config(place, load_manifest(place)).network.has_experts


def _found(source: str | Path, local_files_only: bool) -> Pipeline:
    folder = locate(source, local_files_only=local_files_only)
    if not is_pipeline(folder):
        raise CheckpointError(f"{folder} is no diffusers model: it holds no {INDEX}")
    return read_pipeline(folder, model_name(source))


def _write_model(building: Path, pipelines: Sequence[Pipeline]) -> CascadeManifest:
    first = pipelines[0]
    parts = first.parts(ORIGIN)
    Opener(folder=first.folder, residency=Residency("active")).check(parts)
    (building / ORIGIN).mkdir()
    for name in parts.folders:
        if name != ORIGIN:
            _copy(first.folder / name, building / name)
    entries: list[StageEntry] = []
    for pipeline in pipelines:
        entry = pipeline.entry(pipeline.family.stage, entries[-1].name if entries else None)
        network, _ = load_foreign_unet(pipeline.folder / UNET)
        config = DenoiserConfig(network=network.config, timestep_plan=pipeline.scheduling.plan)
        save_module(
            building / entry.folder,
            network.state_dict(),
            kind=DENOISER_KIND,
            config=to_json(config),
        )
        facts = {"index": dict(pipeline.index), UNET: dict(pipeline.unet), **pipeline.kept}
        _write_json(building / ORIGIN / f"{entry.name}.json", facts)
        entries.append(entry)
    return assemble(building, name=first.name, stages=entries, encoders={}, parts=parts)


def _write_pipeline(
    model: Path, manifest: CascadeManifest, entry: StageEntry, target: Path
) -> None:
    assert manifest.parts is not None  # export_model has looked
    target.mkdir(exist_ok=True)
    origin = read_config(model / manifest.parts.origin / f"{entry.name}.json")
    place = model / entry.folder
    denoiser, _ = load_timestep_denoiser(place)
    network = cast(UNet, denoiser.network)
    save_foreign_unet(network, ForeignInfo(config=origin[UNET]), target / UNET)
    index = {
        key: [None, None] if key in _LEFT_OUT else value for key, value in origin["index"].items()
    }
    if "safety_checker" in index:
        index["requires_safety_checker"] = False
    _write_json(target / INDEX, index)
    for name in (SCHEDULER, NOISING):
        if name in origin:
            (target / name).mkdir()
            _write_json(target / name / "scheduler_config.json", origin[name])
    named = {
        key for key, value in index.items() if isinstance(value, list) and value[-1] is not None
    }
    for name in manifest.parts.folders:
        if name in named:
            _copy(model / name, target / name)


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in used_files(source):
        shutil.copyfile(path, target / path.name)


def _write_json(path: Path, facts: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A folder that is filled under another name, and appears under its own when all of it is there.

    Raises:
        InputError: When it is there already, or cannot be made.
    """
    if target.exists():
        raise InputError(f"{target} is there already; choose another folder")
    if not target.absolute().parent.is_dir():
        raise InputError(f"cannot make {target}: there is no folder {target.absolute().parent}")
    building = target.absolute().parent / f".{target.name}.writing-{os.getpid()}"
    try:
        building.mkdir()
        yield building
        building.rename(target)
        sync_folder(target.absolute().parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


__all__ = ["ORIGIN", "appearing", "export_model", "import_model"]
