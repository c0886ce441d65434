"""Do the edges of pictures lie where they were asked for?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from bottega.errors import InputError

EdgeMap = Bool[ndarray, "_ _"]
"""True on an edge."""


@dataclass(frozen=True, kw_only=True)
class EdgeMatch:
    """How well found edges match wanted ones, over all pixels of all pictures.

    ``precision`` is the share of found edge pixels with a wanted one nearby, ``recall`` that of wanted ones with a
    found one nearby; where there is none, nothing is wrong, and the share is 1.
    """

    precision: float
    recall: float

    @property
    def f_measure(self) -> float:
        """The harmonic mean of both."""
        total = self.precision + self.recall
        return 0.0 if total == 0 else 2 * self.precision * self.recall / total


def match_edges(
    found: Sequence[EdgeMap], wanted: Sequence[EdgeMap], *, tolerance_px: int = 1
) -> EdgeMatch:
    """Compare edges picture by picture.

    Args:
        found: What the pictures show.
        wanted: What they were to show, of the same sizes.
        tolerance_px: How far off an edge may lie along each axis and still count.

    Raises:
        InputError: Unless there are as many of one as of the other, of the same sizes.

    Source: the benchmark of Martin et al. 2004 (TPAMI 26:5), with pixels matched to any near one instead of one to one.
    """
    if len(found) != len(wanted) or not found:
        raise InputError(
            f"edges are compared picture by picture, got {len(found)} and {len(wanted)}"
        )
    hits = np.zeros(4, np.int64)
    for own, target in zip(found, wanted, strict=True):
        if own.shape != target.shape:
            raise InputError(
                f"edges of one picture must be of one size, got {own.shape} and {target.shape}"
            )
        near_target, near_own = (_widened(edges, tolerance_px) for edges in (target, own))
        hits += [
            (own & near_target).sum(),
            own.sum(),
            (target & near_own).sum(),
            target.sum(),
        ]
    right, all_found, reached, all_wanted = hits.tolist()
    return EdgeMatch(
        precision=1.0 if all_found == 0 else right / all_found,
        recall=1.0 if all_wanted == 0 else reached / all_wanted,
    )


def _widened(edges: EdgeMap, reach: int) -> EdgeMap:
    """Every pixel with an edge within ``reach`` along both axes."""
    height, width = edges.shape
    padded = np.pad(edges, reach)
    near = np.zeros_like(edges)
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            near |= padded[down : down + height, right : right + width]
    return near


__all__ = ["EdgeMap", "EdgeMatch", "match_edges"]
