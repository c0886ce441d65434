"""Is an enlarged picture sharp, and sharp in the right places? Ways to enlarge, side by side on the same pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bottega.errors import InputError
from bottega.evaluation.features import FeatureMaps, Pictures, patch_features
from bottega.evaluation.fid import frechet_distance, gaussian
from bottega.evaluation.judge import Judge
from bottega.shapes import Images
from bottega.training.srgan_objective import feature_error

Enlarging = Callable[[Pictures], Pictures]
"""Makes pictures larger, the same number of times for all that are compared."""


@dataclass(frozen=True, kw_only=True)
class EnlargingScore:
    """How one way to enlarge fares on one set of small pictures; beside ``better``, all are means over pictures.

    ``feature_error`` is how far the judge's maps lie from those of the true picture, relative to these;
    ``better`` the share of pictures on which it is lower than the first way's. ``distance`` is the Frechet distance
    between squares of made and of true pictures in the judge's features. ``sharpness`` is the mean slope between
    neighbouring pixels over the true picture's: 1 is as sharp as it should be. ``psnr_db`` is of pixels, and prefers
    what is blurred to what is sharp in a slightly other place.
    """

    source: str
    way: str
    feature_error: float
    better: float
    distance: float
    sharpness: float
    psnr_db: float


def compare_ways(
    source: str,
    small: Sequence[Pictures],
    real: Sequence[Pictures],
    ways: Mapping[str, Enlarging],
    judge: Judge,
    progress: Callable[[int, int], None] | None = None,
) -> list[EnlargingScore]:
    """Enlarge the same pictures in every way, and compare each with the truth.

    Args:
        source: What the small pictures are, for the record.
        small: One picture each.
        real: Each as it should be.
        ways: By name; the first is what others are counted against.
        judge: Looks at pictures unshrunk, in squares of the size it knows.
        progress: Told how many pictures of how many are done.

    Raises:
        InputError: With fewer than two pictures, without ways, or where a way gives another size.
    """
    if len(small) < 2 or len(small) != len(real) or not ways:
        raise InputError(
            f"a comparison needs 2 pictures with their truths and a way, got {len(small)}, {len(real)}, {len(ways)}"
        )
    maps = FeatureMaps(judge)
    true_patches = gaussian(patch_features(judge, image) for image in real)
    first: list[float] = []
    scores: list[EnlargingScore] = []
    for number, (name, enlarge) in enumerate(ways.items()):
        errors, slopes, pixels, patches = [], [], [], []
        for place, (low_res, truth) in enumerate(zip(small, real, strict=True)):
            with torch.no_grad():
                made = enlarge(low_res)
            _check_size(name, made, truth)
            errors += feature_error(maps(made), maps(truth)).tolist()
            slopes.append(float(slope(made) / slope(truth).clamp(min=1e-6)))
            pixels.append(
                float(-10 * ((made - truth).square().mean() / 4).clamp(min=1e-12).log10())
            )
            patches.append(patch_features(judge, made))
            if progress is not None:
                progress(number * len(small) + place + 1, len(ways) * len(small))
        first = errors if number == 0 else first
        better = [float(a < b) for a, b in zip(errors, first, strict=True)]
        scores.append(
            EnlargingScore(
                source=source,
                way=name,
                feature_error=_mean(errors),
                better=_mean(better),
                distance=frechet_distance(gaussian(patches), true_patches),
                sharpness=_mean(slopes),
                psnr_db=_mean(pixels),
            )
        )
    return scores


def slope(images: Images) -> Float[Tensor, ""]:
    """The mean absolute difference between neighbouring pixels."""
    across = (images[..., 1:] - images[..., :-1]).abs().mean()
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return (across + down) / 2


def _check_size(name: str, made: Pictures, truth: Pictures) -> None:
    if made.shape != truth.shape:
        raise InputError(
            f"{name} gives {made.shape[-2]} x {made.shape[-1]} pixels where {truth.shape[-2]} x "
            f"{truth.shape[-1]} are true"
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


__all__ = ["Enlarging", "EnlargingScore", "compare_ways", "slope"]
