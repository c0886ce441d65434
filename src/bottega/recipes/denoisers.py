"""What a denoiser's task comes to, in EDM's form or at whole timesteps, in pixels or in latents.

That is its loss, the denoiser that its network is, and how that is sampled.
"""

from dataclasses import replace

from torch import nn

from bottega.diffusion import Denoiser, TimestepDenoiser
from bottega.pipelines import StageSettings
from bottega.pipelines.space import Space
from bottega.recipes.run import DenoiserTask
from bottega.training import Objective
from bottega.training.denoiser_objective import DenoiserObjective, picture_share
from bottega.training.timestep_objective import TimestepObjective

_PIXEL_SPREAD = 0.5


def denoiser_objective(
    task: DenoiserTask,
    space: Space | None,
    *,
    dropout: bool = True,
    rank: int = 0,
    world_size: int = 1,
) -> Objective:
    """The loss that a task asks for.

    Args:
        task: What is learned.
        space: The latents that it works in, opened; None for pixels.
        dropout: Silence what is heard now and then, as a denoiser has to learn it.
        rank: Of this process.
        world_size: How many processes share a batch.
    """
    silenced = picture_share(task.dropout)[1] if dropout else None
    encode = None if space is None else space.encode
    if task.timestep_plan is not None:
        return TimestepObjective(
            plan=task.timestep_plan,
            encode=encode,
            dropout=0.0,
            condition_dropout=silenced,
            intervals=task.intervals,
            rank=rank,
            world_size=world_size,
        )
    return DenoiserObjective(
        noise=task.drawn_noise,
        precond=task.precond,
        dropout=silenced,
        low_res_size=task.low_res_size,
        augmentation=task.augmentation,
        degradations=task.degradations,
        crop_px=task.crop_px,
        encode=encode,
        intervals=task.intervals,
        rank=rank,
        world_size=world_size,
    )


def denoiser_of(task: DenoiserTask, network: nn.Module) -> Denoiser | TimestepDenoiser:
    """The network of a task as a denoiser, in the form that it learns."""
    if task.timestep_plan is not None:
        return task.timestep_plan.denoiser(network)
    return Denoiser(network, task.precond)


def settings_for(task: DenoiserTask, pixels: StageSettings) -> StageSettings:
    """How a task's denoiser is sampled: as ``pixels`` says, but for what latents and timesteps change.

    Latents know no bounds to threshold at, and have a wider spread, which noise has to drown. Whole timesteps are
    walked by DDIM, as RAPHAEL's were.
    """
    chosen = pixels
    if task.latents is not None:
        wider = task.precond.sigma_data / _PIXEL_SPREAD
        chosen = replace(
            chosen,
            thresholding=None,
            sigma_min=chosen.sigma_min * wider,
            sigma_max=chosen.sigma_max * wider,
        )
    if task.timestep_plan is not None:
        schedule = task.timestep_plan.schedule
        chosen = replace(
            chosen,
            sampler="ddim",
            grid="trailing",
            sigma_min=schedule.sigma_min,
            sigma_max=schedule.sigma_max,
        )
    return chosen


__all__ = ["denoiser_objective", "denoiser_of", "settings_for"]
