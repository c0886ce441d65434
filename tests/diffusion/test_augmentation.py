import math

import pytest
import torch
from scipy import stats

from bottega.diffusion import AugmentationLevels, augment_low_res, level_to_sigma
from bottega.errors import ConfigError, InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_at_no_noise_the_picture_comes_back_exactly(eps):
    low_res = torch.rand(2, 3, 8, 8) * 2 - 1
    assert torch.equal(augment_low_res(low_res, torch.zeros(2), eps), low_res)


def test_at_the_highest_level_only_noise_is_left(eps):
    low_res = torch.ones(2, 3, 8, 8)
    noisy = augment_low_res(low_res, torch.full((2,), level_to_sigma(1.0)), eps)
    assert torch.allclose(noisy, eps, atol=2e-3)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 30.0])
def test_the_variance_is_preserved(sigma):
    low_res = torch.randn(64, 3, 32, 32, generator=generator(1))
    noise = torch.randn(64, 3, 32, 32, generator=generator(2))
    noisy = augment_low_res(low_res, torch.full((64,), sigma), noise)
    assert float(noisy.std()) == pytest.approx(1.0, abs=0.01)


def test_each_picture_gets_its_own_level(eps):
    low_res, sigma = torch.ones(2, 3, 8, 8), torch.tensor([0.0, 2.0])
    noisy = augment_low_res(low_res, sigma, eps)
    assert torch.equal(noisy[0], low_res[0])
    assert torch.allclose(noisy[1], (1 + 2 * eps[1]) / math.sqrt(5))
    assert torch.equal(low_res, torch.ones(2, 3, 8, 8))


def test_levels_run_from_no_noise_to_noise_alone():
    assert level_to_sigma(0.0) == 0
    assert level_to_sigma(0.5) == pytest.approx(1.0, abs=0.02)
    assert level_to_sigma(1.0) == 1000
    sigmas = [level_to_sigma(i / 50) for i in range(51)]
    assert sigmas == sorted(sigmas)
    assert level_to_sigma(1e-6) < 1e-3  # no jump next to 0


def test_a_level_is_time_on_the_normalized_cosine_schedule():
    for level in (0.1, 0.3, 0.8):
        share = (
            math.cos((level + 0.008) / 1.008 * math.pi / 2) ** 2
            / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        )
        assert level_to_sigma(level) == pytest.approx(math.sqrt((1 - share) / share), rel=1e-9)


def test_training_draws_levels_uniformly_up_to_the_largest():
    sigma = AugmentationLevels(max_level=0.4).sample(20_000, generator())
    assert sigma.dtype == torch.float32
    assert float(sigma.max()) <= level_to_sigma(0.4) * (1 + 1e-6)
    table = torch.tensor([level_to_sigma(0.4 * i / 10) for i in range(1, 10)])
    counts = torch.bincount(torch.bucketize(sigma, table), minlength=10)
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_ranks_share_the_levels_among_them():
    levels = AugmentationLevels()
    parts = [levels.sample(4, generator(rank), rank=rank, world_size=2) for rank in range(2)]
    bounds = torch.tensor([level_to_sigma(i / 8) for i in range(1, 8)])
    assert torch.bucketize(torch.cat(parts), bounds).sort().values.tolist() == list(range(8))


def test_a_largest_level_of_zero_draws_no_noise():
    assert torch.equal(AugmentationLevels(max_level=0.0).sample(3, generator()), torch.zeros(3))


@pytest.mark.parametrize("level", [-0.1, 1.1, math.nan])
def test_levels_outside_zero_and_one_are_refused(level):
    with pytest.raises(InputError):
        level_to_sigma(level)
    with pytest.raises(ConfigError):
        AugmentationLevels(max_level=level)
