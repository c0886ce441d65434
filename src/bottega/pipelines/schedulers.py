"""What a diffusers scheduler's configuration says: the noise a network was trained on, and how its makers sampled."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bottega.checkpoint.foreign_files import read_config
from bottega.diffusion import SPACINGS, Dynamic, Static, TimestepPlan
from bottega.diffusion.parameterization import Prediction
from bottega.diffusion.timesteps import Betas
from bottega.errors import CheckpointError, ConfigError, nearest

NAME = "scheduler_config.json"

_SAMPLERS = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "euler_ancestral",
    "DEISMultistepScheduler": "deis",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "DPMSolverSinglestepScheduler": "dpmpp_2m",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "EulerDiscreteScheduler": "euler",
    "HeunDiscreteScheduler": "heun",
    "KDPM2AncestralDiscreteScheduler": "euler_ancestral",
    "KDPM2DiscreteScheduler": "heun",
    "LMSDiscreteScheduler": "dpmpp_2m",
    "PNDMScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "dpmpp_2m",
}
"""Schedulers whose networks we understand, and our sampler that is the same or comes nearest."""

_SAME_STEPS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
)
"""Those whose timesteps are ours of the same spacing; the others are walked along Karras's levels."""

_BETAS = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "squared_cosine",
}
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_REFUSED = ("use_flow_sigmas", "use_beta_sigmas", "use_exponential_sigmas")
"""Settings that change which noise a timestep means, or that we have no grid for."""


@dataclass(frozen=True, kw_only=True)
class Scheduling:
    """A scheduler's configuration in our words.

    ``sampler`` and ``grid`` are what comes nearest to what it would do. ``threshold`` is what it does to every estimate
    of the clean picture; pipelines that paint in latents switch plain clipping off.
    """

    plan: TimestepPlan
    sampler: str
    grid: str
    threshold: Static | Dynamic | None


def read_scheduling(folder: Path) -> Scheduling:
    """Read ``scheduler_config.json`` of a component's folder.

    Raises:
        CheckpointError: For a scheduler, a schedule of betas or a prediction that is not supported, naming those that
            are; and for settings that make no schedule.
    """
    path = folder / NAME
    config = read_config(path)
    try:
        return parse_scheduling(config, where=str(path))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def parse_scheduling(config: Mapping[str, Any], *, where: str) -> Scheduling:
    """The same from a configuration that was read before."""
    named = str(config.get("_class_name"))
    if named not in _SAMPLERS:
        raise CheckpointError(
            f"{where} describes a {named}, which is not supported{nearest(named, _SAMPLERS)}"
        )
    for key in _REFUSED:
        if config.get(key):
            raise CheckpointError(f"{where} has the setting {key}, which is not supported here")
    plan = _plan(config, where)
    plan.schedule  # noqa: B018 - betas that make no schedule are refused here, not while painting
    spacing = str(config.get("timestep_spacing", "leading"))
    if spacing not in SPACINGS:
        raise CheckpointError(
            f"{where}: timestep_spacing {spacing!r} is not known{nearest(spacing, SPACINGS)}"
        )
    alike = named in _SAME_STEPS or (named, spacing) == ("DPMSolverMultistepScheduler", "trailing")
    karras = bool(config.get("use_karras_sigmas")) or not alike
    return Scheduling(
        plan=plan,
        sampler="ddpm" if plan.learned_variance and named == "DDPMScheduler" else _SAMPLERS[named],
        grid="karras" if karras else spacing,
        threshold=_threshold(config, where),
    )


def _plan(config: Mapping[str, Any], where: str) -> TimestepPlan:
    table = config.get("trained_betas")
    return TimestepPlan(
        betas=cast(Betas, _chosen(config, "beta_schedule", _BETAS, where)),
        num_timesteps=int(_number(config, "num_train_timesteps", where)),
        beta_start=_number(config, "beta_start", where),
        beta_end=_number(config, "beta_end", where),
        table=None if table is None else tuple(float(beta) for beta in table),
        prediction=cast(
            Prediction,
            _chosen(
                {"prediction_type": "epsilon", **config}, "prediction_type", _PREDICTIONS, where
            ),
        ),
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)),
        steps_offset=int(config.get("steps_offset", 0)),
        learned_variance=_learns_variance(config, where),
    )


def _learns_variance(config: Mapping[str, Any], where: str) -> bool:
    if config.get("variance_type") == "learned":
        raise CheckpointError(
            f"{where}: variance_type 'learned' is not supported; supported are learned_range and the fixed ones"
        )
    return config.get("variance_type") == "learned_range"


def _threshold(config: Mapping[str, Any], where: str) -> Static | Dynamic | None:
    if config.get("thresholding"):
        cap = float(config.get("sample_max_value", 1.0))
        share = float(config.get("dynamic_thresholding_ratio", 0.995))
        return Dynamic(percentile=share, cap=cap) if cap > 1 else Static()
    if not config.get("clip_sample"):
        return None
    if float(config.get("clip_sample_range", 1.0)) != 1:
        raise CheckpointError(f"{where} clips at another value than 1, which is not supported here")
    return Static()


def _chosen(config: Mapping[str, Any], key: str, known: Mapping[str, str], where: str) -> str:
    value = str(config.get(key))
    if value not in known:
        raise CheckpointError(f"{where}: {key} {value!r} is not supported{nearest(value, known)}")
    return known[value]


def _number(config: Mapping[str, Any], key: str, where: str) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CheckpointError(f"{where} lacks the number {key}")
    return float(value)


__all__ = ["NAME", "Scheduling", "parse_scheduling", "read_scheduling"]
