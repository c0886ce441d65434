"""Sheets painted while a denoiser trains, always of the same prompts from the same noise, so that one sees it learn."""

from pathlib import Path

import torch

from bottega.conditioning import Encoders
from bottega.data.emoji_world import EmojiWorld, WorldSource
from bottega.diffusion import Denoiser
from bottega.pipelines import Stage, StageSettings, save_picture, sheet
from bottega.pipelines.output import to_pictures
from bottega.recipes.run import DenoiserTask, RunConfig
from bottega.training import TrainState
from bottega.training.denoiser_objective import shrink

_NUM_PICTURES = 16
# Far beyond any training index, so that a preview is of scenes the network has not seen.
_FIRST_INDEX = 10**9

_SETTINGS = StageSettings(steps=16)


class Preview:
    """Paints the first captions of an unseen stretch of the world with the weights as they are."""

    def __init__(self, config: RunConfig, task: DenoiserTask, encoders: Encoders) -> None:
        """Preview the run of ``config``, prompted through ``encoders``."""
        self._config = config
        self._task = task
        self._encoders = encoders

    def __call__(self, state: TrainState, target: Path) -> None:
        """Write a sheet to ``target``."""
        source = WorldSource(EmojiWorld(self._config.data), self._config.size)
        batch = source.batch(range(_FIRST_INDEX, _FIRST_INDEX + _NUM_PICTURES))
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
        seeds = list(range(_NUM_PICTURES))
        images = torch.empty(0)
        walk = stage.paint(cond, cond.null(), seeds, _SETTINGS, low_res=low_res, device=device)
        for step in walk:
            images = step.x
        save_picture(sheet(to_pictures(images), captions=batch.captions), target)


__all__ = ["Preview"]
