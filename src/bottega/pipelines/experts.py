"""A stage made of expert denoisers: from an ensemble's folder to a mixture that paints."""

from collections.abc import Callable
from pathlib import Path

from bottega.checkpoint import verify
from bottega.checkpoint.ensemble import (
    EnsembleManifest,
    Member,
    folder_for,
    member_manifest,
    read_ensemble,
)
from bottega.diffusion import Denoiser, TimestepDenoiser
from bottega.ensemble import Expert, Mixture, Part, Residency, StoredDenoiser
from bottega.errors import CheckpointError, ConfigError
from bottega.pipelines.stored import (
    DenoiserConfig,
    build_expert,
    denoiser_config,
    load_denoiser,
    load_timestep_denoiser,
)


def load_mixture(folder: Path | str, *, residency: Residency = "all") -> Mixture:
    """The expert denoisers of an ensemble that paint, each with its own part of the noise.

    Args:
        folder: The ensemble's.
        residency: ``all`` keeps every expert denoiser in memory, ``active`` the one at work and the next on its way.

    Raises:
        CheckpointError: When a checkpoint is missing, damaged or another than the ensemble lists, or some noise has
            nobody to paint it.
        ConfigError: For an unknown residency.
    """
    folder = Path(folder)
    manifest = read_ensemble(folder)
    experts = [
        Expert(name=member.part, part=part, denoiser=_stored(folder, manifest, member))
        for member, part in _painting(folder, manifest)
    ]
    return Mixture(experts, manifest.training_noise, residency=residency)


def ensemble_config(folder: Path | str) -> DenoiserConfig:
    """What the expert denoisers of an ensemble are built from; all are alike.

    Raises:
        CheckpointError: When there are none, or they differ from each other.
    """
    folder = Path(folder)
    manifest = read_ensemble(folder)
    configs = {
        member.part: denoiser_config(folder / member.folder, member_manifest(folder, member))
        for member, _ in _painting(folder, manifest)
    }
    first = next(iter(configs))
    for part, config in configs.items():
        if config != configs[first]:
            raise CheckpointError(f"{folder}: {part} is built otherwise than {first}")
    return configs[first]


def mixture_with(folder: Path | str, part: Part, denoiser: Denoiser | TimestepDenoiser) -> Mixture:
    """The ensemble as it would paint with ``denoiser`` for ``part``; parents stand in for children that are missing.

    The other expert denoisers are loaded to where ``denoiser`` is, in its precision.
    """
    folder = Path(folder)
    manifest = read_ensemble(folder)
    name = str(part)
    guest = Member(part=name, folder=folder_for(name), digest="", images_seen=0)
    example = next(denoiser.parameters())

    def loader(member: Member) -> Callable[[], Denoiser | TimestepDenoiser]:
        def load() -> Denoiser | TimestepDenoiser:
            place = folder / member.folder
            config = denoiser_config(place, member_manifest(folder, member))
            timed = config.timestep_plan is not None
            loaded, _ = load_timestep_denoiser(place) if timed else load_denoiser(place)
            return loaded.to(device=example.device, dtype=example.dtype)

        return load

    experts = [
        Expert(
            name=member.part,
            part=own,
            denoiser=denoiser if member.part == name else loader(member),
        )
        for member, own in manifest.with_member(guest).painting()
    ]
    return Mixture(experts, manifest.training_noise)


def _painting(folder: Path, manifest: EnsembleManifest) -> tuple[tuple[Member, Part], ...]:
    try:
        painting = manifest.painting()
    except ConfigError as error:
        raise CheckpointError(f"{folder} cannot paint: {error}") from None
    if not painting:
        raise CheckpointError(f"{folder} holds no expert denoiser")
    return painting


def _stored(folder: Path, manifest: EnsembleManifest, member: Member) -> StoredDenoiser:
    """A member on disk, its bytes compared with their digests."""
    place = folder / member.folder
    facts = member_manifest(folder, member)
    verify(place)
    config = denoiser_config(place, facts)
    if config.training_noise != manifest.training_noise:
        raise CheckpointError(f"{place} learned other noise than {folder} is about")
    return StoredDenoiser(place / "denoiser.safetensors", config, build_expert)


__all__ = ["ensemble_config", "load_mixture", "mixture_with"]
