"""Sets of pictures as Gaussians in the judge's features, to tell how far what is painted lies from what is real."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from bottega.evaluation.fid import Gaussian, frechet_distance, gaussian
from bottega.evaluation.judge import Judge

Pictures = Float[Tensor, "_ 3 _ _"]
"""Pictures of one size, any number of them."""


def picture_statistics(judge: Judge, batches: Iterable[Pictures]) -> Gaussian:
    """Mean and covariance of the judge's features over pictures of any size, in [-1, 1].

    Raises:
        InputError: With fewer than two pictures.
    """
    return gaussian(judge.features(images) for images in batches)


def picture_distance(judge: Judge, painted: Iterable[Pictures], real: Iterable[Pictures]) -> float:
    """The Frechet distance between painted and real pictures in the judge's features.

    It means nothing beside a distance in another network's features, or one from another number of pictures.

    Source: Heusel et al. 2017 (arXiv:1706.08500). We differ: the features are the judge's, not Inception's, which
    knows photographs and not this world.
    """
    return frechet_distance(picture_statistics(judge, painted), picture_statistics(judge, real))


__all__ = ["Pictures", "picture_distance", "picture_statistics"]
