"""Sheets painted while a denoiser trains, always of the same prompts from the same noise, so that one sees it learn."""

from pathlib import Path

import torch

from bottega.conditioning import Encoders
from bottega.diffusion import Denoiser
from bottega.pipelines import Stage, StageSettings, save_picture, sheet
from bottega.pipelines.output import to_pictures
from bottega.recipes.run import DenoiserTask, RunConfig
from bottega.recipes.sources import preview_batch
from bottega.training import TrainState
from bottega.training.denoiser_objective import shrink

_NUM_PICTURES = 16
_SETTINGS = StageSettings(steps=16)


class Preview:
    """Paints with the weights as they are, what `preview_batch` shows."""

    def __init__(self, config: RunConfig, task: DenoiserTask, encoders: Encoders) -> None:
        """Preview the run of ``config``, prompted through ``encoders``."""
        self._config = config
        self._task = task
        self._encoders = encoders

    def __call__(self, state: TrainState, target: Path) -> None:
        """Write a sheet to ``target``."""
        batch = preview_batch(self._config, _NUM_PICTURES)
        device = state.engine.device
        cond = self._encoders.condition(batch.captions).to(device=device)
        low_res, low_res_from = None, None
        if self._task.low_res_size is not None:
            low_res = shrink(batch.clean(), self._task.low_res_size).to(device)
            low_res_from = "the world"
        stage = Stage(
            name="preview",
            denoiser=Denoiser(state.network, self._task.precond),
            size=self._config.size,
            low_res_from=low_res_from,
        )
        seeds = list(range(len(batch)))
        images = torch.empty(0)
        walk = stage.paint(cond, cond.null(), seeds, _SETTINGS, low_res=low_res, device=device)
        for step in walk:
            images = step.x
        save_picture(sheet(to_pictures(images), captions=batch.captions), target)


__all__ = ["Preview"]
