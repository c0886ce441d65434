"""An ensemble of expert denoisers on disk: who learned which noise, from whom each grew, and who paints.

::

    ensemble.json            the noise that all learned, and one entry per member
    0-0/, 9-511/, ...        one checkpoint per member

A member need not paint: at every sigma it is **the member of the narrowest part that covers it** that does. So a parent
stands in where no child has been trained yet, and is no longer needed once its children cover all it did.
"""

import fcntl
import json
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

from bottega.checkpoint.manifest import Manifest, load_manifest
from bottega.checkpoint.standing import check_nested, is_within, remaining_part
from bottega.config import from_json, to_json
from bottega.diffusion import LogNormal, TimestepPlan, TrainingNoise
from bottega.ensemble import Part, parse_part, sigma_bounds
from bottega.errors import CheckpointError, ConfigError, InputError, nearest
from bottega.rundir import write_atomically

ENSEMBLE = "ensemble.json"
FORMAT_VERSION = 1
"""The newest ensemble this version reads, and the one it writes."""

KIND = "ensemble"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One expert denoiser of an ensemble.

    ``part`` is the noise it learned, as it is written (``9/511``); ``digest`` is its checkpoint's, and ``parent`` that
    of the member ``parent_part`` whose weights it started from, both None for the one that began.
    """

    part: str
    folder: str
    digest: str
    images_seen: int
    parent_part: str | None = None
    parent: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "part", str(parse_part(self.part)))
        path = PurePosixPath(self.folder)
        if path.is_absolute() or len(path.parts) != 1 or path.name == ".." or "\0" in self.folder:
            raise ConfigError(f"{self.folder!r} is no folder of the ensemble")
        if (self.parent is None) != (self.parent_part is None):
            raise ConfigError(f"{self.part}: parent and parent_part go together")


@dataclass(frozen=True, kw_only=True)
class EnsembleManifest:
    """What an ensemble's folder holds.

    ``timestep_plan`` is there where the members learned timesteps; ``noise`` is then not read.
    """

    noise: LogNormal = field(default_factory=LogNormal)
    members: tuple[Member, ...] = ()
    format_version: int = FORMAT_VERSION
    timestep_plan: TimestepPlan | None = None

    def __post_init__(self) -> None:
        parts = [member.part for member in self.members]
        if len(set(parts)) != len(parts):
            raise ConfigError(f"a part is listed twice: {', '.join(sorted(parts))}")
        for member in self.members:
            if member.parent_part is None:
                continue
            if not is_within(
                parse_part(member.part), parse_part(member.parent_part), self.training_noise
            ):
                raise ConfigError(f"{member.part} is not below its parent {member.parent_part}")

    @classmethod
    def over(cls, noise: TrainingNoise) -> "EnsembleManifest":
        """An ensemble without members yet."""
        if isinstance(noise, TimestepPlan):
            return cls(timestep_plan=noise)
        return cls(noise=noise)

    @property
    def training_noise(self) -> TrainingNoise:
        """What the parts are parts of."""
        return self.noise if self.timestep_plan is None else self.timestep_plan

    @property
    def parts(self) -> tuple[str, ...]:
        """The part of every member."""
        return tuple(member.part for member in self.members)

    def member(self, part: str) -> Member:
        """The member that learned ``part``.

        Raises:
            CheckpointError: If there is none; the message suggests the nearest.
        """
        wanted = str(parse_part(part))
        for member in self.members:
            if member.part == wanted:
                return member
        raise CheckpointError(f"the ensemble has no member {part}{nearest(part, self.parts)}")

    def path_images(self, part: str) -> int:
        """How many images the weights of a member have seen, its ancestors' included."""
        member = self.member(part)
        before = 0 if member.parent_part is None else self.path_images(member.parent_part)
        return before + member.images_seen

    def painting(self) -> tuple[tuple[Member, Part], ...]:
        """Who paints what: each member that paints, with what is left to it, from the least noise to the most.

        Raises:
            ConfigError: If two parts overlap without one being inside the other.
        """
        parts = [parse_part(member.part) for member in self.members]
        check_nested(parts, self.training_noise)
        paints: list[tuple[Member, Part]] = []
        for member, own in zip(self.members, parts, strict=True):
            part = remaining_part(own, [p for p in parts if p != own], self.training_noise)
            if part is not None:
                paints.append((member, part))
        return tuple(sorted(paints, key=lambda pair: sigma_bounds(pair[1], self.training_noise)))

    def with_member(self, member: Member) -> "EnsembleManifest":
        """The same with one member more, or with another checkpoint in its place."""
        kept = [m for m in self.members if m.part != member.part]
        return replace(self, members=(*kept, member))


def spelled(noise: TrainingNoise) -> str:
    """A distribution of noise as a person says it."""
    if isinstance(noise, TimestepPlan):
        levels = noise.schedule
        return (
            f"{len(levels.alphas_bar)} timesteps ({noise.prediction}, sigma {levels.sigma_min:.3g} to "
            f"{levels.sigma_max:.4g})"
        )
    return f"noise with mean {noise.mean:g} and std {noise.std:g}"


def folder_for(part: str) -> str:
    """The folder name of a part: ``9/511`` becomes ``9-511``."""
    return re.sub(r"[^\w.]+", "-", part).strip("-")


def is_ensemble(folder: Path | str) -> bool:
    """Whether a folder holds an ensemble."""
    return (Path(folder) / ENSEMBLE).is_file()


def read_ensemble(folder: Path | str) -> EnsembleManifest:
    """What an ensemble says it holds; its checkpoints are not looked at.

    Raises:
        CheckpointError: When there is none, it is damaged, or newer than this version.
    """
    path = Path(folder) / ENSEMBLE
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not an ensemble: it holds no {ENSEMBLE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} does not describe an {KIND}")
    facts = cast(dict[str, Any], data)
    if facts.get("kind") != KIND:
        raise CheckpointError(f"{path} does not describe an {KIND}")
    version = facts.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has format {version}, this version reads up to {FORMAT_VERSION}; upgrade bottega"
        )
    try:
        return from_json(
            EnsembleManifest, {k: v for k, v in facts.items() if k != "kind"}, where=str(path)
        )
    except (ConfigError, InputError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def write_ensemble(folder: Path | str, manifest: EnsembleManifest) -> None:
    """Write an ensemble's manifest, whole or not at all."""
    facts = {**to_json(manifest), "kind": KIND}
    text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    write_atomically(Path(folder) / ENSEMBLE, text.encode())


def check_parent(folder: Path | str, part: str, digest: str) -> Member:
    """The member ``part``, if it still is the checkpoint with this digest.

    Raises:
        CheckpointError: If it is another, so that a child of it would not belong here.
    """
    member = read_ensemble(folder).member(part)
    if member.digest != digest:
        raise CheckpointError(
            f"the child grew from {part} with digest {digest[:12]}, but {folder} holds {part} with digest "
            f"{member.digest[:12]}; branch again from the one that is there, or file the child elsewhere"
        )
    return member


def file_member(
    folder: Path | str,
    part: str,
    write: Callable[[Path], Manifest],
    *,
    noise: TrainingNoise,
    parent_part: str | None = None,
    parent: str | None = None,
) -> Member:
    """Write a member's checkpoint into an ensemble and list it; the ensemble is made when there is none.

    Args:
        folder: The ensemble's.
        part: The noise it learned.
        write: Writes the checkpoint to the path that it is given.
        noise: What the part is a part of; the same for all members.
        parent_part: The member it grew from.
        parent: That member's digest, as the child knows it.

    Raises:
        CheckpointError: If the parent is not there or another by now, the noise is another, or children of the member
            grew from what it was before.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        manifest = _before(folder, part, noise, parent_part, parent)
        name = folder_for(part)
        children = [m.part for m in manifest.members if m.parent_part == part]
        aside = name if not children else f".{name}.new"
        written = write(folder / aside)
        member = Member(
            part=part,
            folder=name,
            digest=written.digest,
            images_seen=written.images_seen,
            parent_part=parent_part,
            parent=parent,
        )
        if children:
            _keep_as_it_was(folder, manifest, member, folder / aside, children)
            return manifest.member(part)
        write_ensemble(folder, manifest.with_member(member))
    return member


def _before(
    folder: Path, part: str, noise: TrainingNoise, parent_part: str | None, parent: str | None
) -> EnsembleManifest:
    """The ensemble as it stands, if ``part`` may be filed in it."""
    manifest = read_ensemble(folder) if is_ensemble(folder) else EnsembleManifest.over(noise)
    if manifest.training_noise != noise:
        raise CheckpointError(
            f"{folder} is about {spelled(manifest.training_noise)}, the new member learned {spelled(noise)}"
        )
    if parent_part is not None and parent is not None:
        check_parent(folder, parent_part, parent)
    new = Member(part=part, folder=folder_for(part), digest="", images_seen=0)
    manifest.with_member(
        new
    ).painting()  # refuses parts that overlap without one being inside the other
    return manifest


def _keep_as_it_was(
    folder: Path, manifest: EnsembleManifest, member: Member, new: Path, children: Sequence[str]
) -> None:
    """A member with children stays the very checkpoint they grew from."""
    import shutil

    shutil.rmtree(new)
    before = manifest.member(member.part)
    if before.digest != member.digest:
        raise CheckpointError(
            f"{folder} holds {member.part} with digest {before.digest[:12]}, from which {', '.join(children)} grew; "
            f"the new one has {member.digest[:12]} and would orphan them; file it in another ensemble"
        )


def member_manifest(folder: Path | str, member: Member) -> Manifest:
    """The manifest of a member's checkpoint.

    Raises:
        CheckpointError: If it is missing, or another checkpoint than the ensemble lists.
    """
    place = Path(folder) / member.folder
    manifest = load_manifest(place)
    if manifest.digest != member.digest:
        raise CheckpointError(
            f"{place} is damaged: its digest is {manifest.digest[:12]}, {ENSEMBLE} says {member.digest[:12]}"
        )
    return manifest


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """One process at a time files a member; several machines may train side by side on one disk."""
    with (folder / ".lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


__all__ = [
    "ENSEMBLE",
    "EnsembleManifest",
    "Member",
    "check_parent",
    "file_member",
    "folder_for",
    "is_ensemble",
    "member_manifest",
    "read_ensemble",
    "spelled",
    "write_ensemble",
]
