"""Does an enlarged picture still say what the small one said, and how much noise should the small one be given?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bottega.errors import InputError
from bottega.evaluation.fid import Gaussian, frechet_distance, gaussian
from bottega.shapes import Images

Enlarge = Callable[[Images, float, Sequence[int]], Images]
"""Enlarges small pictures with this low_res_sigma and these seeds."""

Features = Callable[[Images], Float[Tensor, "_ width"]]


@dataclass(frozen=True, kw_only=True)
class LevelScore:
    """One level of augmentation on one set of small pictures.

    ``inconsistency`` is the root mean square of what differs after shrinking, in units of pictures in [-1, 1], and
    ``distance`` the Frechet distance of the enlarged from real pictures.
    """

    source: str
    low_res_sigma: float
    inconsistency: float
    distance: float


def inconsistency(
    enlarged: Images, low_res: Float[Tensor, "batch channels _ _"]
) -> Float[Tensor, "batch"]:
    """||down(enlarged) - low_res||, as a root mean square for each picture; down averages whole pixels.

    Raises:
        InputError: When one size is no multiple of the other.
    """
    height, width = low_res.shape[-2:]
    if enlarged.shape[-2] % height or enlarged.shape[-1] % width:
        raise InputError(
            f"pictures of {tuple(enlarged.shape[-2:])} do not shrink evenly to {(height, width)}"
        )
    factor = (enlarged.shape[-2] // height, enlarged.shape[-1] // width)
    return (F.avg_pool2d(enlarged, factor) - low_res).square().flatten(1).mean(1).sqrt()


def sweep(
    source: str,
    small: Sequence[Images],
    levels: Sequence[float],
    enlarge: Enlarge,
    features: Features,
    real: Gaussian,
    progress: Callable[[int, int], None] | None = None,
) -> list[LevelScore]:
    """Enlarge the same small pictures with every level.

    Args:
        source: What the small pictures are, for the record.
        small: One picture each; picture i is enlarged with seed i at every level.
        levels: Values of ``low_res_sigma``.
        enlarge: The stage at work.
        features: The judge's.
        real: Real pictures, in these features.
        progress: Told how many pictures of how many are done.

    Raises:
        InputError: With fewer than two pictures, or without levels.
    """
    if len(small) < 2 or not levels:
        raise InputError(f"a sweep needs 2 pictures and 1 level, got {len(small)}, {len(levels)}")
    scores: list[LevelScore] = []
    for number, level in enumerate(levels):
        errors: list[float] = []
        vectors: list[Tensor] = []
        for seed, low_res in enumerate(small):
            large = enlarge(low_res, level, [seed])
            errors += inconsistency(large, low_res).tolist()
            vectors.append(features(large))
            if progress is not None:
                progress(number * len(small) + seed + 1, len(levels) * len(small))
        scores.append(
            LevelScore(
                source=source,
                low_res_sigma=level,
                inconsistency=float(torch.tensor(errors).square().mean().sqrt()),
                distance=frechet_distance(gaussian(vectors), real),
            )
        )
    return scores


def proposed(scores: Sequence[LevelScore], source: str) -> LevelScore:
    """The level that brings the enlarged pictures of ``source`` nearest to real ones; the lower one of equals.

    Raises:
        InputError: When nothing of that source was measured.
    """
    here = [score for score in scores if score.source == source]
    if not here:
        raise InputError(f"nothing was measured of {source!r}")
    return min(here, key=lambda score: (score.distance, score.low_res_sigma))


__all__ = ["Enlarge", "LevelScore", "inconsistency", "proposed", "sweep"]
