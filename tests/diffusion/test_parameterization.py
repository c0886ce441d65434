import warnings

import pytest
import torch
from torch import nn

from bottega.condition import Condition
from bottega.diffusion import SAMPLERS
from bottega.diffusion.oracles import TwoGaussians
from bottega.diffusion.parameterization import TimestepDenoiser
from bottega.diffusion.schedules import (
    Cosine,
    Linear,
    linear_betas,
    scaled_linear_betas,
    squared_cosine_capped,
)
from bottega.errors import ConfigError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import DDIMScheduler, DDPMScheduler

DATA = TwoGaussians()


class Ideal(nn.Module):
    """What a perfectly trained network of each kind says, from the known data."""

    def __init__(self, schedule, prediction, out_channels=None):
        super().__init__()
        self.schedule, self.prediction, self.out_channels = schedule, prediction, out_channels

    def prepare(self, condition):
        return ("prepared", condition)

    def forward(self, z, timestep, context):
        times, where = timestep.unique(return_inverse=True)
        sigma = torch.tensor([self.schedule.sigma(t) for t in self.times(times)], dtype=z.dtype)
        sigma = sigma[where]
        abar = (1 / (1 + sigma.square()))[:, None, None, None]
        clean = DATA.denoise(z / abar.sqrt(), sigma)
        eps = (z - abar.sqrt() * clean) / (1 - abar).sqrt()
        v = abar.sqrt() * eps - (1 - abar).sqrt() * clean
        output = {"eps": eps, "x0": clean, "v": v}[self.prediction]
        if self.out_channels is not None:
            output = torch.cat([output, torch.full_like(output, 99.0)], 1)
        return output

    def times(self, timestep):
        whole = not isinstance(self.schedule, (Cosine, Linear))
        return [round(float(t)) if whole else float(t) for t in timestep]


SCHEDULES = [linear_betas(), scaled_linear_betas(), squared_cosine_capped(), Cosine(), Linear()]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_every_kind_of_network_becomes_the_ideal_denoiser(schedule, prediction):
    denoiser = TimestepDenoiser(Ideal(schedule, prediction), schedule, prediction)
    sigma = torch.tensor(schedule.sigmas(7)[1:-1], dtype=torch.float64)
    x = torch.randn(len(sigma), 3, 4, 4, dtype=torch.float64) * sigma[:, None, None, None]
    ideal = DATA.denoise(x, sigma)
    assert torch.allclose(denoiser(x, sigma), ideal, atol=2e-5)


def test_channels_of_a_learned_variance_are_cut_off():
    schedule = linear_betas()
    plain = TimestepDenoiser(Ideal(schedule, "eps"), schedule, "eps")
    learned = TimestepDenoiser(Ideal(schedule, "eps", out_channels=6), schedule, "eps")
    x, sigma = torch.randn(2, 3, 4, 4), torch.tensor([schedule.sigma(100), schedule.sigma(800)])
    assert torch.equal(learned(x, sigma), plain(x, sigma))


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_agrees_with_the_ddim_scheduler(make_network, prediction, eta):
    made = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type={"eps": "epsilon", "v": "v_prediction", "x0": "sample"}[prediction],
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    made.set_timesteps(20)
    network, schedule = make_network().double(), scaled_linear_betas()
    start = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    draws = torch.randn(20, *start.shape, dtype=torch.float64)
    z = start.clone()
    for timestep, draw in zip(made.timesteps, draws, strict=True):
        output = network(z, timestep.expand(2))
        kwargs = {"eta": eta, "variance_noise": draw} if eta > 0 else {}
        z = made.step(output, timestep, z, **kwargs).prev_sample
    sigmas = schedule.sigmas(20)
    ours, noise = TimestepDenoiser(network, schedule, prediction).bind(None), iter(draws)
    x = start * (1 + sigmas[0] ** 2) ** 0.5
    *_, last = SAMPLERS["ddim"](ours, x, sigmas, noise=lambda: next(noise), eta=eta)
    assert float((last.x - z).abs().max()) < 1e-4 * float(z.abs().max())


@pytest.mark.parametrize(("variance", "gamma"), [("fixed_small", 0.0), ("fixed_large", 1.0)])
def test_the_ancestral_sampler_agrees_with_the_ddpm_scheduler(
    make_network, monkeypatch, variance, gamma
):
    import diffusers.schedulers.scheduling_ddpm as module

    made = DDPMScheduler(variance_type=variance, clip_sample=False, timestep_spacing="trailing")
    made.set_timesteps(1000)
    made.timesteps = made.timesteps[-40:]
    network, schedule = make_network().double(), linear_betas()
    start = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    draws = torch.randn(40, *start.shape, dtype=torch.float64)
    theirs, ours = iter(draws), iter(draws)
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(theirs))
    z = start.clone()
    for timestep in made.timesteps:
        z = made.step(network(z, timestep.expand(2)), timestep, z).prev_sample
    sigmas = schedule.sigmas(1000)[-41:]
    x = start * (1 + sigmas[0] ** 2) ** 0.5
    *_, last = SAMPLERS["imagen_ancestral"](
        TimestepDenoiser(network, schedule, "eps").bind(None),
        x,
        sigmas,
        noise=lambda: next(ours),
        gamma=gamma,
    )
    assert float((last.x - z).abs().max()) < 1e-4


def test_a_zero_terminal_schedule_paints_from_noise_alone_with_v():
    schedule = scaled_linear_betas().zero_terminal_snr()
    denoiser = TimestepDenoiser(Ideal(schedule, "v"), schedule, "v")
    sigmas = schedule.sigmas(100)
    x = sigmas[0] * torch.randn(4000, 1, 1, 1, dtype=torch.float64)
    *_, last = SAMPLERS["ddim"](denoiser.bind(None), x, sigmas)
    assert float((last.x < -0.1).double().mean()) == pytest.approx(0.35, abs=0.03)
    with pytest.raises(ConfigError, match="v or x0"):
        TimestepDenoiser(Ideal(schedule, "eps"), schedule, "eps")


def test_a_bfloat16_network_computes_in_bfloat16_and_the_rest_in_float32(network, eps):
    schedule = linear_betas()
    denoiser = TimestepDenoiser(network.to(torch.bfloat16), schedule, "v")
    assert denoiser(eps, torch.ones(2)).dtype == torch.float32
    assert network.seen_dtypes == [torch.bfloat16]


def test_bound_denoisers_pass_what_was_prepared(eps):
    seen = []

    class Listens(nn.Module):
        def prepare(self, condition):
            return ("prepared", condition)

        def forward(self, z, timestep, context):
            seen.append(context)
            return z

    denoiser, condition = TimestepDenoiser(Listens(), Cosine(), "v"), Condition()
    denoiser.bind(denoiser.prepare(condition))(eps, torch.ones(2))
    assert seen == [("prepared", condition)]


def test_an_unknown_prediction_is_refused(network):
    with pytest.raises(ConfigError, match="eps, x0 or v"):
        TimestepDenoiser(network, Cosine(), "epsilon")
