import math
from itertools import pairwise

import pytest
import torch

from bottega.diffusion import SAMPLERS, LogNormal, karras
from bottega.ensemble import (
    Between,
    Complement,
    Node,
    grid_with_steps_per_expert,
    steps_per_expert,
    steps_table,
)
from bottega.errors import ConfigError, InputError

NOISE = LogNormal()
SPLIT = {"inner": Node(2, 1), "outer": Complement((Node(2, 1),))}
WAN = {"high": Between(0.9), "low": Between(0.0, 0.9)}


def test_the_table_of_ediff_is_three_experts_on_25_steps(parts):
    calls = steps_table(parts, NOISE, karras(25))
    assert [call.step for call in calls] == list(range(1, 26))
    assert [call.sigma for call in calls] == karras(25)[:-1]
    assert [call.expert for call in calls] == ["high"] * 9 + ["middle"] * 11 + ["low"] * 5
    assert steps_per_expert(calls) == {"high": 9, "middle": 11, "low": 5}


def test_the_calls_inside_a_step_have_rows_of_their_own(parts):
    calls = steps_table(parts, NOISE, [12.0, 4.0, 0.01, 0.0], sampler="deis_kutta")
    assert [(call.step, call.expert) for call in calls] == [
        (1, "high"),
        (1, "middle"),
        (1, "middle"),
        (2, "middle"),
        (2, "middle"),
        (2, "low"),
        (3, "low"),
    ]
    assert [call.sigma for call in calls] == pytest.approx([12, 8, 4, 4, 2.005, 0.01, 0.01])
    assert steps_per_expert(calls) == {"high": 1, "middle": 1, "low": 1}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_table_is_what_a_mixture_does(sampler, parts, denoisers, join, condition):
    heard: list[tuple[float, str]] = []
    mixture = join(denoisers)
    context = mixture.prepare(condition)

    def denoise(x, sigma):
        heard.append((float(sigma[0]), mixture.expert_for(float(sigma[0])).name))
        return mixture(x, sigma, context)

    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sigmas = [80.0, 4.0, 0.04, 0.0]
    with torch.no_grad():
        list(SAMPLERS[sampler](denoise, x, sigmas, noise=lambda: torch.zeros_like(x)))
    calls = steps_table(mixture.parts, mixture.noise, sigmas, sampler=sampler)
    assert [call.sigma for call in calls] == pytest.approx([sigma for sigma, _ in heard])
    assert [call.expert for call in calls] == [name for _, name in heard]


def test_an_unknown_sampler_or_a_gap_is_refused(parts):
    with pytest.raises(ConfigError, match="did you mean heun"):
        steps_table(parts, NOISE, karras(3), sampler="huen")
    with pytest.raises(ConfigError, match="belongs to no expert denoiser"):
        steps_table({"half": Node(1, 0)}, NOISE, karras(3))


@pytest.mark.parametrize(
    "steps",
    [
        {"high": 9, "middle": 11, "low": 5},
        {"high": 1, "middle": 1, "low": 1},
        {"high": 20, "middle": 3, "low": 2},
        {"high": 4, "middle": 0, "low": 7},
        {"high": 4, "middle": 7, "low": 0},
        {"high": 3, "middle": 0, "low": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun", "deis_kutta"])
def test_every_expert_has_the_steps_it_was_given(steps, sampler, parts):
    sigmas = grid_with_steps_per_expert(parts, NOISE, steps)
    assert len(sigmas) == sum(steps.values()) + 1
    assert sigmas[0] == 80
    assert sigmas[-1] == 0
    counted = steps_per_expert(steps_table(parts, NOISE, sigmas, sampler=sampler))
    assert counted == {name: count for name, count in steps.items() if count}


def test_the_last_level_is_sigma_min_when_the_lowest_noise_has_two_steps(parts):
    sigmas = grid_with_steps_per_expert(
        parts, NOISE, {"high": 2, "middle": 2, "low": 2}, sigma_min=0.004, sigma_max=50.0
    )
    assert (sigmas[0], sigmas[-2]) == (50.0, pytest.approx(0.004))


def test_levels_inside_an_interval_are_evenly_spaced_as_on_a_karras_grid(parts):
    sigmas = grid_with_steps_per_expert(parts, NOISE, {"high": 5, "middle": 8, "low": 4}, rho=3.0)
    bent = [sigma ** (1 / 3) for sigma in sigmas[:-1]]
    for first, last in [(0, 5), (5, 13), (13, 16)]:
        gaps = [a - b for a, b in pairwise(bent[first : last + 1])]
        assert gaps == pytest.approx([gaps[0]] * len(gaps))


def test_hands_change_at_the_bounds(parts):
    sigmas = grid_with_steps_per_expert(parts, NOISE, {"high": 5, "middle": 8, "low": 4})
    assert sigmas[5] == pytest.approx(NOISE.quantile(511 / 512))
    assert sigmas[13] == pytest.approx(NOISE.quantile(1 / 8))


def test_one_expert_alone_has_the_karras_grid_itself():
    ours = grid_with_steps_per_expert({"all": Node(0, 0)}, NOISE, {"all": 12})
    assert ours == pytest.approx(karras(12))


def test_a_boundary_at_a_sigma_takes_steps_per_expert_too():
    sigmas = grid_with_steps_per_expert(WAN, NOISE, {"high": 3, "low": 2})
    table = steps_table(WAN, NOISE, sigmas)
    assert [call.expert for call in table] == ["high"] * 3 + ["low"] * 2
    assert table[3].sigma == pytest.approx(0.9)


def test_who_owns_two_intervals_has_its_steps_shared_by_their_length():
    sigmas = grid_with_steps_per_expert(SPLIT, NOISE, {"inner": 2, "outer": 12})
    table = steps_table(SPLIT, NOISE, sigmas)
    assert steps_per_expert(table) == {"inner": 2, "outer": 12}
    above = sum(call.sigma > 0.2 for call in table if call.expert == "outer")
    upper = 80 ** (1 / 7) - NOISE.quantile(0.5) ** (1 / 7)
    lower = NOISE.quantile(0.25) ** (1 / 7) - 0.002 ** (1 / 7)
    assert above == round(12 * upper / (upper + lower))


def test_noise_that_a_walk_never_visits_needs_no_steps(parts):
    short = {"sigma_min": 0.2, "sigma_max": 5.0}
    sigmas = grid_with_steps_per_expert(parts, NOISE, {"high": 0, "middle": 6, "low": 0}, **short)
    assert sigmas == pytest.approx(karras(6, 0.2, 5.0))


def test_a_walk_may_begin_exactly_on_a_bound():
    sigmas = grid_with_steps_per_expert(WAN, NOISE, {"high": 1, "low": 3}, sigma_max=0.9)
    assert [call.expert for call in steps_table(WAN, NOISE, sigmas)] == ["high"] + ["low"] * 3
    with pytest.raises(InputError, match="fall strictly"):
        grid_with_steps_per_expert(WAN, NOISE, {"high": 3, "low": 3}, sigma_max=0.9)


@pytest.mark.parametrize(
    ("steps", "options", "words"),
    [
        ({"high": 0, "middle": 3, "low": 3}, {}, "high owns sigma_max = 80"),
        ({"high": 3, "middle": -1, "low": 3}, {}, "middle: a number of steps is 0 or more"),
        ({"high": 3, "midle": 3, "low": 3}, {}, "did you mean middle?"),
        ({"high": 3, "middle": 3}, {}, "missing for low"),
        ({"high": 1, "middle": 3, "low": 1}, {"sigma_min": 0.2}, "low has no noise between"),
        ({"high": 1, "middle": 3, "low": 1}, {"sigma_max": 2.0}, "high has no noise between"),
        ({"high": 1, "middle": 3, "low": 1}, {"sigma_min": 0.0}, "0 < sigma_min < sigma_max"),
        ({"high": 1, "middle": 3, "low": 1}, {"sigma_max": math.inf}, "0 < sigma_min"),
        ({"high": 1, "middle": 3, "low": 1}, {"rho": 0.0}, "rho above 0"),
    ],
)
def test_steps_that_cannot_be_are_refused(steps, options, words, parts):
    with pytest.raises(InputError) as caught:
        grid_with_steps_per_expert(parts, NOISE, steps, **options)
    assert words in str(caught.value)
