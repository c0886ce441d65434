"""A model folder: the denoisers of a cascade, its encoders, its judge, and the digest of every file.

::

    manifest.json                      what is here, how each stage is sampled by default, SHA-256 of all files
    base/, sr128/, ...                 one checkpoint per stage, or an ensemble of expert denoisers
    t5/, clip/                         encoders in Hugging Face's format
    judge/                             the detector that scores its pictures (optional)

A folder may be borrowed instead, from a model that comes inside the package: then it lies there, and its digests here.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from bottega.checkpoint import load_manifest
from bottega.checkpoint.ensemble import is_ensemble
from bottega.config import from_json, to_json
from bottega.diffusion import DenoiserLike, TimestepPlan
from bottega.ensemble import Residency
from bottega.errors import CheckpointError, ConfigError, InputError, nearest
from bottega.models import UNetConfig
from bottega.pipelines.experts import ensemble_config, load_mixture
from bottega.pipelines.latent import stored_space
from bottega.pipelines.parts import PipelineParts
from bottega.pipelines.shelf import has_shelf, load_shelved
from bottega.pipelines.stage import Stage, StageSettings
from bottega.pipelines.stored import (
    DenoiserConfig,
    denoiser_config,
    load_denoiser,
    load_timestep_denoiser,
)
from bottega.rundir import write_atomically

FORMAT_VERSION = 1
"""The newest model folder this version reads, and the one it writes."""

MAX_SIZE = 8192
"""Larger pictures than this are taken for a damaged manifest."""

MANIFEST = "manifest.json"
SHIPPED = ("piccolo", "piccolo-raphael")
"""Models that come inside the package."""

KIND = "cascade"
_ENCODER_KINDS = ("t5", "clip")


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """A stage of a model folder: where its checkpoint lies, what it paints, and how by default.

    ``noising``, ``numbers`` and ``numbers_apart`` are those of `Stage`. ``autoencoder`` is the folder of the one in
    whose latents the stage paints, None for pixels.
    """

    name: str
    folder: str
    size: int
    low_res_from: str | None = None
    settings: StageSettings = field(default_factory=StageSettings)
    noising: TimestepPlan | None = None
    numbers: tuple[float, ...] = ()
    numbers_apart: tuple[float, ...] = ()
    autoencoder: str | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"stage {self.name}: size must be positive, got {self.size}")
        if self.size > MAX_SIZE:
            raise ConfigError(
                f"stage {self.name}: size must be at most {MAX_SIZE}, got {self.size}"
            )
        if self.autoencoder is not None and self.low_res_from is not None:
            raise ConfigError(f"stage {self.name} enlarges a picture, which it does in pixels")


@dataclass(frozen=True, kw_only=True)
class CascadeManifest:
    """What a model folder holds. ``files`` maps each file's path in it to the SHA-256 of its bytes.

    ``parts`` is what a model of another library consists of beside its stages; it has no ``encoders`` then.
    ``borrowed`` says of folders that are not here which shipped model has them, by the same name.
    """

    name: str
    stages: tuple[StageEntry, ...]
    encoders: Mapping[str, str]
    judge: str | None = None
    parts: PipelineParts | None = None
    borrowed: Mapping[str, str] = field(default_factory=dict[str, str])
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("a cascade needs at least one stage")
        earlier: list[str] = []
        for stage in self.stages:
            if stage.name in earlier:
                raise ConfigError(f"two stages are called {stage.name}")
            if (stage.low_res_from is None) != (not earlier):
                raise ConfigError(
                    f"stage {stage.name}: the first stage enlarges nothing, every later one names what it enlarges"
                )
            if stage.low_res_from is not None and stage.low_res_from not in earlier:
                raise ConfigError(
                    f"stage {stage.name} enlarges {stage.low_res_from}{nearest(stage.low_res_from, earlier)}"
                )
            earlier.append(stage.name)
        for kind in self.encoders:
            if kind not in _ENCODER_KINDS:
                raise ConfigError(f"encoder {kind!r} is not known{nearest(kind, _ENCODER_KINDS)}")
        for part, lender in self.borrowed.items():
            if part not in self.folders:
                raise ConfigError(f"{part!r} is borrowed{nearest(part, self.folders)}")
            if lender not in SHIPPED:
                raise ConfigError(f"{part} is borrowed from {lender!r}{nearest(lender, SHIPPED)}")
        for inner in (*self.folders, *self.files):
            path = PurePosixPath(inner)
            if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in inner:
                raise ConfigError(f"{inner!r} does not lie inside the model folder")

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder of the model, by its path in it."""
        judge = () if self.judge is None else (self.judge,)
        parts = () if self.parts is None else self.parts.folders
        spaces = tuple(s.autoencoder for s in self.stages if s.autoencoder is not None)
        stages = (*(stage.folder for stage in self.stages), *dict.fromkeys(spaces))
        return (*stages, *self.encoders.values(), *parts, *judge)

    @property
    def digest(self) -> str:
        """One SHA-256 for the model: its stages and the bytes of what paints; defaults and the judge left out."""
        judged = () if self.judge is None else (f"{self.judge}/",)
        facts = {
            "stages": [[s.name, s.folder, s.size, s.low_res_from] for s in self.stages],
            "encoders": dict(self.encoders),
            "files": {k: v for k, v in self.files.items() if not k.startswith(judged)},
        }
        if self.parts is not None:
            told = [[to_json(s.noising), s.numbers, s.numbers_apart] for s in self.stages]
            facts |= {"parts": to_json(self.parts), "told": told}
        spaces = {s.name: s.autoencoder for s in self.stages if s.autoencoder is not None}
        if spaces:  # models of pixels keep the digests that their pictures carry
            facts |= {"spaces": spaces}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def assemble(
    folder: Path | str,
    *,
    name: str,
    stages: Sequence[StageEntry],
    encoders: Mapping[str, str],
    judge: str | None = None,
    parts: PipelineParts | None = None,
    borrowed: Mapping[str, str] | None = None,
) -> CascadeManifest:
    """Make a folder that holds checkpoints and encoders already into a model: write its manifest.

    Args:
        folder: Where everything lies.
        name: What the model is called.
        stages: From the smallest picture to the largest; paths are relative to ``folder``.
        encoders: ``t5`` and ``clip`` to their folders.
        judge: The judge's folder.
        parts: What a model of another library consists of beside its stages.
        borrowed: Folders to the shipped models in which they lie.

    Raises:
        CheckpointError: When something named is not there.
    """
    folder = Path(folder)
    manifest = CascadeManifest(
        name=name,
        stages=tuple(stages),
        encoders=dict(encoders),
        judge=judge,
        parts=parts,
        borrowed={} if borrowed is None else dict(borrowed),
    )
    for part in manifest.folders:
        if not model_part(folder, manifest, part).is_dir():
            raise CheckpointError(f"{folder} lacks {part}, which the model {name} needs")
    found = _present(folder, manifest)
    manifest = replace(manifest, files={name: _digest(path) for name, path in found.items()})
    facts = {**to_json(manifest), "kind": KIND}
    text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    write_atomically(folder / MANIFEST, text.encode())
    return manifest


def find_model(model: str | Path) -> Path:
    """The folder of a model, by the name of one that ships with bottega or by path.

    Raises:
        InputError: For an unknown name, with the nearest one.
        CheckpointError: For a known name whose weights are not in this installation.
    """
    if str(model) in SHIPPED:
        folder = Path(str(files("bottega") / "weights" / str(model)))
        if not (folder / MANIFEST).is_file():
            raise CheckpointError(
                f"the weights of {model} are not in this installation (expected {folder}); install a released "
                "bottega, or name a folder with a model of your own"
            )
        return folder
    folder = Path(model)
    if str(model) and folder.is_dir():
        return folder
    if len(folder.parts) > 1:
        raise InputError(f"there is no model folder {folder}")
    raise InputError(
        f"model {str(model)!r} is neither a folder nor known{nearest(str(model), SHIPPED)}"
    )


def model_part(folder: Path | str, manifest: CascadeManifest, part: str) -> Path:
    """Where a folder of a model lies: in the model's own, or in the shipped model that lends it.

    Raises:
        CheckpointError: When the lender is not in this installation.
    """
    lender = manifest.borrowed.get(part)
    return (Path(folder) if lender is None else find_model(lender)) / part


def read_manifest(folder: Path | str) -> CascadeManifest:
    """What a model folder says it holds; its other files are not looked at.

    Raises:
        CheckpointError: When it is no model folder, damaged, or newer than this version.
    """
    path = Path(folder) / MANIFEST
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a model: it holds no {MANIFEST}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind != KIND:
        raise CheckpointError(f"{path} describes a {kind}, not a {KIND} that can paint")
    version = data.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has format {version}, this version reads up to {FORMAT_VERSION}; upgrade bottega"
        )
    facts = {key: value for key, value in data.items() if key != "kind"}
    try:
        return from_json(CascadeManifest, facts, where=str(path))
    except ConfigError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def verify_files(folder: Path | str, manifest: CascadeManifest) -> None:
    """Compare every file of a model with its digest.

    Raises:
        CheckpointError: Naming the first file that is missing, damaged, or not listed.
    """
    present = _present(Path(folder), manifest)
    surplus = set(present) - set(manifest.files)
    if surplus:
        raise CheckpointError(f"{folder} holds {min(surplus)}, which its manifest does not list")
    for name, expected in manifest.files.items():
        path = present.get(name, Path(folder) / name)
        try:
            found = _digest(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        if found != expected:
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 is {found[:12]}..., the manifest of {folder} says "
                f"{expected[:12]}...; install or copy the model again"
            )


def load_stages(
    folder: Path | str, manifest: CascadeManifest, *, residency: Residency = "all"
) -> tuple[Stage, ...]:
    """Build every stage's denoiser, in float32 on the CPU.

    Args:
        folder: The model's.
        manifest: What is in it.
        residency: Of stages made of expert denoisers: ``all`` in memory, or the ``active`` one. Of networks with space
            experts: ``all``, or those ``active`` for the prompt.

    Raises:
        CheckpointError: When one is missing or damaged, enlarges by another factor than the manifest says, or does not
            fit the latents that it is to paint.
    """
    stages: dict[str, Stage] = {}
    for entry in manifest.stages:
        place = Path(folder) / entry.folder
        if is_ensemble(place):
            config = ensemble_config(place)
            denoiser: DenoiserLike = load_mixture(place, residency=residency)
        else:
            denoiser, config = _one_denoiser(place, shelved=residency == "active")
        space = None
        if entry.autoencoder is not None:
            space = stored_space(Path(folder) / entry.autoencoder, tiled=residency == "active")
        stage = Stage(
            name=entry.name,
            denoiser=denoiser,
            size=entry.size,
            low_res_from=entry.low_res_from,
            space=space,
            timestep_plan=config.timestep_plan,
            multiple=config.network.downsampling * (1 if space is None else space.factor),
        )
        _check_sizes(stage, config.network, stages)
        stages[entry.name] = stage
    return tuple(stages.values())


def _one_denoiser(place: Path, *, shelved: bool) -> tuple[DenoiserLike, DenoiserConfig]:
    """A stage's checkpoint, in the form in which its network learned; space experts ``shelved`` where it has any."""
    config = denoiser_config(place, load_manifest(place))
    if shelved and has_shelf(config):
        return load_shelved(place)[0], config
    if config.timestep_plan is None:
        return load_denoiser(place)[0], config
    return load_timestep_denoiser(place)[0], config


def _check_sizes(stage: Stage, plan: UNetConfig, earlier: Mapping[str, Stage]) -> None:
    if stage.size % stage.multiple:
        raise CheckpointError(
            f"stage {stage.name} paints multiples of {stage.multiple} pixels, the manifest says {stage.size}"
        )
    if plan.in_channels != stage.shape[0]:
        where = "pictures" if stage.space is None else "the latents of its autoencoder"
        raise CheckpointError(
            f"stage {stage.name} takes {plan.in_channels} channels, {where} have {stage.shape[0]}"
        )
    scale = None if plan.low_res is None else plan.low_res.scale
    low = None if stage.low_res_from is None else earlier[stage.low_res_from]
    if (scale is None) != (low is None) or (scale and low and low.size * scale != stage.size):
        raise CheckpointError(
            f"stage {stage.name} enlarges by {scale}, the manifest says from "
            f"{None if low is None else low.size} to {stage.size} pixels"
        )


def file_digests(place: Path, part: str) -> dict[str, str]:
    """The digest of every file of a part that lies at ``place``, by its path in the model, hidden ones left out."""
    return {name: _digest(path) for name, path in _files_of(place, part).items()}


def _present(folder: Path, manifest: CascadeManifest) -> dict[str, Path]:
    """Every file of the model's folders by its path in the model, hidden ones left out."""
    found: dict[str, Path] = {}
    for part in manifest.folders:
        found |= _files_of(model_part(folder, manifest, part), part)
    return dict(sorted(found.items()))


def _files_of(place: Path, part: str) -> dict[str, Path]:
    inside = {path.relative_to(place): path for path in place.rglob("*") if path.is_file()}
    return {
        (PurePosixPath(part) / name.as_posix()).as_posix(): path
        for name, path in inside.items()
        if not any(step.startswith(".") for step in (*PurePosixPath(part).parts, *name.parts))
    }


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


__all__ = [
    "FORMAT_VERSION",
    "SHIPPED",
    "CascadeManifest",
    "StageEntry",
    "assemble",
    "file_digests",
    "find_model",
    "load_stages",
    "model_part",
    "read_manifest",
    "verify_files",
]
