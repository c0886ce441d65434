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

_HUGE = 1e9

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
_REFUSED = (
    "use_flow_sigmas",
    "use_beta_sigmas",
    "use_exponential_sigmas",
    "use_dynamic_shifting",
    "shift_terminal",
)
"""Settings that change which noise a timestep means, or that we have no grid for."""

_READ = (
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "num_train_timesteps",
    "predict_epsilon",
    "prediction_type",
    "rescale_betas_zero_snr",
    "sample_max_value",
    "steps_offset",
    "thresholding",
    "timestep_spacing",
    "timestep_type",
    "trained_betas",
    "use_karras_sigmas",
    "variance_type",
    *_REFUSED,
)
_OF_STEPS = (
    "algorithm_type",
    "disable_corrector",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "predict_x0",
    "set_alpha_to_one",
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "tensor_format",
    "time_shift_type",
    "use_lu_lambdas",
)
"""Settings that say how a solver of theirs walks. None changes what a network learned, and we walk our own way."""


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
    _check_keys(config, where)
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


def _check_keys(config: Mapping[str, Any], where: str) -> None:
    """Refuse what is not understood. Null and false are how newer releases write down that they do nothing new."""
    for key, value in config.items():
        idle = value is None or value is False or key.startswith("_")
        if key in _REFUSED and value:
            raise CheckpointError(f"{where} has the setting {key}, which is not supported here")
        if key not in (*_READ, *_OF_STEPS) and not idle:
            raise CheckpointError(
                f"{where} has the setting {key}={value!r}, which is not supported here"
            )
    for key, usual in (("timestep_type", "discrete"), ("predict_epsilon", True)):
        if config.get(key, usual) not in (usual, None):
            raise CheckpointError(f"{where}: {key} {config[key]!r} is not supported; only {usual}")


def _table(config: Mapping[str, Any], where: str) -> tuple[float, ...] | None:
    """Betas that are given one by one."""
    given: Any = config.get("trained_betas")
    if given is None:
        return None
    count = _whole(config, "num_train_timesteps", where)
    betas = cast(list[Any], given) if isinstance(given, list) else []
    if len(betas) != count or not all(isinstance(beta, (int, float)) for beta in betas):
        raise CheckpointError(
            f"{where}: trained_betas must be {count} numbers, one for each of num_train_timesteps"
        )
    return tuple(float(beta) for beta in betas)


def _plan(config: Mapping[str, Any], where: str) -> TimestepPlan:
    return TimestepPlan(
        betas=cast(Betas, _chosen(config, "beta_schedule", _BETAS, where)),
        num_timesteps=_whole(config, "num_train_timesteps", where),
        beta_start=_number(config, "beta_start", where),
        beta_end=_number(config, "beta_end", where),
        table=_table(config, where),
        prediction=cast(
            Prediction,
            _chosen(
                {"prediction_type": "epsilon", **config}, "prediction_type", _PREDICTIONS, where
            ),
        ),
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)),
        steps_offset=_whole({"steps_offset": 0, **config}, "steps_offset", where),
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
        cap = _number({"sample_max_value": 1.0, **config}, "sample_max_value", where)
        ratio = "dynamic_thresholding_ratio"
        share = _number({ratio: 0.995, **config}, ratio, where)
        return Dynamic(percentile=share, cap=cap) if cap > 1 else Static()
    if not config.get("clip_sample"):
        return None
    if _number({"clip_sample_range": 1.0, **config}, "clip_sample_range", where) != 1:
        raise CheckpointError(f"{where} clips at another value than 1, which is not supported here")
    return Static()


def _chosen(config: Mapping[str, Any], key: str, known: Mapping[str, str], where: str) -> str:
    value = str(config.get(key))
    if value not in known:
        raise CheckpointError(f"{where}: {key} {value!r} is not supported{nearest(value, known)}")
    return known[value]


def _number(config: Mapping[str, Any], key: str, where: str) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _HUGE:
        raise CheckpointError(f"{where} lacks the number {key}")
    return float(value)


def _whole(config: Mapping[str, Any], key: str, where: str) -> int:
    value = _number(config, key, where)
    if value != int(value):
        raise CheckpointError(f"{where}: {key} is a whole number, got {value:g}")
    return int(value)


__all__ = ["NAME", "Scheduling", "parse_scheduling", "read_scheduling"]
