"""Parts of the noise of timesteps drawn evenly: every timestep is in one part, and is routed to whoever drew it."""

import math
from itertools import pairwise

import pytest
import torch

from bottega.diffusion import TimestepPlan
from bottega.ensemble import (
    Between,
    Complement,
    Node,
    find_tile,
    probability_intervals,
    sigma_bounds,
    tiles,
)
from bottega.errors import ConfigError

SD = TimestepPlan(betas="scaled_linear", beta_start=0.00085, beta_end=0.012)
IF = TimestepPlan(betas="squared_cosine")
ODD = TimestepPlan(betas="scaled_linear", beta_start=0.01, beta_end=0.2, num_timesteps=37)
PLANS = {"Stable Diffusion": SD, "DeepFloyd IF": IF, "37 timesteps": ODD}
TILINGS = {
    "two halves": (Node(1, 0), Node(1, 1)),
    "eighths": tuple(Node(3, k) for k in range(8)),
    "eDiff-I's": (Node(5, 31), Node(3, 0), Complement((Node(5, 31), Node(3, 0)))),
    "by sigma": (Between(0.0, 0.9), Between(0.9, math.inf)),
    "mixed": (Node(1, 0), Between(SD.quantile(0.5), None)),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_quantiles_and_shares_undo_each_other_at_every_timestep(plan):
    count = plan.num_timesteps
    for k in range(count + 1):
        assert plan.cdf(plan.quantile(k / count)) == k / count
    levels = [plan.quantile(k / count) for k in range(count + 1)]
    assert levels[0] == 0 and levels[-1] == math.inf
    assert all(
        below < plan.schedule.sigma(t) < above for t, (below, above) in enumerate(pairwise(levels))
    )


def test_a_quantile_is_that_of_evenly_drawn_timesteps():
    steps = torch.randint(0, 1000, (200_000,), generator=torch.Generator().manual_seed(0))
    drawn = torch.tensor([SD.schedule.sigma(t) for t in range(1000)])[steps]
    for u in (0.01, 0.125, 0.5, 0.9, 1 - 2**-9):
        assert float((drawn < SD.quantile(u)).double().mean()) == pytest.approx(u, abs=3e-3)
        assert SD.cdf(float(drawn.quantile(torch.tensor(u)))) == pytest.approx(u, abs=5e-3)


@pytest.mark.parametrize("tiling", TILINGS.values(), ids=TILINGS)
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_every_timestep_is_drawn_by_the_part_that_is_called_at_its_noise(plan, tiling):
    if tiling is TILINGS["mixed"] and plan is not SD:
        pytest.skip("its sigma is Stable Diffusion's")
    laid = tiles(tiling, plan)
    owners = {}
    for index, part in enumerate(tiling):
        for timestep in plan.timesteps_within(probability_intervals(part, plan)):
            assert timestep not in owners
            owners[timestep] = index
    assert sorted(owners) == list(range(plan.num_timesteps))
    for timestep, index in owners.items():
        assert find_tile(laid, plan.schedule.sigma(timestep)).part == index


def test_every_leaf_of_a_level_has_its_timesteps_until_there_are_too_many_leaves():
    counts = [len(IF.timesteps_within(Node(9, k).probability)) for k in range(512)]
    assert set(counts) == {1, 2} and sum(counts) == 1000
    assert sigma_bounds(Node(9, 511), IF)[0][1] == math.inf
    with pytest.raises(ConfigError, match="none of the timesteps lies in 11/2047"):
        sigma_bounds(Node(11, 2047), IF)
    assert len(sigma_bounds(Complement((Node(11, 2046), Node(1, 0))), IF)) == 1
