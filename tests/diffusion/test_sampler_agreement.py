"""The same denoiser, walked by us and by diffusers."""

import warnings

import pytest
import torch

from bottega.diffusion import SAMPLERS, Denoiser, explicit, exponential, karras

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers

# diffusers hands tensors to numpy in a way that numpy 2 calls outdated
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

START = 80 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def scheduler(name, steps, **options):
    made = getattr(diffusers, name)(**options)
    made.set_timesteps(steps)
    return made


def walk_of_diffusers(made, network, **step_options):
    """Give a scheduler in EDM form what its network says."""
    x = START.clone()
    for timestep in made.timesteps:
        inputs = made.scale_model_input(x, timestep)
        output = network(inputs, timestep.expand(len(x)))
        x = made.step(output, timestep, x, **step_options).prev_sample
    return x


def walk_of_ours(name, network, sigmas, **options):
    *_, last = SAMPLERS[name](Denoiser(network).bind(None), START, sigmas, **options)
    return last.x


def eps_walk(made, denoise, start, **step_options):
    """Give a scheduler in k-diffusion form the noise that our denoiser sees."""
    x = start.clone()
    for place, timestep in enumerate(made.timesteps):
        made.scale_model_input(x, timestep)
        sigma = made.sigmas[made.step_index if made.step_index is not None else place]
        denoised = denoise(x, sigma.expand(len(x)).to(x))
        x = made.step((x - denoised) / sigma, timestep, x, **step_options).prev_sample
    return x


@pytest.mark.parametrize("steps", [4, 25])
@pytest.mark.parametrize(("grid", "schedule"), [(karras, "karras"), (exponential, "exponential")])
def test_grids_are_those_of_the_edm_schedulers(steps, grid, schedule):
    made = scheduler("EDMEulerScheduler", steps, sigma_max=80.0, sigma_schedule=schedule)
    assert grid(steps) == pytest.approx(made.sigmas.tolist(), rel=2e-5)


@pytest.mark.parametrize("steps", [5, 30])
def test_euler_agrees_with_the_edm_euler_scheduler(network, steps):
    made = scheduler("EDMEulerScheduler", steps, sigma_max=80.0)
    ours = walk_of_ours("euler", network, explicit(made.sigmas.tolist()))
    assert float((ours - walk_of_diffusers(made, network)).abs().max()) < 1e-5


@pytest.mark.parametrize("steps", [5, 30])
def test_dpmpp_2m_agrees_with_the_edm_multistep_scheduler(network, steps):
    made = scheduler("EDMDPMSolverMultistepScheduler", steps, sigma_max=80.0)
    ours = walk_of_ours("dpmpp_2m", network, explicit(made.sigmas.tolist()))
    assert float((ours - walk_of_diffusers(made, network)).abs().max()) < 1e-5


def test_dpmpp_2m_sde_agrees_with_the_edm_multistep_scheduler_on_the_same_noise(
    network, monkeypatch
):
    made = scheduler(
        "EDMDPMSolverMultistepScheduler", 12, sigma_max=80.0, algorithm_type="sde-dpmsolver++"
    )
    draws = torch.randn(12, *START.shape, generator=torch.Generator().manual_seed(9))
    theirs, ours = iter(draws), iter(draws)
    module = diffusers.schedulers.scheduling_edm_dpmsolver_multistep
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(theirs))
    expected = walk_of_diffusers(made, network)
    result = walk_of_ours(
        "dpmpp_2m_sde", network, explicit(made.sigmas.tolist()), noise=lambda: next(ours)
    )
    assert float((result - expected).abs().max()) < 2e-5


@pytest.mark.parametrize("steps", [5, 20])
def test_heun_agrees_with_the_heun_scheduler(network, steps):
    network, start = network.double(), START.double()
    made = scheduler("HeunDiscreteScheduler", steps, use_karras_sigmas=True)
    denoise = Denoiser(network).bind(None)
    sigmas = explicit(list(dict.fromkeys(made.sigmas.tolist())))
    *_, last = SAMPLERS["heun"](denoise, start, sigmas)
    assert float((last.x - eps_walk(made, denoise, start)).abs().max()) < 1e-5


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_agrees_with_linear_multistep_in_sigma(network, order):
    network, start = network.double(), START.double()
    made = scheduler("LMSDiscreteScheduler", 15, use_karras_sigmas=True)
    made.timesteps = made.timesteps[:-1]  # ours is first order onto 0, theirs is not
    denoise = Denoiser(network).bind(None)
    expected = eps_walk(made, denoise, start, order=order)
    *_, last = SAMPLERS["deis"](denoise, start, made.sigmas[:-1].tolist(), order=order)
    assert float((last.x - expected).abs().max()) < 1e-5


def test_euler_ancestral_agrees_with_the_ancestral_scheduler(network, monkeypatch):
    network, start = network.double(), START.double()
    made = scheduler("EulerAncestralDiscreteScheduler", 10)
    draws = torch.randn(10, *start.shape, generator=torch.Generator().manual_seed(9)).double()
    theirs, ours = iter(draws), iter(draws)
    module = diffusers.schedulers.scheduling_euler_ancestral_discrete
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(theirs))
    denoise = Denoiser(network).bind(None)
    expected = eps_walk(made, denoise, start)
    *_, last = SAMPLERS["euler_ancestral"](
        denoise, start, made.sigmas.tolist(), noise=lambda: next(ours)
    )
    assert float((last.x - expected).abs().max()) < 1e-5
