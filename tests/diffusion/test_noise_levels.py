import math

import pytest
import torch
from scipy import stats

from bottega.diffusion.noise import MARGIN, LogNormal, stratified
from bottega.errors import ConfigError, InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("level", "bounds"),
    [
        (1, [0.3012]),
        (2, [0.1341, 0.3012, 0.6766]),
        (3, [0.0757, 0.1341, 0.2055, 0.3012, 0.4415, 0.6766, 1.1977]),
    ],
)
def test_quantiles_are_the_expert_bounds_of_ediff_i(level, bounds):
    ours = [LogNormal().quantile(i / 2**level) for i in range(1, 2**level)]
    assert ours == pytest.approx(bounds, abs=5e-5)


@pytest.mark.parametrize(
    ("level", "leftmost", "rightmost"),
    [
        (3, 0.0757, 1.198),
        (4, 0.0478, 1.898),
        (5, 0.0322, 2.816),
        (6, 0.0227, 3.993),
        (7, 0.0166, 5.480),
        (8, 0.0124, 7.331),
        (9, 0.00944, 9.610),
    ],
)
def test_the_outermost_leaves_have_the_bounds_of_ediff_i(level, leftmost, rightmost):
    noise = LogNormal()
    assert noise.quantile(0.5**level) == pytest.approx(leftmost, abs=5e-5)
    assert noise.quantile(1 - 0.5**level) == pytest.approx(rightmost, abs=5e-4)


def test_the_leaves_of_a_level_tile_every_positive_sigma():
    noise = LogNormal(mean=-0.8, std=1.4)
    assert noise.quantile(0.0) == 0
    assert noise.quantile(1.0) == math.inf
    assert noise.cdf(0.0) == 0
    assert noise.cdf(math.inf) == 1


def test_quantile_and_share_undo_each_other_far_into_the_tails():
    noise = LogNormal()
    u = torch.tensor([1e-7, 1e-4, 0.3, 0.5, 0.9, 1 - 1e-4, 1 - 1e-7], dtype=torch.float64)
    assert torch.allclose(noise.cdf(noise.quantile(u)), u, rtol=1e-9, atol=0)


def test_quantiles_agree_with_scipy():
    u = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    reference = stats.lognorm(s=1.2, scale=math.exp(-1.2)).ppf(u.numpy())
    assert torch.allclose(LogNormal().quantile(u), torch.from_numpy(reference), rtol=1e-10)


def test_draws_follow_the_log_normal():
    sigma = LogNormal(mean=-0.5, std=0.7).sample(100_000, generator())
    assert sigma.dtype == torch.float32
    log = sigma.double().log()
    assert float(log.mean()) == pytest.approx(-0.5, abs=1e-3)
    assert float(log.std()) == pytest.approx(0.7, abs=2e-3)


def test_a_batch_takes_one_draw_from_each_slice_of_probability():
    noise = LogNormal()
    places = noise.cdf(noise.sample(64, generator())).sort().values * 64
    assert torch.equal(places.floor(), torch.arange(64, dtype=torch.float64))


def test_the_ranks_together_take_one_draw_from_each_slice():
    noise = LogNormal()
    parts = [noise.sample(16, generator(rank), rank=rank, world_size=3) for rank in range(3)]
    places = noise.cdf(torch.cat(parts)).sort().values * 48
    assert torch.equal(places.floor(), torch.arange(48, dtype=torch.float64))


def test_the_place_in_a_batch_says_nothing_about_the_noise():
    sigma = torch.stack([LogNormal().sample(8, generator(seed)) for seed in range(600)])
    shares = LogNormal().cdf(sigma).mean(0)
    assert torch.allclose(shares, torch.full_like(shares, 0.5), atol=0.045)


def test_the_same_generator_state_gives_the_same_draws():
    assert torch.equal(LogNormal().sample(9, generator(4)), LogNormal().sample(9, generator(4)))
    assert not torch.equal(LogNormal().sample(9, generator(4)), LogNormal().sample(9, generator(5)))


def test_every_leaf_gets_its_share_of_small_batches():
    noise = LogNormal()
    bounds = torch.tensor([noise.quantile(i / 16) for i in range(1, 16)], dtype=torch.float32)
    draws = torch.cat([noise.sample(7, generator(seed)) for seed in range(800)])
    counts = torch.bincount(torch.bucketize(draws, bounds), minlength=16)
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


def test_draws_inside_intervals_are_uniform_in_probability():
    noise = LogNormal()
    intervals = ((0.6, 0.7), (0.0, 0.25), (0.9, 1.0))
    share = noise.cdf(noise.sample(30_000, generator(), intervals))
    inside = [((share >= low) & (share < high)).double().mean() for low, high in intervals]
    assert [float(part) for part in inside] == pytest.approx(
        [0.1 / 0.45, 0.25 / 0.45, 0.1 / 0.45], abs=1e-4
    )
    low_part = share[share < 0.25] / 0.25
    assert stats.kstest(low_part.numpy(), "uniform").pvalue > 0.01


def test_a_complement_never_hits_the_leaves_it_excludes():
    noise = LogNormal()
    complement = ((0.125, 511 / 512),)
    sigma = noise.sample(200_000, generator(), complement).double()
    assert float(sigma.min()) >= noise.quantile(0.125)
    assert float(sigma.max()) < noise.quantile(511 / 512)


@pytest.mark.parametrize("low", [0.0213, 0.125, 0.5, 0.77, 0.998])
def test_rounding_to_float32_never_leaves_an_interval(low):
    noise, high = LogNormal(), low + 2e-6
    sigma = noise.sample(5000, generator(), ((low, high),)).double()
    assert bool((sigma >= noise.quantile(low)).all())
    assert bool((sigma < noise.quantile(high)).all())


def test_draws_stay_finite_and_positive_at_the_very_ends():
    noise = LogNormal()
    for ends in (((0.0, 2 * MARGIN),), ((1 - 2 * MARGIN, 1.0),)):
        sigma = noise.sample(1000, generator(), ends)
        assert bool((sigma > 0).all())
        assert bool(sigma.isfinite().all())


def test_slices_are_within_zero_and_one():
    share = stratified(10_000, generator())
    assert float(share.min()) >= 0
    assert float(share.max()) < 1


@pytest.mark.parametrize(
    ("intervals", "message"),
    [
        ((), "at least one"),
        (((0.5, 0.5),), "low < high"),
        (((-0.1, 0.5),), "low < high"),
        (((0.5, 1.5),), "low < high"),
        (((math.nan, 0.5),), "low < high"),
        (((0.0, 0.5), (0.4, 0.6)), "overlap"),
        (((0.0, 1e-9),), "too near"),
    ],
)
def test_impossible_intervals_are_refused(intervals, message):
    with pytest.raises(InputError, match=message):
        LogNormal().sample(4, generator(), intervals)


def test_impossible_counts_and_ranks_are_refused():
    with pytest.raises(InputError, match="at least 1"):
        LogNormal().sample(0, generator())
    with pytest.raises(InputError, match="rank"):
        LogNormal().sample(4, generator(), rank=2, world_size=2)


@pytest.mark.parametrize("settings", [{"mean": math.nan}, {"std": 0.0}, {"std": math.inf}])
def test_impossible_distributions_are_refused(settings):
    with pytest.raises(ConfigError):
        LogNormal(**settings)
