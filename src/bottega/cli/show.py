"""``bottega show``: what a network, a recipe, a checkpoint or a model is and costs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bottega.cli.beside import beside_lines
from bottega.cli.options import Settings, listed
from bottega.cli.show_experts import expert_lines

if TYPE_CHECKING:
    from bottega.models import UNetConfig
    from bottega.pipelines import StageEntry
    from bottega.recipes import RunConfig

_SIZES = {
    "piccolo_base": 32,
    "piccolo_raphael": 16,
    "piccolo_raphael_pixels": 32,
    "piccolo_sr": 128,
    "raphael": 64,
    "sd15": 64,
    "sd_like": 64,
}
"""What plans paint at whose names do not end in it; 64 for Stable Diffusion and RAPHAEL are latent pixels."""


def show(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="PLAN|RECIPE|FOLDER",
            help="A block plan, a recipe, a checkpoint, an ensemble or a model.",
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Pixels of the pictures to count for.")
    ] = None,
    settings: Settings = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="Of an ensemble: who paints which of so many steps."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="Of those steps; by default the stage's own.")
    ] = None,
) -> None:
    """Print parameters, operations and memory, and the paper's figure where there is one.

    Without a target, all plans beside their papers. --set changes a setting of a recipe. Of an ensemble of expert
    denoisers, the nodes, and with --steps which of them answers at every step.
    """
    from bottega.errors import InputError

    if target is None and (size is not None or settings or steps is not None):
        raise InputError(
            "--size, --set and --steps say more of one plan, recipe or ensemble; name it"
        )
    if sampler is not None and steps is None:
        raise InputError("--sampler says how --steps are walked; give both")
    if target is None:
        lines = _every_plan()
    elif steps is not None:
        lines = _steps(target, steps, sampler)
    else:
        lines = _one(target, size, listed(settings))
    for line in list(lines):  # all of them, or what is wrong alone
        typer.echo(line)


def _every_plan() -> Iterator[str]:
    from bottega.models.counting import PAPER_FIGURES, count_parameters
    from bottega.models.plans import PLANS

    yield f"{'plan':22} {'parameters':>12} {'paper':>9} {'difference':>11}"
    for name, plan in PLANS.items():
        count = count_parameters(plan())
        figure = PAPER_FIGURES.get(name)
        beside = (
            ""
            if figure is None
            else f"{short(figure.parameters):>9} {figure.difference(count):>+11.1%}"
        )
        yield f"{name:22} {short(count):>12} {beside}".rstrip()


def _one(target: str, size: int | None, assignments: list[str]) -> Iterator[str]:
    from bottega.config import override, parse_assignments
    from bottega.errors import InputError, nearest
    from bottega.models.plans import PLANS
    from bottega.recipes import RECIPES

    if target in RECIPES:
        yield from _recipe(override(RECIPES[target](), parse_assignments(assignments)), size)
        return
    if assignments:
        raise InputError("--set changes a recipe; this is none")
    if target in PLANS:
        yield from _network(PLANS[target](), _usual_size(target) if size is None else size)
        yield from _paper(target, PLANS[target]())
    elif Path(target).is_dir():
        yield from _folder(Path(target), size)
    elif target == "piccolo" or target.count("/") == 1:
        from bottega.pipelines.hub import locate

        yield from _folder(locate(target, local_files_only=True), size)
    else:
        known = [*PLANS, *RECIPES, "piccolo"]
        raise InputError(f"{target!r} is no plan, recipe or folder{nearest(target, known)}")


def _usual_size(name: str) -> int:
    digits = re.search(r"(\d+)\D*$", name)
    return _SIZES.get(name, 64 if digits is None else int(digits.group(1)))


def _network(config: "UNetConfig", size: int) -> Iterator[str]:
    """The cost of one call at ``size``."""
    from bottega.models.counting import describe

    cost = describe(config, size)
    yield f"parameters         {cost.parameters:,} ({short(cost.parameters)})"
    yield f"at {size} x {size}"
    yield f"  one call         {short(2 * cost.macs)} floating-point operations per picture"
    yield f"  once per prompt  {short(2 * cost.prepare_macs)}"
    yield f"  a training step  {short(cost.training_flops)} per picture"
    yield f"weights in bf16    {_bytes(cost.weight_bytes)}"
    yield f"kept in training   {_bytes(cost.activation_bytes)} per picture, without checkpointing"
    for level in cost.levels:
        share = level.parameters / cost.parameters
        yield f"  level {level.size:>4} px    {level.width:>5} channels  {short(level.parameters):>7}  {share:.0%}"
    yield from expert_lines(config, size)


def _paper(name: str, config: "UNetConfig") -> Iterator[str]:
    """The published size of the plan of that name, if ``config`` is that plan."""
    from bottega.models.counting import PAPER_FIGURES, count_parameters
    from bottega.models.plans import PLANS

    figure = PAPER_FIGURES.get(name)
    if figure is not None and PLANS[name]() == config:
        difference = figure.difference(count_parameters(config))
        yield f"the paper's figure {short(figure.parameters)}, difference {difference:+.1%} ({figure.note})"


def _recipe(config: "RunConfig", size: int | None) -> Iterator[str]:
    from bottega.recipes.run import DenoiserTask, ImportedTask

    train = config.train
    yield f"recipe {config.name}: {type(config.task).__name__} at {config.size} px"
    yield f"images             {train.total_images:,} in batches of {train.batch_size}"
    if isinstance(config.task, DenoiserTask):
        from bottega.models.counting import describe

        if config.task.latents is not None:
            yield f"in the latents of  {config.task.latents.autoencoder}"
        side = config.network_size
        yield from _network(config.task.network, side if size is None else size)
        yield from _paper(config.name, config.task.network)
        each = describe(config.task.network, side).training_flops
        yield f"the whole run      {short(each * train.total_images)} floating-point operations"
    elif isinstance(config.task, ImportedTask):
        yield f"goes on from       stage {config.task.stage} of the imported model {config.task.model}"
    else:
        from bottega.recipes.train import build

        network, _ = build(config)
        count = sum(parameter.numel() for parameter in network.parameters())
        yield f"parameters         {count:,} ({short(count)})"
    yield f"all settings       bottega train {config.name} --dry-run"


def _steps(target: str, steps: int, sampler: str | None) -> Iterator[str]:
    """Who paints which step: of an ensemble, or of every stage of a model that is one."""
    from dataclasses import replace

    from bottega.checkpoint.ensemble import is_ensemble
    from bottega.cli.show_ensemble import steps_lines
    from bottega.errors import InputError
    from bottega.pipelines import StageSettings, find_model, read_manifest

    folder = find_model(target)

    def asked(settings: StageSettings) -> StageSettings:
        chosen = settings.sampler if sampler is None else sampler
        return replace(settings, steps=steps, sampler=chosen)

    if is_ensemble(folder):
        yield from steps_lines(folder, asked(StageSettings()))
        return
    stages = [s for s in read_manifest(folder).stages if is_ensemble(folder / s.folder)]
    if not stages:
        raise InputError(f"{target} has no expert denoisers: one denoiser paints every step")
    for stage in stages:
        yield f"stage {stage.name}"
        yield from steps_lines(folder / stage.folder, asked(stage.settings))


def _folder(folder: Path, size: int | None) -> Iterator[str]:
    """A model folder stage by stage, an ensemble, or one checkpoint."""
    import json

    from bottega.checkpoint.ensemble import is_ensemble
    from bottega.cli.show_ensemble import ensemble_lines
    from bottega.cli.show_foreign import autoencoder_lines, part_lines, shown_side
    from bottega.errors import CheckpointError
    from bottega.pipelines.latent import is_autoencoder
    from bottega.rundir import exported

    folder = exported(folder)
    if is_autoencoder(folder):
        yield from autoencoder_lines(folder)
        return
    if is_ensemble(folder):
        yield from ensemble_lines(folder)
        yield from _expert(folder, size)
        return
    if (folder / "model_index.json").is_file() and not (folder / "manifest.json").is_file():
        yield from _pipeline(folder, size)
        return
    try:
        kind = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{folder} holds neither a model nor a checkpoint") from None
    if kind != "cascade":
        yield from _checkpoint(folder, size)
        return
    from bottega.pipelines import read_manifest

    manifest = read_manifest(folder)
    yield f"model {manifest.name}, digest {manifest.digest[:16]}"
    yield from part_lines(folder, manifest)
    for entry in manifest.stages:
        yield from _stage(entry)
        place, shown = folder / entry.folder, size
        if size is None:
            shown = shown_side(folder, manifest, entry)
        if entry.autoencoder is not None:
            yield from autoencoder_lines(folder / entry.autoencoder)
        if is_ensemble(place):
            yield from ensemble_lines(place)
            yield from _expert(place, shown)
        else:
            yield from _checkpoint(place, shown)


def _stage(entry: "StageEntry") -> Iterator[str]:
    source = "" if entry.low_res_from is None else f", enlarges {entry.low_res_from}"
    yield f"\nstage {entry.name}: {entry.size} px{source}"
    chosen = entry.settings
    yield f"sampled by         {chosen.sampler}, {chosen.steps} steps, guidance {chosen.guidance_scale:g}"


def _pipeline(folder: Path, size: int | None) -> Iterator[str]:
    """A diffusers folder."""
    from bottega.cli.show_foreign import part_lines, pipeline_parts, shown_side

    manifest, plan = pipeline_parts(folder)
    (entry,) = manifest.stages
    yield f"model {manifest.name}, digest {manifest.digest[:16]}"
    yield from part_lines(folder, manifest)
    yield from _stage(entry)
    yield from _network(plan, shown_side(folder, manifest, entry) if size is None else size)


def _expert(folder: Path, size: int | None) -> Iterator[str]:
    """What one expert denoiser of an ensemble costs; they are all alike."""
    from bottega.pipelines.experts import ensemble_config

    config = ensemble_config(folder).network
    yield "each expert denoiser"
    yield from _network(config, _sensible_size(config) if size is None else size)


def _sensible_size(config: "UNetConfig") -> int:
    return config.downsampling * (1 if config.low_res is None else config.low_res.scale) * 4


def _checkpoint(folder: Path, size: int | None) -> Iterator[str]:
    from bottega.checkpoint import load_manifest
    from bottega.config import from_json
    from bottega.pipelines import DenoiserConfig

    manifest = load_manifest(folder)
    yield f"checkpoint         {manifest.kind}, digest {manifest.digest[:16]}, by bottega {manifest.bottega}"
    yield f"images seen        {manifest.images_seen:,}"
    stored = sum(
        (folder / name).stat().st_size for name in manifest.digests if (folder / name).exists()
    )
    yield f"on disk            {_bytes(stored)} in {len(manifest.digests)} files"
    if manifest.kind == "denoiser":
        config = from_json(DenoiserConfig, manifest.config).network
        yield from _network(config, _sensible_size(config) if size is None else size)
    yield from beside_lines(manifest)


def short(number: int | float) -> str:
    """A number with three figures and K, M, B or T."""
    for unit, letter in ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:g}"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


__all__ = ["short", "show"]
