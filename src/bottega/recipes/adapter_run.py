"""The parts of a run that trains beside a model, and what it paints on the way."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from bottega.condition import Condition
from bottega.data import Batch, Source
from bottega.pipelines import save_picture, sheet
from bottega.pipelines.output import to_pictures
from bottega.recipes.adapter_tasks import ControlNetTask
from bottega.recipes.adapters import (
    AdaptedStage,
    adapted_stage,
    adapter_network,
    adapter_objective,
    adapter_source,
    control_of,
)
from bottega.recipes.compare import averaged
from bottega.recipes.run import RunConfig
from bottega.recipes.sources import preview_batch
from bottega.rundir import RunDir
from bottega.training import Engine, Hook, Objective, PreviewHook, TrainState
from bottega.training.adapted import Adapted
from bottega.training.denoiser_objective import shrink
from bottega.training.edge_targets import EdgedSource

_NUM_PICTURES = 16
_STEPS = 16
_SHOWN_PX = 128
_PREVIEWS = 4
"""How often a run shows what it has come to."""


class AdapterRun(NamedTuple):
    """What a run beside a model trains, minimises, sees, and shows."""

    network: Adapted
    objective: Objective
    source: Source
    hooks: list[Hook]


def adapter_run(config: RunConfig, run: RunDir, source: Source, engine: Engine) -> AdapterRun:
    """Open the stage and put everything beside it.

    Args:
        config: The run.
        run: Its folder; captions' embeddings are kept beside it.
        source: Its pictures.
        engine: The machine.
    """
    stage = adapted_stage(config)
    network = adapter_network(config, stage)
    objective = adapter_objective(config, stage, rank=engine.rank, world_size=engine.world_size)
    hooks: list[Hook] = []
    if stage.is_whole:  # with a part of the noise alone nothing can be painted
        every = max(config.train.total_images // _PREVIEWS, config.train.batch_size)
        hooks.append(PreviewHook(AdapterPreview(config, stage), every_images=every))
    return AdapterRun(network, objective, adapter_source(config, stage, source, run), hooks)


class AdapterPreview:
    """Paints what `preview_batch` shows with the stage as it is by now, always from the same noise."""

    def __init__(self, config: RunConfig, stage: AdaptedStage) -> None:
        """Preview the run of ``config`` beside ``stage``."""
        self._config = config
        self._stage = stage

    def __call__(self, state: TrainState, target: Path) -> None:
        """Write a sheet to ``target``."""
        device = state.engine.device
        batch = preview_batch(self._config, _NUM_PICTURES)
        cond = self._told(batch).to(device=device)
        uncond = cond.null()
        if self._stage.is_imported:  # which never learned silence, but an empty text
            empty = self._stage.encoders.condition([""] * len(batch)).to(device=device)
            uncond = replace(empty, control=cond.control)
        own = self._stage.entry.settings
        settings = replace(own, steps=min(own.steps, _STEPS), steps_per_expert={})
        denoiser = self._stage.denoiser(state.network)
        stage = replace(self._stage.stage, denoiser=denoiser)
        low = self._stage.low_res_size
        low_res = None if low is None else shrink(batch.clean(), low).to(device)
        seeds = list(range(len(batch)))
        walk = stage.paint(cond, uncond, seeds, settings, low_res=low_res, device=device)
        images = torch.empty(0)
        with averaged(state):
            for step in walk:
                images = step.x
            shown = stage.pictures(images)
        pictures = [_larger(picture) for picture in to_pictures(shown)]
        save_picture(sheet(pictures, captions=batch.captions), target)

    def _told(self, batch: Batch) -> Condition:
        """What the pictures are to show, with the edges that a ControlNet is to follow."""
        cond = self._stage.encoders.condition(batch.captions)
        task = self._config.task
        if not isinstance(task, ControlNetTask):
            return cond
        edged = EdgedSource(_Only(batch), task.edges).batch(range(len(batch)))
        return control_of(replace(edged, condition=cond))


class _Only:
    """A source of one batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.num_examples: int | None = len(batch)

    def batch(self, indices: Sequence[int]) -> Batch:
        """All of it."""
        return self._batch


def _larger(picture: Image.Image) -> Image.Image:
    """A small picture with every pixel plain to see."""
    times = max(1, _SHOWN_PX // picture.width)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


__all__ = ["AdapterPreview", "AdapterRun", "adapter_run"]
