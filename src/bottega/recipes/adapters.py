"""Training beside a model: a stage is opened, a LoRA or a ControlNet learns beside its networks, and is exported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from bottega.checkpoint import LoraFacts, load_manifest, save_lora
from bottega.checkpoint.controlnet import ControlNetFacts, save_controlnet
from bottega.checkpoint.ensemble import is_ensemble
from bottega.condition import Condition
from bottega.conditioning import ConditionDropout, Encoders
from bottega.conditioning.cache import EmbeddingCache
from bottega.data import Batch, Canny, Source
from bottega.diffusion import AugmentationLevels, Denoiser, TimestepDenoiser
from bottega.ensemble import Mixture, probability_intervals
from bottega.errors import ConfigError, nearest
from bottega.models import ControlNet, ControlNetConfig, UNet
from bottega.models.lora import LoraPlan
from bottega.pipelines.cascade import CascadeManifest, StageEntry
from bottega.pipelines.experts import ensemble_config
from bottega.pipelines.loading import open_model
from bottega.pipelines.residency import LazyDenoiser
from bottega.pipelines.stage import Stage
from bottega.pipelines.stored import DenoiserConfig, denoiser_config
from bottega.recipes.adapter_tasks import AdapterTask, ControlNetTask, LoraTask
from bottega.recipes.encoders import average_to_ship
from bottega.recipes.run import FolderConfig, RunConfig
from bottega.rundir import RunDir
from bottega.training import Constant, EmaConfig, Objective, TrainConfig
from bottega.training.adapted import Adapted, WithControlNet, WithLora
from bottega.training.denoiser_objective import DenoiserObjective, picture_share
from bottega.training.edge_targets import EdgedSource, HedEdges, WorldEdges
from bottega.training.embedded import EmbeddedSource
from bottega.training.export import averaged_weights, find_checkpoint
from bottega.training.precision import dtype_of
from bottega.training.timestep_objective import TimestepObjective

_READS: Mapping[type, str] = {
    Canny: "edges as Canny finds them",
    HedEdges: "edges as HED sees them",
    WorldEdges: "the world's exact edges",
}


def lora() -> RunConfig:
    """A LoRA from 5 to 30 pictures of your own, beside piccolo's base."""
    return RunConfig(
        name="lora",
        data=FolderConfig(path="pictures"),
        size=32,
        task=LoraTask(lora=LoraPlan(targets=("attention", "blocks"))),
        train=TrainConfig(
            total_images=4_096,
            batch_size=16,
            learning_rate=5e-4,
            schedule=Constant(),
            warmup_images=256,
            checkpoint_images=1_024,
            ema=EmaConfig(stds=(0.1,), every_images=64),
        ),
    )


def lora_style() -> RunConfig:
    """A style from 5 to 30 pictures, learned without their captions, so that words keep what they mean."""
    base = lora()
    assert isinstance(base.task, LoraTask)
    silent = ConditionDropout(t5=1.0, clip_text=1.0, clip_image=1.0)
    return replace(
        base,
        name="lora-style",
        task=replace(base.task, dropout=silent),
        train=replace(base.train, total_images=6_144),
    )


def controlnet() -> RunConfig:
    """A ControlNet that follows edges, beside piccolo's base, on the drawn world."""
    from bottega.recipes.piccolo import piccolo_base

    return RunConfig(
        name="controlnet",
        data=piccolo_base().data,
        size=32,
        task=ControlNetTask(),
        train=TrainConfig(
            total_images=100_000,
            batch_size=64,
            learning_rate=5e-4,
            schedule=Constant(),
            warmup_images=2_000,
            checkpoint_images=10_000,
        ),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptedStage:
    """A stage to train beside: its networks for the noise that is learned, and everything that is known of it.

    ``networks`` go from the least noise to the most, and ``starts`` are the sigmas at which all but the first begin.
    """

    folder: Path
    manifest: CascadeManifest
    entry: StageEntry
    stage: Stage
    encoders: Encoders
    config: DenoiserConfig
    networks: tuple[UNet, ...]
    starts: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    is_whole: bool

    @property
    def is_imported(self) -> bool:
        """Whether another library made the model."""
        return self.manifest.parts is not None

    @property
    def low_res_size(self) -> int | None:
        """The side of the pictures that the stage enlarges, if it does."""
        sizes = {entry.name: entry.size for entry in self.manifest.stages}
        return None if self.entry.low_res_from is None else sizes[self.entry.low_res_from]

    def c_noises(self) -> list[float]:
        """The bounds between the networks as these are told of them."""
        sigmas = torch.tensor(self.starts, dtype=torch.float64)
        plan = self.config.timestep_plan
        if plan is not None:
            return plan.schedule.timestep(sigmas).tolist()
        return self.config.precond(sigmas).noise.tolist()

    def denoiser(self, network: nn.Module) -> Denoiser | TimestepDenoiser:
        """A network in the place of the stage's own."""
        plan = self.config.timestep_plan
        return Denoiser(network, self.config.precond) if plan is None else plan.denoiser(network)


def adapted_stage(config: RunConfig) -> AdaptedStage:
    """Open the stage that a run trains beside.

    Raises:
        InputError: For a model that there is not.
        CheckpointError: For a model that is damaged.
        ConfigError: For an unknown stage or expert denoiser, or pictures of another size than the stage paints.
    """
    task = cast(AdapterTask, config.task)
    opened = open_model(task.model)
    names = [stage.name for stage in opened.stages]
    if task.stage not in names:
        raise ConfigError(f"{task.model} has no stage {task.stage!r}{nearest(task.stage, names)}")
    index = names.index(task.stage)
    entry, stage = opened.manifest.stages[index], opened.stages[index]
    if stage.size != config.size:
        raise ConfigError(
            f"stage {stage.name} paints {stage.size} px: give --set size={stage.size}, got {config.size}"
        )
    place = opened.folder / entry.folder
    known = (
        ensemble_config(place)
        if is_ensemble(place)
        else denoiser_config(place, load_manifest(place))
    )
    denoiser = stage.denoiser.open() if isinstance(stage.denoiser, LazyDenoiser) else stage.denoiser
    networks, starts, intervals = _networks(
        denoiser, known, task, f"{task.model}, stage {stage.name}"
    )
    return AdaptedStage(
        folder=opened.folder,
        manifest=opened.manifest,
        entry=entry,
        stage=stage,
        encoders=opened.encoders,
        config=known,
        networks=networks,
        starts=starts,
        intervals=intervals,
        is_whole=not isinstance(denoiser, Mixture) or len({*networks}) == len(denoiser.experts),
    )


def _networks(
    denoiser: Any, known: DenoiserConfig, task: AdapterTask, where: str
) -> tuple[tuple[UNet, ...], tuple[float, ...], tuple[tuple[float, float], ...]]:
    """The networks that a task trains beside, the sigmas between them, and the share of the noise that is theirs."""
    if not isinstance(denoiser, Mixture):
        if task.parts:
            raise ConfigError(f"{where} has one denoiser for all noise; leave task.parts empty")
        return (cast(UNet, denoiser.network),), (), ((0.0, 1.0),)
    parts = denoiser.parts
    for part in task.parts:
        if part not in parts:
            raise ConfigError(f"{where} has no expert denoiser {part!r}{nearest(part, parts)}")
    names = [expert.name for expert in denoiser.experts]
    found: list[UNet] = []
    starts: list[float] = []
    for tile in denoiser.tiling:
        if not task.parts or names[tile.part] in task.parts:
            starts.append(tile.low)
            inner = denoiser.holder.get(tile.part, tile.part)
            found.append(cast(UNet, cast(Any, inner).network))
    wanted = [part for name, part in parts.items() if not task.parts or name in task.parts]
    intervals = sorted(
        interval
        for part in wanted
        for interval in probability_intervals(part, known.training_noise)
    )
    return tuple(found), tuple(starts[1:]), tuple(intervals)


def adapter_network(config: RunConfig, stage: AdaptedStage) -> Adapted:
    """What learns, beside the networks of the stage in the precision of the run; the same for the same seed."""
    task = cast(AdapterTask, config.task)
    dtype = dtype_of(config.train.precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        if isinstance(task, LoraTask):
            network: Adapted = WithLora(stage.networks, stage.c_noises(), task.lora)
        else:
            control = ControlNet(_control_config(task, stage)).copy_from(stage.networks[-1])
            network = WithControlNet(stage.networks, stage.c_noises(), control)
    for frozen in stage.networks:
        frozen.to(dtype)
    return network.float() if dtype == torch.float32 else network


def _control_config(task: ControlNetTask, stage: AdaptedStage) -> ControlNetConfig:
    space = stage.stage.space
    return ControlNetConfig(
        network=stage.config.network,
        scale=1 if space is None else space.factor,
        hint_width=task.hint_width,
    )


def adapter_objective(
    config: RunConfig, stage: AdaptedStage, *, rank: int = 0, world_size: int = 1
) -> Objective:
    """The loss that the stage's own network was trained with."""
    dropout = cast(AdapterTask, config.task).dropout
    space, plan = stage.stage.space, stage.config.timestep_plan
    encode = None if space is None else space.encode
    spread: dict[str, Any] = {"intervals": stage.intervals, "rank": rank, "world_size": world_size}
    if plan is None:
        low = stage.low_res_size
        return DenoiserObjective(
            noise=stage.config.noise,
            precond=stage.config.precond,
            dropout=picture_share(dropout)[1],
            low_res_size=low,
            augmentation=None if low is None else AugmentationLevels(),
            encode=encode,
            **spread,
        )
    if stage.low_res_size is not None:
        raise ConfigError(
            f"stage {stage.entry.name} enlarges pictures at timesteps; only stages that do not can be trained beside"
        )
    if not stage.is_imported:
        silenced = picture_share(dropout)[1]
        return TimestepObjective(
            plan=plan, encode=encode, dropout=0.0, condition_dropout=silenced, **spread
        )
    return TimestepObjective(
        plan=plan,
        encode=encode,
        dropout=dropout.t5,
        empty=stage.encoders.condition([""]) if dropout.t5 > 0 else None,
        numbers=stage.entry.numbers,
        **spread,
    )


def adapter_source(config: RunConfig, stage: AdaptedStage, source: Source, run: RunDir) -> Source:
    """The pictures with what the model's encoders say of them, and for a ControlNet with their edges."""
    task = cast(AdapterTask, config.task)
    if isinstance(task, ControlNetTask):
        source = EdgedSource(source, task.edges)
    cache = EmbeddingCache(run.path.parent / "embeddings", stage.encoders)
    share = picture_share(task.dropout)[0]
    embedded = EmbeddedSource(
        source,
        cache,
        encoders=None if stage.is_imported else stage.encoders,
        picture_share=share,
        seed=config.train.seed,
    )
    return ControlledSource(embedded) if isinstance(task, ControlNetTask) else embedded


class ControlledSource:
    """Batches whose condition holds their edges as the control picture."""

    def __init__(self, source: Source) -> None:
        """Take the edges of ``source``'s batches, which have a condition."""
        self._source = source

    @property
    def num_examples(self) -> int | None:
        """As many as the source beneath has."""
        return self._source.num_examples

    def batch(self, indices: Sequence[int]) -> Batch:
        """The source's batch, whose condition holds its edges."""
        batch = self._source.batch(indices)
        return replace(batch, condition=control_of(batch))


def control_of(batch: Batch) -> Condition:
    """The condition of a batch with its edges as the control picture."""
    assert (
        batch.edges is not None and batch.condition is not None
    )  # whoever calls has put them there
    return replace(batch.condition, control=batch.edges[:, None].float() / 255)


def export_adapter(config: RunConfig, run: RunDir, target: Path) -> Path:
    """Write what a run learned, averaged, where a painter can use it."""
    task = cast(AdapterTask, config.task)
    checkpoint = find_checkpoint(run)
    before = load_manifest(checkpoint)
    weights = averaged_weights(checkpoint, average_to_ship(config.train)).items()
    opened = open_model(task.model)
    told: dict[str, Any] = {
        "stage": task.stage,
        "parts": task.parts,
        "model": opened.manifest.name,
        "model_digest": opened.manifest.digest,
    }
    made: dict[str, Any] = {"images_seen": before.images_seen, "parent": before.digest}
    if isinstance(task, LoraTask):
        facts = LoraFacts(plan=task.lora, **told)
        save_lora(target, WithLora.matrices(weights), facts, **made)
    else:
        net = _control_config(task, adapted_stage(config))
        known = ControlNetFacts(controlnet=net, reads=_READS[type(task.edges)], **told)
        save_controlnet(target, WithControlNet.weights(weights), known, **made)
    return target


__all__ = [
    "AdaptedStage",
    "ControlledSource",
    "adapted_stage",
    "adapter_network",
    "adapter_objective",
    "adapter_source",
    "control_of",
    "controlnet",
    "export_adapter",
    "lora",
    "lora_style",
]
