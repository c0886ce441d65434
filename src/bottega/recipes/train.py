"""From a whole configuration to a trained run: the parts are built here and handed to the loop."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from bottega import config as configs
from bottega.checkpoint import load_module
from bottega.conditioning import Encoders
from bottega.conditioning.cache import EmbeddingCache
from bottega.data import Source
from bottega.data.emoji_world import EmojiWorldConfig
from bottega.errors import CheckpointError, ConfigError
from bottega.evaluation.judge_network import JudgeNetwork
from bottega.evaluation.judge_objective import JudgeObjective
from bottega.evaluation.judge_world import judge_config
from bottega.models import UNet
from bottega.pipelines import MANIFEST, find_model, model_part, read_manifest
from bottega.pipelines.experts import mixture_with
from bottega.recipes.adapter_run import adapter_run
from bottega.recipes.adapter_tasks import ControlNetTask, LoraTask
from bottega.recipes.adapters import (
    adapted_stage,
    adapter_network,
    adapter_objective,
    export_adapter,
)
from bottega.recipes.autoencoder import (
    PREVIEW_IMAGES,
    Reconstructions,
    autoencoder_parts,
    export_autoencoder,
)
from bottega.recipes.branch import START, ensemble_of, file_run, load_start, stage_config
from bottega.recipes.compare import CompareHook
from bottega.recipes.denoisers import denoiser_objective
from bottega.recipes.edges import EdgePreview, with_edge_heads, with_edges
from bottega.recipes.encoders import average_to_ship, encoder_parts, export_encoder
from bottega.recipes.experts import expert_hooks, with_experts
from bottega.recipes.export_imported import export_imported
from bottega.recipes.finetune import imported_parts
from bottega.recipes.latents import kept_latents, open_space
from bottega.recipes.machine import curve_hooks, engine_here
from bottega.recipes.preview import Preview
from bottega.recipes.run import (
    AutoencoderTask,
    ClipTask,
    DenoiserTask,
    EnlargerTask,
    ImportedTask,
    JudgeTask,
    RunConfig,
    T5Task,
)
from bottega.recipes.sources import left_out, picture_source
from bottega.recipes.srgan import enlarger_parts, enlarger_preview, export_enlarger
from bottega.rundir import RunDir
from bottega.training import (
    Engine,
    Hook,
    JournalHook,
    Objective,
    PreviewHook,
    TrainState,
    fit,
)
from bottega.training.denoiser_objective import picture_share
from bottega.training.embedded import EmbeddedSource
from bottega.training.export import export_ema
from bottega.training.latents import LatentSource
from bottega.training.precision import dtype_of
from bottega.training.progress import ProgressHook

_JOURNAL_IMAGES = 4096
_PREVIEW_IMAGES = 50_000


def train(
    config: RunConfig,
    folder: Path | str,
    *,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
    engine: Engine | None = None,
) -> TrainState:
    """Train what ``config`` describes in a run folder, and export what can be used of it.

    Args:
        config: A recipe's, perhaps with settings replaced.
        folder: Holds the run; made when missing. The usable weights end up in its ``export``.
        resume: Go on where the run stopped, with the configuration given now.
        hooks: Further things to do on the way, beside journal, display and previews.
        engine: The machine; what `engine_here` finds when not given.

    Raises:
        ConfigError: If the run holds another recipe's checkpoints, or ``resume`` is missing.
        CheckpointError: For a child whose parent in the ensemble is no longer the one it grew from.
    """
    run = RunDir(folder)
    _check_same_recipe(config, run)
    engine = engine_here() if engine is None else engine
    with run.kept_once_used():
        state = _trained(config, run, hooks, engine, resume=resume)
    _hand_over(config, run, state)
    return state


def _trained(
    config: RunConfig, run: RunDir, hooks: Sequence[Hook], engine: Engine, *, resume: bool
) -> TrainState:
    network, objective, source, beside = _parts(config, run, engine)
    if config.branch is not None:
        load_start(network, config, run)
    every_hook: list[Hook] = [
        _Settings(config),
        *beside,
        JournalHook(every_images=_JOURNAL_IMAGES),
        ProgressHook(),
        *curve_hooks(_JOURNAL_IMAGES),
        *expert_hooks(objective, _JOURNAL_IMAGES),
        *hooks,
    ]
    if isinstance(config.task, DenoiserTask):
        encoders = load_encoders(config.task.encoders)
        embedded = _embedded(source, config, config.task, encoders, run)
        source = _encoded(embedded, source, config, config.task, run, engine)
        every_hook = [*_watching(config, config.task, encoders, run), *every_hook]
    return fit(
        network,
        objective,
        source,
        config.train,
        run,
        engine=engine,
        hooks=every_hook,
        resume=resume,
        about=config,
    )


def _parts(
    config: RunConfig, run: RunDir, engine: Engine
) -> tuple[nn.Module, Objective, Source, list[Hook]]:
    """What a run trains, minimises and sees, and what it shows on the way without further encoders."""
    source = picture_source(config)  # first, because networks may take minutes to build
    said = left_out(config, source)
    if isinstance(config.task, (LoraTask, ControlNetTask)):
        beside = adapter_run(config, run, source, engine)
        return beside._replace(hooks=[*said, *beside.hooks])
    if isinstance(config.task, ImportedTask):
        parts = imported_parts(config, rank=engine.rank, world_size=engine.world_size)
        cache = EmbeddingCache(run.path.parent / "embeddings", parts.encoders)
        source = EmbeddedSource(source, cache, seed=config.train.seed)
        return parts.network, parts.objective, source, said
    network, objective = build(config, rank=engine.rank, world_size=engine.world_size)
    return network, objective, source, [*said, *_previews(config)]


def _hand_over(config: RunConfig, run: RunDir, state: TrainState) -> None:
    """Export what can be used, and file a finished child; of several processes the first does it."""
    if state.engine.rank == 0:
        export(config, run)
        if config.branch is not None and state.finished:
            file_run(config, run, ensemble_of(config, run.path))
    state.engine.wait()


def _previews(config: RunConfig) -> list[Hook]:
    """What a run that needs no encoders shows on the way."""
    if isinstance(config.task, AutoencoderTask):
        return [PreviewHook(Reconstructions(config), every_images=PREVIEW_IMAGES)]
    if isinstance(config.task, EnlargerTask):
        return [enlarger_preview(config)]
    return []


def _watching(config: RunConfig, task: DenoiserTask, encoders: Encoders, run: RunDir) -> list[Hook]:
    """Previews, and for a child its parent to compare with; before the display, which shows what they remark."""
    if config.branch is None:
        pages: list[Callable[[TrainState, Path], None]] = [Preview(config, task, encoders)]
        pages += [] if task.edges is None else [EdgePreview(config, encoders)]
        return [PreviewHook(page, every_images=_PREVIEW_IMAGES) for page in pages]
    home = ensemble_of(config, run.path)
    preview = Preview(
        config, task, encoders, among=lambda denoiser: mixture_with(home, task.part, denoiser)
    )
    return [
        CompareHook(config, task, encoders, run.path / START),
        PreviewHook(preview, every_images=_PREVIEW_IMAGES),
    ]


def build(config: RunConfig, *, rank: int = 0, world_size: int = 1) -> tuple[nn.Module, Objective]:
    """The untrained network of a run and what it minimises; the same weights for the same seed."""
    task = config.task
    if isinstance(task, (T5Task, ClipTask)):
        network, objective, _ = encoder_parts(config, task)
        return network, objective
    if isinstance(task, ImportedTask):
        parts = imported_parts(config, rank=rank, world_size=world_size)
        return parts.network, parts.objective
    if isinstance(task, (LoraTask, ControlNetTask)):
        stage = adapted_stage(config)
        objective = adapter_objective(config, stage, rank=rank, world_size=world_size)
        return adapter_network(config, stage), objective
    if isinstance(task, AutoencoderTask):
        return autoencoder_parts(config, task)
    if isinstance(task, EnlargerTask):
        return enlarger_parts(config, task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        if isinstance(task, JudgeTask):
            judge = judge_config(_world(config))
            return JudgeNetwork(judge), JudgeObjective(judge)
        network = UNet(task.network)
    network.checkpointing = task.gradient_checkpointing
    if task.start_from is not None:
        load_module(network, task.start_from)
    space = open_space(task, dtype=dtype_of(config.train.precision))
    objective = denoiser_objective(task, space, rank=rank, world_size=world_size)
    objective = with_experts(objective, task.network, task.balance)
    return with_edge_heads(network, objective, task, config.train.seed)


class _Settings(Hook):
    """Writes the resolved settings once the run has really begun, so that a refused start changes nothing."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(every_images=config.train.total_images)
        self._config = config

    def begin(self, state: TrainState) -> None:
        if state.engine.rank == 0:
            state.run.write_text("config.json", configs.dumps(self._config))


def _embedded(
    source: Source, config: RunConfig, task: DenoiserTask, encoders: Encoders, run: RunDir
) -> Source:
    """The source with what the encoders say; runs beside each other share one cache."""
    return EmbeddedSource(
        with_edges(source, task),
        EmbeddingCache(run.path.parent / "embeddings", encoders),
        encoders=encoders,
        picture_share=picture_share(task.dropout)[0],
        seed=config.train.seed,
    )


def _encoded(
    source: Source,
    pictures: Source,
    config: RunConfig,
    task: DenoiserTask,
    run: RunDir,
    engine: Engine,
) -> Source:
    """The source with latents that are kept, where the run asks for that; one process encodes, the others wait."""
    space = open_space(task)
    if space is None or task.latents is None or not task.latents.cached:
        return source
    if engine.rank > 0:
        engine.wait()
    cache = kept_latents(pictures, config, task, space, run.path.parent, device=engine.device)
    if engine.rank == 0:
        engine.wait()
    return LatentSource(source, cache)


def load_encoders(place: str) -> Encoders:
    """The encoders of a model folder, or of a model that ships with bottega.

    Raises:
        CheckpointError: As `encoder_folders`.
    """
    folders = encoder_folders(place)
    return Encoders.load(folder_t5=folders["t5"], folder_clip=folders["clip"])


def encoder_folders(place: str) -> dict[str, Path]:
    """Where ``t5`` and ``clip`` of a folder lie, or of a model that ships with bottega.

    Raises:
        CheckpointError: If one of the two is missing.
    """
    folder = Path(place) if Path(place).is_dir() else find_model(place)
    found = {kind: folder / kind for kind in ("t5", "clip")}
    if (folder / MANIFEST).is_file():  # a model, which may have borrowed them
        manifest = read_manifest(folder)
        named = manifest.encoders.items()
        found |= {kind: model_part(folder, manifest, inner) for kind, inner in named}
    if not all(path.is_dir() for path in found.values()):
        raise CheckpointError(
            f"expected the folders t5 and clip in {folder}; train them with the recipes piccolo-t5 and "
            "piccolo-clip, and name their folder with --set task.encoders=FOLDER"
        )
    return found


def export(config: RunConfig, run: RunDir) -> Path:
    """Write the averaged weights of a run where a painter, a judge or another run can use them."""
    target = run.path / "export"
    task = config.task
    std = average_to_ship(config.train)
    if isinstance(task, (T5Task, ClipTask)):
        return export_encoder(config, run, target)
    if isinstance(task, (LoraTask, ControlNetTask)):
        return export_adapter(config, run, target)
    if isinstance(task, AutoencoderTask):
        return export_autoencoder(config, run, target)
    if isinstance(task, EnlargerTask):
        return export_enlarger(config, run, target)
    if isinstance(task, JudgeTask):
        judge = configs.to_json(judge_config(_world(config)))
        export_ema(run, target, std=std, config=judge, kind="judge", name="judge")
        return target
    if isinstance(task, ImportedTask):
        return export_imported(config, run, target, std)
    stage = configs.to_json(stage_config(task))
    export_ema(run, target, std=std, config=stage, node=str(task.part))
    return target


def _world(config: RunConfig) -> EmojiWorldConfig:
    assert isinstance(config.data, EmojiWorldConfig)  # RunConfig refuses a judge on a folder
    return config.data


def _check_same_recipe(config: RunConfig, run: RunDir) -> None:
    """A run folder belongs to one recipe; its length and rates may change on the way, its task and name may not."""
    if not run.config.exists():
        return
    try:
        before = dict(json.loads(run.config.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{run.config} is damaged: {error}; choose another folder") from None
    if before.get("name") != config.name:
        raise ConfigError(
            f"{run.path} holds a run of the recipe {before.get('name')}, not of {config.name}; "
            "choose another folder with --run"
        )


__all__ = ["build", "encoder_folders", "export", "load_encoders", "train"]
