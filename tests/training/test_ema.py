"""Averages of the weights are the averages of their papers, and die only loudly."""

import numpy as np
import pytest
import torch

from bottega.errors import CheckpointError, ConfigError
from bottega.training import EmaConfig
from bottega.training.ema import Ema, gamma_from_std, power_decay


def test_the_exponent_is_that_of_the_length():
    for std in (0.01, 0.05, 0.10, 0.2):
        gamma = gamma_from_std(std)
        length = np.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))  # EDM2, eq. 126
        assert length == pytest.approx(std, rel=1e-9)
    assert gamma_from_std(0.05) == pytest.approx(16.97, abs=0.01)  # EDM2, table 4 of the text
    assert gamma_from_std(0.10) == pytest.approx(6.94, abs=0.01)


def test_the_profile_of_the_power_function_has_the_relative_length_it_is_named_for():
    std, updates = 0.1, 4000
    weights = np.zeros(updates)
    for n in range(1, updates + 1):
        decay = power_decay(std, images_seen=n, since=n - 1)
        weights *= decay
        weights[n - 1] = 1 - decay
    assert weights.sum() == pytest.approx(1)
    times = (np.arange(updates) + 1) / updates
    mean = (weights * times).sum()
    assert np.sqrt((weights * (times - mean) ** 2).sum()) == pytest.approx(std, rel=2e-3)


def test_updating_every_few_steps_runs_ahead_by_less_than_the_distance():
    walk = torch.sin(torch.arange(1, 2049) / 200)
    averages = []
    for every in (1, 16):
        ema = Ema(EmaConfig(stds=(0.1,), every_images=every), [torch.zeros(())])
        for n, value in enumerate(walk, start=1):
            ema.update([value], n)
        averages.append(ema.averages["0.1"][0].item())
    assert averages[0] == pytest.approx(averages[1], abs=16 / 200)  # distance times steepest slope


def test_the_first_update_forgets_where_the_run_began():
    ema = Ema(EmaConfig(every_images=4), [torch.full((3,), 100.0)])
    ema.update([torch.ones(3)], 2)
    assert torch.equal(ema.averages["0.05"][0], torch.full((3,), 100.0))
    ema.update([torch.ones(3)], 4)
    assert torch.equal(ema.averages["0.05"][0], torch.ones(3))
    assert ema.updated_at == 4


def test_a_head_start_goes_on_as_if_the_run_had_begun_so_much_earlier():
    begun = torch.full((3,), 5.0)
    longer = Ema(EmaConfig(every_images=1), [torch.zeros(3)])
    child = Ema(EmaConfig(every_images=1, head_start_images=40), [begun])
    for n in range(1, 41):
        longer.update([begun], n)
    for n in range(1, 61):
        weights = [begun + torch.tensor(n / 9).sin()]
        longer.update(weights, 40 + n)
        child.update(weights, n)
    for name, average in child.averages.items():
        torch.testing.assert_close(average[0], longer.averages[name][0])
        assert not torch.equal(average[0], weights[0])


def test_a_halflife_forgets_half_in_that_many_images():
    ema = Ema(EmaConfig(stds=(), halflife_images=64, every_images=16), [torch.ones(())])
    for n in range(16, 65, 16):
        ema.update([torch.zeros(())], n)
    assert ema.averages["halflife"][0] == pytest.approx(0.5)


def test_constant_weights_are_their_own_average():
    ema = Ema(EmaConfig(stds=(0.05, 0.2), halflife_images=9, every_images=1), [torch.ones(4)])
    for n in range(1, 50):
        ema.update([torch.ones(4)], n)
    for average in ema.averages.values():
        torch.testing.assert_close(average[0], torch.ones(4))


def test_averages_of_other_lengths_are_refused_on_resume():
    ema = Ema(EmaConfig(stds=(0.05,)), [torch.ones(2)])
    with pytest.raises(
        CheckpointError, match=r"keeps the averages \['0.1'\], this run wants \['0.05'\]"
    ):
        ema.fill({"0.1": [torch.ones(2)]}, 5)


@pytest.mark.parametrize(
    "options",
    [
        {"stds": (0.0,)},
        {"stds": (0.5,)},
        {"stds": (float("nan"),)},
        {"stds": (0.1, 0.1)},
        {"every_images": 0},
        {"halflife_images": 0},
        {"head_start_images": -1},
    ],
)
def test_lengths_without_sense_are_refused(options):
    with pytest.raises(ConfigError, match=r"ema\."):
        EmaConfig(**options)
