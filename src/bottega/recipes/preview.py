"""Sheets painted while a denoiser trains, always of the same prompts from the same noise, so that one sees it learn."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from bottega.conditioning import Encoders
from bottega.diffusion import Denoiser, DenoiserLike, TimestepDenoiser
from bottega.pipelines import Canvas, Stage, StageSettings, save_picture, sheet
from bottega.pipelines.output import to_pictures
from bottega.recipes.compare import averaged
from bottega.recipes.denoisers import denoiser_of, settings_for
from bottega.recipes.latents import open_space
from bottega.recipes.run import DenoiserTask, RunConfig
from bottega.recipes.sources import preview_batch
from bottega.training import TrainState
from bottega.training.denoiser_objective import shrink

_NUM_PICTURES = 16
_SHOWN_PX = 128
_SETTINGS = StageSettings(steps=16)


class Preview:
    """Paints what `preview_batch` shows, with the average of the weights that the run would export."""

    def __init__(
        self,
        config: RunConfig,
        task: DenoiserTask,
        encoders: Encoders,
        *,
        among: Callable[[Denoiser | TimestepDenoiser], DenoiserLike] | None = None,
    ) -> None:
        """Preview the run of ``config``, prompted through ``encoders``.

        Args:
            config: The run.
            task: What it learns.
            encoders: Say what the prompts mean.
            among: Puts the denoiser that is being trained among those it will paint with, so that an expert denoiser
                is seen at work where it will work; alone, it would paint noise.
        """
        self._config = config
        self._task = task
        self._encoders = encoders
        self._among = among
        self._space = open_space(task)

    def __call__(self, state: TrainState, target: Path) -> None:
        """Write a sheet to ``target``."""
        batch = preview_batch(self._config, _NUM_PICTURES)
        device = state.engine.device
        cond = self._encoders.condition(batch.captions).to(device=device)
        low_res, low_res_from = None, None
        if self._task.low_res_size is not None:
            low_res = shrink(batch.clean(), self._task.low_res_size).to(device)
            low_res_from = "the world"
        own = denoiser_of(self._task, state.network)
        stage = Stage(
            name="preview",
            denoiser=own if self._among is None else self._among(own),
            size=self._config.size,
            low_res_from=low_res_from,
            space=self._space,
            timestep_plan=self._task.timestep_plan,
        ).at(Canvas(height=batch.images.shape[2], width=batch.images.shape[3]))
        seeds = list(range(len(batch)))
        images = torch.empty(0)
        settings = settings_for(self._task, _SETTINGS)
        walk = stage.paint(cond, cond.null(), seeds, settings, low_res=low_res, device=device)
        with averaged(state):
            for step in walk:
                images = step.x
            shown = stage.pictures(images)
        pictures = [_enlarged(picture) for picture in to_pictures(shown)]
        save_picture(sheet(pictures, captions=batch.captions), target)


def _enlarged(picture: Image.Image) -> Image.Image:
    """A small picture with every pixel plain to see."""
    times = max(1, _SHOWN_PX // picture.width)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


__all__ = ["Preview"]
