"""From the name of a model to a painter."""

from pathlib import Path
from typing import NamedTuple

import torch

from bottega.checkpoint.ensemble import is_ensemble
from bottega.conditioning import Encoders
from bottega.errors import CheckpointError
from bottega.pipelines.adapters import ControlNets, Loras, use_adapters
from bottega.pipelines.cascade import (
    MANIFEST,
    CascadeManifest,
    load_stages,
    model_part,
    read_manifest,
    verify_files,
)
from bottega.pipelines.devices import find_device, find_dtype
from bottega.pipelines.foreign import FAMILIES, INDEX, is_pipeline, manifest_of, read_pipeline
from bottega.pipelines.hub import locate, model_name
from bottega.pipelines.opening import Opener
from bottega.pipelines.painter import Painter
from bottega.pipelines.residency import Policy, Residency
from bottega.pipelines.stage import Stage


def load(
    model: str | Path = "piccolo",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    lanes: int = 1,
    residency: str = "all",
    local_files_only: bool = False,
    loras: Loras = (),
    controlnets: ControlNets = (),
) -> Painter:
    """Load a painter.

    Args:
        model: The name of a model that ships with bottega, a model folder, a diffusers folder, or an id of the Hugging
            Face Hub.
        device: ``auto`` takes a CUDA device where there is one; or ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto`` takes bfloat16 where the hardware multiplies it fast; or ``float32``, ``bfloat16``.
        lanes: Pictures that go through a network together; see `Painter`.
        residency: ``all`` keeps everything in memory that was needed once; ``active`` only what is at work: one expert
            denoiser of an ensemble, one part of an imported model.
        local_files_only: Take an id from the Hub's cache, and fetch nothing.
        loras: Folders of LoRAs to mix in, each with its scale or at 1; see `bottega.pipelines.adapters`.
        controlnets: Folders of ControlNets to paint with.

    Raises:
        InputError: For an unknown model, device, dtype or residency, naming the nearest.
        CheckpointError: For a model that is missing, incomplete, damaged or not supported, naming the file.
    """
    where = find_device(device)
    precision = find_dtype(dtype, where)
    opened = open_model(
        model, dtype=precision, residency=residency, local_files_only=local_files_only
    )
    return Painter(
        manifest=opened.manifest,
        stages=opened.stages,
        encoders=opened.encoders,
        device=where,
        dtype=precision,
        lanes=lanes,
        folder=opened.folder,
        adapters=use_adapters(opened.stages, loras, controlnets),
    )


class OpenedModel(NamedTuple):
    """A model's parts, as they lie in its folder."""

    folder: Path
    manifest: CascadeManifest
    stages: tuple[Stage, ...]
    encoders: Encoders


def open_model(
    model: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    residency: str = "all",
    local_files_only: bool = False,
) -> OpenedModel:
    """A model's stages and encoders, for whoever does more with them than paint; arguments and errors as `load`'s.

    ``dtype`` is what text encoders of imported models compute in.
    """
    parts = Residency(residency)
    folder = locate(model, local_files_only=local_files_only)
    opener = Opener(folder=folder, residency=parts, dtype=dtype)
    if is_pipeline(folder) and not (folder / MANIFEST).is_file():
        pipeline = read_pipeline(folder, model_name(model))
        manifest = manifest_of(pipeline)
        stage, encoders = opener.pipeline(pipeline, manifest)
        return OpenedModel(folder, manifest, (stage,), encoders)
    manifest = _checked(folder)
    if manifest.parts is None:
        stages, encoders = _ours(folder, manifest, parts.policy)
    else:
        stages, encoders = opener.cascade(manifest)
    return OpenedModel(folder, manifest, stages, encoders)


def _checked(folder: Path) -> CascadeManifest:
    if not (folder / MANIFEST).is_file():
        if (folder / "config.json").is_file() and (folder / "checkpoints").is_dir():
            raise CheckpointError(
                f"{folder} is a run and not a model: bottega assemble {folder} -o MODEL makes one of it"
            )
        if is_ensemble(folder):
            raise CheckpointError(
                f"{folder} is an ensemble and not a model: bottega assemble RUN -o MODEL makes one of it, where RUN is "
                "the run that its experts grew from"
            )
        raise CheckpointError(
            f"{folder} is not a model: it holds neither bottega's {MANIFEST} nor diffusers' {INDEX} "
            f"({', '.join(FAMILIES)})"
        )
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    return manifest


def _ours(
    folder: Path, manifest: CascadeManifest, residency: Policy
) -> tuple[tuple[Stage, ...], Encoders]:
    paths = {
        f"folder_{kind}": model_part(folder, manifest, inner)
        for kind, inner in manifest.encoders.items()
    }
    stages = load_stages(folder, manifest, residency=residency)
    encoders = Encoders.load(folder_t5=paths.get("folder_t5"), folder_clip=paths.get("folder_clip"))
    return stages, encoders


__all__ = ["OpenedModel", "load", "open_model"]
