"""What ``bottega show`` says of expert denoisers: who they are, from whom they grew, and who paints which step."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.cli.options import printable

if TYPE_CHECKING:
    from bottega.checkpoint.ensemble import EnsembleManifest
    from bottega.ensemble import Part
    from bottega.pipelines import StageSettings


def ensemble_lines(folder: Path) -> Iterator[str]:
    """Every member of an ensemble, by rising noise of those that paint."""
    from bottega.checkpoint.ensemble import read_ensemble, spelled
    from bottega.recipes.branch import noise_in_words

    manifest = read_ensemble(folder)
    painting = {member.part: part for member, part in manifest.painting()}
    noise = manifest.training_noise
    yield f"ensemble of {len(painting)} expert denoisers over {spelled(noise)}"
    yield f"{'node':24} {'paints noise':32} {'images':>12} {'on its path':>12}  {'digest':16}  grew from"
    order = [*painting, *(part for part in manifest.parts if part not in painting)]
    for part in order:
        member = manifest.member(part)
        paints = "none: its children do" if part not in painting else ""
        if not paints:
            paints = noise_in_words(painting[part], noise)
        origin = "-"
        if member.parent_part is not None and member.parent is not None:
            origin = f"{member.parent_part} {printable(member.parent)[:16]}"
        yield (
            f"{part:24} {paints:32} {member.images_seen:>12,} {manifest.path_images(part):>12,}  "
            f"{printable(member.digest)[:16]}  {origin}"
        )


def steps_lines(folder: Path, settings: "StageSettings") -> Iterator[str]:
    """Step, sigma and expert denoiser of every network call of a walk, and how many steps each expert gets."""
    from bottega.checkpoint.ensemble import read_ensemble
    from bottega.diffusion import SPACINGS, find_grid, karras
    from bottega.ensemble import steps_per_expert, steps_table
    from bottega.errors import InputError
    from bottega.pipelines.settings import divided_sigmas

    manifest = read_ensemble(folder)
    parts = _parts(manifest)
    noise, plan = manifest.training_noise, manifest.timestep_plan
    if settings.steps_per_expert:
        sigmas = divided_sigmas(settings, parts, noise)
    elif settings.grid in SPACINGS:
        if plan is None:
            raise InputError(f"{folder} knows no timesteps, which the grid {settings.grid} goes by")
        sigmas = plan.sigmas(settings.steps, settings.grid)
    elif settings.grid == "karras":
        sigmas = karras(settings.steps, settings.sigma_min, settings.sigma_max, settings.rho)
    else:
        sigmas = find_grid(settings.grid)(settings.steps, settings.sigma_min, settings.sigma_max)
    calls = steps_table(parts, noise, sigmas, settings.sampler)
    yield f"{'step':>5} {'sigma':>10}  expert denoiser"
    for call in calls:
        yield f"{call.step:>5} {call.sigma:>10.4g}  {call.expert}"
    counts = steps_per_expert(calls)
    yield ", ".join(f"{name}: {count} of {settings.steps} steps" for name, count in counts.items())


def _parts(manifest: "EnsembleManifest") -> Mapping[str, "Part"]:
    return {member.part: part for member, part in manifest.painting()}


__all__ = ["ensemble_lines", "steps_lines"]
