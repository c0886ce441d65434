"""Schedulers' settings become noise levels and timesteps that agree with diffusers' own, and samplers step alike."""

import json

import pytest
import torch
from foreign_models import SD_BETAS

from bottega.diffusion import Dynamic, Static, TimestepDenoiser, TimestepPlan, find_sampler
from bottega.errors import CheckpointError, ConfigError, InputError
from bottega.pipelines.schedulers import parse_scheduling, read_scheduling

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' own


def theirs(name, **settings):
    import diffusers

    return getattr(diffusers, name)(**settings)


def ours(scheduler):
    return parse_scheduling(json.loads(scheduler.to_json_string()), where="here")


@pytest.mark.parametrize(
    "settings",
    [
        SD_BETAS,
        {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
        {"beta_schedule": "squaredcos_cap_v2"},
        {**SD_BETAS, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
        {"trained_betas": [0.01 + 0.001 * i for i in range(100)], "num_train_timesteps": 100},
    ],
)
def test_the_signal_left_at_every_timestep_is_that_of_diffusers(settings):
    scheduler = theirs("DDIMScheduler", **settings)
    found = torch.tensor(ours(scheduler).plan.schedule.alphas_bar)
    expected = scheduler.alphas_cumprod.double()
    assert torch.allclose(found.double()[:-1], expected[:-1], rtol=2e-4, atol=0)
    assert float(expected[-1]) <= float(found[-1]) * 1.001 + 1e-12


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 7, 10, 50])
def test_whole_timesteps_are_those_of_diffusers(spacing, steps):
    scheduler = theirs(
        "DDIMScheduler", **SD_BETAS, steps_offset=1, timestep_spacing=spacing, clip_sample=False
    )
    scheduler.set_timesteps(steps)
    plan = ours(scheduler).plan
    found = plan.whole_timesteps(steps, spacing)
    if spacing != "linspace" or steps > 1:  # theirs visits timestep 0 alone, ours does as well
        assert found == scheduler.timesteps.tolist()
    assert plan.sigmas(steps, spacing)[-1] == 0


def walk(sampler, denoise, x, sigmas, noise=None):
    for step in find_sampler(sampler)(denoise, x, sigmas, noise=noise):
        x = step.x
    return x


@pytest.mark.parametrize(
    ("name", "sampler", "settings"),
    [
        ("DDIMScheduler", "ddim_0", {"clip_sample": False, "steps_offset": 1}),
        ("DDPMScheduler", "euler_ancestral", {"clip_sample": False}),
        ("DDPMScheduler", "euler_ancestral", {"thresholding": True, "sample_max_value": 1.5}),
        ("EulerDiscreteScheduler", "euler", {"timestep_spacing": "leading", "steps_offset": 1}),
        ("DPMSolverMultistepScheduler", "dpmpp_2m", {"timestep_spacing": "trailing"}),
    ],
)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ten_steps_of_a_scheduler_are_ten_steps_of_our_sampler(name, sampler, settings, prediction):
    """The network is a smooth function of z and t, so nothing but the schedulers can differ."""
    scheduler = theirs(
        name,
        **SD_BETAS,
        prediction_type=prediction,
        **settings,
        **({"final_sigmas_type": "zero"} if name.startswith("DPM") else {}),
        **({"set_alpha_to_one": True} if name.startswith("DDIM") else {}),
    )
    scheduling = ours(scheduler)

    def network(z, timestep):
        return torch.tanh(0.7 * z + timestep.view(-1, 1, 1, 1) / 900).flip(-1)

    eps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    draws = [torch.randn(eps.shape, generator=torch.Generator().manual_seed(k)) for k in range(9)]

    scheduler.set_timesteps(10)
    sigmas = scheduling.plan.sigmas(10, scheduling.grid)
    z = eps * scheduler.init_noise_sigma
    start = eps * (sigmas[0] ** 2 + 1) ** 0.5
    if name.startswith("DPM"):
        assert scheduling.grid == "trailing"
    their_draws = iter(draws)
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(z, t), t.float().expand(len(z)))
        if name == "DDPMScheduler":
            z = ddpm_step(scheduler, output, t, z, their_draws)
        else:
            z = scheduler.step(output, t, z).prev_sample

    denoiser = scheduling.plan.denoiser(Network(network))
    our_draws = iter(draws)

    def denoise(x, sigma):
        estimate = denoiser(x, sigma)
        threshold = scheduling.threshold
        return estimate if threshold is None else threshold(estimate)

    chosen = "ddim" if sampler == "ddim_0" else sampler
    found = walk(chosen, denoise, start, sigmas, noise=lambda: next(our_draws))
    assert float((found - z).abs().max() / z.abs().max()) < 1e-4


def ddpm_step(scheduler, output, t, z, draws):
    """One step with noise of our choosing."""
    from unittest.mock import patch

    def fixed(shape, **_):
        return next(draws)

    with patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", fixed):
        return scheduler.step(output, t, z).prev_sample


class Network(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z, timestep, context):
        return self.function(z, timestep)


def test_thresholds_are_read_as_static_or_dynamic():
    settings = {"thresholding": True, "dynamic_thresholding_ratio": 0.95, **SD_BETAS}
    assert ours(theirs("DDPMScheduler", **settings, sample_max_value=1.5)).threshold == Dynamic(
        percentile=0.95, cap=1.5
    )
    assert ours(theirs("DDPMScheduler", **settings)).threshold == Static()
    assert ours(theirs("DDPMScheduler", **SD_BETAS)).threshold == Static()
    assert ours(theirs("DDPMScheduler", **SD_BETAS, clip_sample=False)).threshold is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "not supported"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid' is not supported"),
        ({"prediction_type": "flow_prediction"}, "prediction_type"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"timestep_spacing": "random"}, "timestep_spacing"),
        ({"beta_start": None}, "lacks the number beta_start"),
        ({"beta_start": 2.0}, "betas need"),
        ({"rescale_betas_zero_snr": True}, "zero_terminal_snr needs"),
        ({"clip_sample": True, "clip_sample_range": 2.0}, "clips at another value"),
        ({"variance_type": "learned"}, "variance_type 'learned' is not supported"),
        ({"a_setting_of_tomorrow": 3}, "a_setting_of_tomorrow=3, which is not supported"),
        ({"timestep_type": "continuous"}, "timestep_type 'continuous' is not supported"),
        ({"predict_epsilon": False}, "predict_epsilon False is not supported"),
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ({"beta_start": -1.0}, "betas need"),
        ({"beta_start": float("nan")}, "lacks the number beta_start"),
        ({"num_train_timesteps": 10**6}, "at most 100,000"),
        ({"num_train_timesteps": 10**12}, "lacks the number num_train_timesteps"),
        ({"num_train_timesteps": 10.5}, "num_train_timesteps is a whole number"),
        ({"steps_offset": "one"}, "lacks the number steps_offset"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas must be 1000 numbers"),
        ({"trained_betas": "linear"}, "trained_betas must be 1000 numbers"),
        ({"thresholding": True, "sample_max_value": "big"}, "lacks the number sample_max_value"),
    ],
)
def test_a_scheduler_that_is_not_understood_is_refused_by_name(tmp_path, change, words):
    config = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        **SD_BETAS,
        "clip_sample": False,
        **change,
    }
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words):
        read_scheduling(tmp_path)


def test_what_idles_and_what_only_steers_their_solvers_is_let_through(tmp_path):
    config = {
        "_class_name": "DPMSolverMultistepScheduler",
        "num_train_timesteps": 1000,
        **SD_BETAS,
        "a_setting_of_tomorrow": None,
        "another": False,
        "_note": "hello",
        "solver_order": 2,
        "tensor_format": "pt",
        "predict_epsilon": True,
    }
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    assert read_scheduling(tmp_path).sampler == "dpmpp_2m"


def test_a_plan_refuses_what_makes_no_sense():
    with pytest.raises(ConfigError, match="must be eps"):
        TimestepDenoiser(Network(None), TimestepPlan().schedule, "epsil")
    with pytest.raises(ConfigError, match="steps_offset"):
        TimestepPlan(steps_offset=1000)
    with pytest.raises(InputError, match=r"1\.\.1000"):
        TimestepPlan().whole_timesteps(1001, "leading")
    with pytest.raises(InputError, match="take fewer"):
        TimestepPlan(steps_offset=1).whole_timesteps(1000, "leading")
    with pytest.raises(ConfigError, match="spacing"):
        TimestepPlan().whole_timesteps(10, "sideways")
