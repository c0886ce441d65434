import math
import warnings

import pytest
import torch

from bottega.diffusion.schedules import (
    LEAST_SIGNAL,
    Cosine,
    Discrete,
    Linear,
    linear_betas,
    scaled_linear_betas,
    squared_cosine_capped,
)
from bottega.errors import ConfigError, InputError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import DDIMScheduler, DDPMScheduler

EVERY = [
    Cosine(),
    Cosine(normalized=True),
    Linear(),
    linear_betas(),
    scaled_linear_betas(),
    squared_cosine_capped(),
    scaled_linear_betas().zero_terminal_snr(),
]


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (linear_betas(), "linear"),
        (scaled_linear_betas(1000, 0.0001, 0.02), "scaled_linear"),
        (squared_cosine_capped(), "squaredcos_cap_v2"),
    ],
)
def test_tables_are_those_of_diffusers(ours, name):
    theirs = DDPMScheduler(beta_schedule=name).alphas_cumprod
    assert torch.allclose(torch.tensor(ours.alphas_bar), theirs, rtol=1e-4, atol=3e-8)


def test_the_rescaled_table_is_that_of_diffusers():
    theirs = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        rescale_betas_zero_snr=True,
    ).alphas_cumprod
    ours = scaled_linear_betas().zero_terminal_snr()
    assert torch.allclose(torch.tensor(ours.alphas_bar), theirs, atol=1e-5)
    assert ours.alphas_bar[0] == pytest.approx(scaled_linear_betas().alphas_bar[0])
    assert ours.alphas_bar[-1] == LEAST_SIGNAL
    assert ours.sigma_max == pytest.approx(4096, rel=1e-6)
    assert ours.ends_without_signal
    assert not scaled_linear_betas().ends_without_signal


def test_the_last_level_of_stable_diffusion_is_the_known_one():
    assert scaled_linear_betas().sigma_max == pytest.approx(14.6146, abs=1e-3)
    assert scaled_linear_betas().sigma_min == pytest.approx(0.0292, abs=1e-4)


@pytest.mark.parametrize("schedule", EVERY, ids=lambda schedule: type(schedule).__name__)
def test_grids_are_evenly_spaced_in_time(schedule):
    sigmas = schedule.sigmas(10)
    assert sigmas[0] == schedule.sigma_max
    assert sigmas[-1] == 0
    times = schedule.timestep(torch.tensor(sigmas[:-1], dtype=torch.float64))
    gaps = (times[:-1] - times[1:]) / (times[0] + (times[0] > 1))
    assert torch.allclose(gaps, torch.full_like(gaps, 0.1), atol=1e-4)
    with pytest.raises(InputError, match="steps"):
        schedule.sigmas(0)


@pytest.mark.parametrize("schedule", EVERY[3:])
def test_whole_timesteps_come_back_from_their_levels(schedule):
    steps = [0, 1, 17, 500, 998, 999]
    levels = torch.tensor([schedule.sigma(t) for t in steps], dtype=torch.float64)
    assert schedule.timestep(levels).tolist() == pytest.approx(steps, abs=1e-3)


def test_between_timesteps_the_logarithm_of_the_level_is_linear():
    schedule = linear_betas()
    middle = math.sqrt(schedule.sigma(400) * schedule.sigma(401))
    time = schedule.timestep(torch.tensor([middle], dtype=torch.float64))
    assert float(time) == pytest.approx(400.5, abs=1e-4)


@pytest.mark.parametrize("schedule", EVERY[:3])
def test_continuous_times_come_back_from_their_levels(schedule):
    times = [0.0, 1e-3, 0.25, 0.5, 0.9, 0.999]
    levels = torch.tensor([schedule.sigma(t) for t in times], dtype=torch.float64)
    assert schedule.timestep(levels).tolist() == pytest.approx(times, abs=1e-6)


@pytest.mark.parametrize("schedule", EVERY, ids=lambda schedule: type(schedule).__name__)
def test_levels_beyond_the_ends_get_the_time_of_the_end(schedule):
    ends = schedule.timestep(torch.tensor([schedule.sigma_min, schedule.sigma_max]).double())
    beyond = schedule.timestep(torch.tensor([0.0, 1e9]).double())
    assert torch.allclose(beyond, ends, atol=1e-3)
    assert beyond.dtype == torch.float32


def test_the_cosine_schedule_is_the_formula_of_imagen():
    for t in (0.0, 0.2, 0.7):
        share = math.cos(math.pi / 2 * (t + 0.008) / 1.008) ** 2
        log_snr = -math.log(1 / share - 1)
        assert -2 * math.log(Cosine().sigma(t)) == pytest.approx(log_snr, rel=1e-9)
    assert Cosine().sigma_min == pytest.approx(0.0125, abs=1e-4)
    assert Cosine(normalized=True).sigma_min == 0


def test_the_continuous_linear_schedule_follows_the_thousand_steps():
    table = linear_betas()
    for step in (100, 500, 999):
        assert Linear().sigma((step + 1) / 1000) == pytest.approx(table.sigma(step), rel=0.04)


def test_a_grid_of_all_timesteps_visits_each():
    schedule = linear_betas(50, 1e-3, 0.2)
    assert schedule.sigmas(50) == [*[schedule.sigma(t) for t in range(49, -1, -1)], 0.0]
    with pytest.raises(InputError, match=r"1\.\.50"):
        schedule.sigmas(51)


@pytest.mark.parametrize("steps", [7, 33, 50])
def test_grids_of_whole_timesteps_are_diffusers_trailing_ones(steps):
    made = DDIMScheduler(timestep_spacing="trailing")
    made.set_timesteps(steps)
    ours = linear_betas(1000, 1e-4, 0.02).sigmas(steps)[:-1]
    assert ours == pytest.approx([linear_betas().sigma(int(t)) for t in made.timesteps])


@pytest.mark.parametrize(
    "table",
    [
        (0.5,),
        (0.5, 0.6),
        (0.5, 0.5),
        (1.0, 0.5),
        (0.9, 0.5, -0.1),
        (0.9, math.nan),
        (0.9, 0.0, 0.0),
    ],
)
def test_tables_that_do_not_fall_are_refused(table):
    with pytest.raises(ConfigError):
        Discrete(table)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cosine(s=-1.0),
        lambda: Cosine(t_max=1.0),
        lambda: Linear(beta_start=0.0),
        lambda: Linear(beta_end=0.05),
        lambda: linear_betas(1),
        lambda: linear_betas(10, 0.0, 0.1),
        lambda: scaled_linear_betas(10, 0.2, 0.1),
        lambda: squared_cosine_capped(0),
    ],
)
def test_impossible_schedules_are_refused(make):
    with pytest.raises(ConfigError):
        make()
