"""How sure a share is: intervals for proportions, for ratios of them, and for anything by resampling."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from bottega import seeding
from bottega.errors import InputError


@dataclass(frozen=True)
class Interval:
    """Where the true value lies, with the confidence that was asked for."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson(
    successes: int, trials: int, *, confidence: float = 0.95, design_effect: float = 1.0
) -> Interval:
    """The score interval of a share of successes; it stays inside [0, 1] and works at 0 and at 100%.

    Args:
        successes: How many went right.
        trials: Of how many; at least one.
        confidence: How often such intervals hold the truth, in (0, 1).
        design_effect: By how much clustering shrinks the sample, from `design_effect`; 1 means independent trials.

    Raises:
        InputError: For counts that cannot be, or a confidence outside (0, 1).

    Source: Wilson 1927, without continuity correction; the number of trials is divided by Kish's design effect.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise InputError(f"successes go from 0 to trials >= 1, got {successes} of {trials}")
    if design_effect < 1:
        raise InputError(f"a design effect is at least 1, got {design_effect}")
    z = _normal_quantile(confidence)
    share, effective = successes / trials, trials / design_effect
    spread = z * math.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))
    scale = 1 + z**2 / effective
    centre = share + z**2 / (2 * effective)
    # The ends are exactly 0 and 1 where every trial agrees; rounding must not say otherwise.
    low = 0.0 if successes == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if successes == trials else min(1.0, (centre + spread) / scale)
    return Interval(low, high)


def design_effect(clusters: Sequence[Sequence[bool]]) -> float:
    """By how much pictures of the same prompt say the same thing twice.

    Several pictures of one prompt are not independent: a prompt that is hard is hard for every seed. The variance
    of the share, taken over prompts, is divided by what independent pictures would have.

    Returns:
        The factor by which the sample is smaller than it looks; never below 1, and 1 for single pictures.

    Source: Kish 1965, the ratio estimator of a mean over clusters, floored at 1.
    """
    groups = [np.asarray(c, dtype=np.float64) for c in clusters if len(c)]
    trials = sum(len(g) for g in groups)
    if len(groups) < 2 or trials == len(groups):
        return 1.0
    share = sum(float(g.sum()) for g in groups) / trials
    independent = share * (1 - share) / trials
    if independent == 0:
        return 1.0
    residuals = sum((float(g.sum()) - share * len(g)) ** 2 for g in groups)
    clustered = residuals * len(groups) / (len(groups) - 1) / trials**2
    return max(1.0, clustered / independent)


def share_ratio(
    successes: int, trials: int, successes_of: int, trials_of: int, *, confidence: float = 0.95
) -> Interval:
    """The interval of one share divided by another, for example a model's score by the judge's ceiling.

    With no success below the line there is nothing to divide by, and the interval is (0, inf).

    Source: Katz et al. 1978, the log interval of a relative risk.
    """
    if not (0 <= successes <= trials and 0 <= successes_of <= trials_of and min(trials, trials_of)):
        raise InputError(
            f"shares are counts of at least one trial, got {successes}/{trials} and "
            f"{successes_of}/{trials_of}"
        )
    if successes_of == 0:
        return Interval(0.0, math.inf)
    ratio = (successes / trials) / (successes_of / trials_of)
    if successes == 0:
        upper = wilson(0, trials, confidence=confidence).high
        return Interval(0.0, upper / (successes_of / trials_of))
    variance = 1 / successes - 1 / trials + 1 / successes_of - 1 / trials_of
    factor = math.exp(_normal_quantile(confidence) * math.sqrt(variance))
    return Interval(ratio / factor, ratio * factor)


def bootstrap(
    values: Sequence[float] | NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], float] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The interval of any statistic (the mean, when none is given) by drawing the sample again and again.

    Source: Efron 1979, percentile interval.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size < 1:
        raise InputError(f"bootstrap needs a flat sample of at least one, got {sample.shape}")
    if resamples < 1:
        raise InputError(f"bootstrap needs at least one resample, got {resamples}")
    tail = (1 - _checked(confidence)) / 2
    rng = np.random.default_rng(seeding.derive(seed, "bootstrap"))
    if statistic is None:
        drawn = np.array([sample[_draw(rng, sample.size)].mean() for _ in range(resamples)])
    else:
        drawn = np.array([statistic(sample[_draw(rng, sample.size)]) for _ in range(resamples)])
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _draw(rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    return rng.integers(0, size, size)


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence lies between 0 and 1, got {confidence}")
    return confidence


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + _checked(confidence)) / 2)


__all__ = ["Interval", "bootstrap", "design_effect", "share_ratio", "wilson"]
