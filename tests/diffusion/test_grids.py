import math
from itertools import pairwise

import pytest

from bottega.diffusion import GRIDS, explicit, exponential, find_grid, karras, log_snr
from bottega.diffusion.grids import checked
from bottega.errors import ConfigError, InputError


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 18, 1000])
def test_grids_fall_strictly_from_the_top_to_exactly_zero(name, steps):
    sigmas = find_grid(name)(steps, 0.002, 80.0)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == 80
    assert sigmas[-1] == 0
    assert steps == 1 or sigmas[-2] == 0.002
    assert all(after < before for before, after in pairwise(sigmas))


def test_karras_is_equation_5():
    ours = karras(18)
    for i in range(18):
        root = 80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))
        assert ours[i] == pytest.approx(root**7, rel=1e-12)


def test_a_larger_rho_moves_levels_towards_low_noise():
    assert karras(9, rho=9.0)[4] < karras(9, rho=7.0)[4] < karras(9, rho=1.0)[4]
    assert karras(9, rho=1.0)[4] == pytest.approx((80 + 0.002) / 2)


def test_nine_of_25_karras_levels_are_the_top_experts_of_ediff_i():
    assert sum(sigma >= 9.61 for sigma in karras(25)) == 9
    assert sum(0 < sigma <= 0.0757 for sigma in karras(25)) == 5


def test_exponential_levels_have_a_constant_ratio():
    sigmas = exponential(12, 0.01, 20.0)[:-1]
    ratios = [after / before for before, after in pairwise(sigmas)]
    assert ratios == pytest.approx([ratios[0]] * 11, rel=1e-10)


def test_log_snr_levels_are_even_in_the_time_of_the_cosine_schedule():
    times = [math.atan(sigma) * 2 / math.pi for sigma in log_snr(11, 0.01, 100.0)[:-1]]
    gaps = [before - after for before, after in pairwise(times)]
    assert gaps == pytest.approx([gaps[0]] * 10, rel=1e-9)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(
    ("steps", "sigma_min", "sigma_max"),
    [
        (0, 0.002, 80.0),
        (-3, 0.002, 80.0),
        (5, 0.0, 80.0),
        (5, -1.0, 80.0),
        (5, 2.0, 2.0),
        (5, 2.0, 1.0),
        (5, math.nan, 80.0),
        (5, 0.002, math.nan),
        (5, 0.002, math.inf),
    ],
)
def test_impossible_grids_are_refused(name, steps, sigma_min, sigma_max):
    with pytest.raises(InputError):
        GRIDS[name](steps, sigma_min, sigma_max)


@pytest.mark.parametrize("rho", [0.0, -7.0, math.nan, math.inf])
def test_an_impossible_rho_is_refused(rho):
    with pytest.raises(InputError, match="rho"):
        karras(5, rho=rho)


def test_levels_too_close_to_tell_apart_are_refused():
    with pytest.raises(InputError, match="fall strictly"):
        karras(5, 1.0, math.nextafter(1.0, 2.0))


def test_an_explicit_grid_gets_its_closing_zero():
    assert explicit([3.0, 2.0, 1.0]) == [3.0, 2.0, 1.0, 0.0]
    assert explicit((3.0, 0.0)) == [3.0, 0.0]


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([], "at least two"),
        ([0.0], "at least two"),
        ([1.0, 2.0], "fall strictly"),
        ([2.0, 2.0, 1.0], "fall strictly"),
        ([2.0, -1.0], "not negative"),
        ([math.nan, 1.0], "finite"),
        ([math.inf, 1.0], "finite"),
    ],
)
def test_an_explicit_grid_that_cannot_be_walked_is_refused(sigmas, message):
    with pytest.raises(InputError, match=message):
        explicit(sigmas)


def test_a_walk_may_end_above_zero():
    assert checked([3.0, 1.0]) == [3.0, 1.0]


def test_an_unknown_grid_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean karras"):
        find_grid("karas")
