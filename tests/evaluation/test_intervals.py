"""Intervals agree with scipy's, and hold the truth as often as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from bottega.errors import InputError
from bottega.evaluation.intervals import Interval, bootstrap, design_effect, share_ratio, wilson


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 10), (123, 500)]
)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_wilson_agrees_with_scipy(successes, trials, confidence):
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    ours = wilson(successes, trials, confidence=confidence)
    assert ours.low == pytest.approx(theirs.low, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, abs=1e-12)
    assert successes / trials in ours


def test_wilson_covers_the_truth_about_as_often_as_it_says():
    truth, trials = 0.83, 60
    shares = stats.binom(trials, truth)
    covered = sum(shares.pmf(k) for k in range(trials + 1) if truth in wilson(k, trials))
    assert covered == pytest.approx(0.95, abs=0.02)


def test_a_design_effect_of_four_halves_the_sample_twice():
    assert wilson(200, 400, design_effect=4.0) == wilson(50, 100)


def test_independent_pictures_have_a_design_effect_near_one_and_copies_have_their_number():
    rng = np.random.default_rng(0)
    independent = (rng.random((4000, 4)) < 0.7).tolist()
    copies = [[bool(row[0])] * 4 for row in independent]
    assert design_effect(independent) == pytest.approx(1.0, abs=0.1)
    assert design_effect(copies) == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize("clusters", [[[True], [False]], [[True, True]], [[True] * 3, [True] * 3]])
def test_a_design_effect_is_one_where_nothing_can_be_learned(clusters):
    assert design_effect(clusters) == 1.0


def test_the_ratio_of_two_shares_agrees_with_scipys_relative_risk():
    theirs = stats.contingency.relative_risk(70, 120, 90, 110).confidence_interval(0.95)
    ours = share_ratio(70, 120, 90, 110)
    assert ours.low == pytest.approx(theirs.low, rel=1e-12)
    assert ours.high == pytest.approx(theirs.high, rel=1e-12)


def test_the_ratio_is_open_above_nothing_and_starts_at_zero_for_nothing():
    assert share_ratio(5, 10, 0, 10) == Interval(0.0, math.inf)
    none = share_ratio(0, 10, 10, 10)
    assert none.low == 0.0
    assert none.high == pytest.approx(wilson(0, 10).high)


def test_the_bootstrap_agrees_with_scipys_percentile_interval():
    sample = np.random.default_rng(1).normal(3, 2, 80)
    theirs = stats.bootstrap(
        (sample,), np.mean, method="percentile", n_resamples=10_000, rng=2
    ).confidence_interval
    ours = bootstrap(sample)
    assert ours.low == pytest.approx(theirs.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.high, abs=0.03)
    assert bootstrap(sample) == ours
    assert bootstrap(sample, seed=1) != ours


def test_the_bootstrap_takes_any_statistic():
    sample = np.arange(101.0)
    assert 50.0 in bootstrap(sample, lambda drawn: float(np.median(drawn)), resamples=500)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: wilson(3, 2),
        lambda: wilson(0, 0),
        lambda: wilson(1, 2, confidence=1.0),
        lambda: wilson(1, 2, design_effect=0.5),
        lambda: share_ratio(1, 0, 1, 1),
        lambda: bootstrap([]),
        lambda: bootstrap([1.0], resamples=0),
        lambda: bootstrap([1.0], confidence=0.0),
    ],
)
def test_impossible_counts_are_refused(ask):
    with pytest.raises(InputError):
        ask()
