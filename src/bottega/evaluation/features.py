"""Sets of pictures as Gaussians in the judge's features, to tell how far what is painted lies from what is real."""

import copy
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from bottega.errors import InputError
from bottega.evaluation.fid import Gaussian, frechet_distance, gaussian
from bottega.evaluation.judge import Judge

Pictures = Float[Tensor, "_ 3 _ _"]
"""Pictures of one size, any number of them."""


class FeatureMaps:
    """What a judge sees in pictures at their own size, at three depths; gradients flow through to the pictures.

    The judge's readings are of pictures made 64 pixels wide, on which nothing of their sharpness is left; these maps
    are of the pixels as they are.
    """

    def __init__(self, judge: Judge) -> None:
        """Look with a copy of the judge's network."""
        self._network = copy.deepcopy(judge.network)

    def __call__(self, images: Pictures) -> tuple[Float[Tensor, "_ _ _ _"], ...]:
        """The maps at 1/2, 1/4 and 1/8 of the side, on the device of the pictures."""
        device = self._network.stem.weight.device
        if device != images.device:
            self._network.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            return self._network.maps(images.float())


def patch_features(judge: Judge, images: Pictures) -> Float[Tensor, "_ width"]:
    """The judge's features of squares as large as it looks at, cut from pictures side by side, unshrunk.

    What is left over at the right and at the bottom is not looked at.

    Raises:
        InputError: When the pictures are smaller than one square.
    """
    side = judge.config.size_px
    if min(images.shape[-2:]) < side:
        raise InputError(
            f"pictures must be at least {side} px, got {images.shape[-2]} x {images.shape[-1]}"
        )
    rows = images.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5)
    return judge.features(rows.reshape(-1, images.shape[1], side, side))


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


__all__ = [
    "FeatureMaps",
    "Pictures",
    "patch_features",
    "picture_distance",
    "picture_statistics",
]
