"""Learning rates follow their formulas, start above zero, and count images."""

import math

import pytest

from bottega.errors import ConfigError
from bottega.training import Constant, Cosine, InverseSqrt, Linear
from bottega.training.schedules import learning_rate

TOTAL = 1000


def rate(schedule, images_seen, warmup=0):
    return learning_rate(schedule, 2.0, images_seen, total_images=TOTAL, warmup_images=warmup)


def test_warm_up_rises_in_a_straight_line_from_above_zero_to_the_peak():
    rates = [rate(Constant(), n, warmup=100) for n in (1, 25, 50, 100, 101, 1000)]
    assert rates == pytest.approx([0.02, 0.5, 1.0, 2.0, 2.0, 2.0])


def test_a_cosine_falls_from_the_peak_to_its_end_along_half_a_wave():
    cosine = Cosine(end_frac=0.1)
    for n in (0, 250, 500, 750, 1000):
        expected = 2.0 * (0.1 + 0.9 * math.cos(math.pi * n / TOTAL / 2) ** 2)
        assert rate(cosine, n) == pytest.approx(expected)
    assert rate(cosine, 2000) == pytest.approx(0.2)


def test_a_line_waits_and_then_falls_evenly():
    line = Linear(start_frac=0.5, end_frac=0.2)
    assert [rate(line, n) for n in (0, 500, 750, 1000, 3000)] == pytest.approx(
        [2, 2, 1.2, 0.4, 0.4]
    )


def test_inverse_square_root_is_flat_up_to_its_reference_and_knows_no_end():
    schedule = InverseSqrt(reference_images=100)
    assert [rate(schedule, n) for n in (50, 100, 400, 10_000)] == pytest.approx([2, 2, 1, 0.2])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Cosine(end_frac=-0.1),
        lambda: Cosine(end_frac=float("nan")),
        lambda: Linear(end_frac=2.0),
        lambda: Linear(start_frac=1.0),
        lambda: InverseSqrt(reference_images=0),
    ],
)
def test_schedules_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError):
        wrong()
