"""The Frechet distance of two sets of pictures, seen as Gaussians in a network's features. Float64 throughout."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bottega.errors import InputError

Features = Float[Tensor, "_ width"]
"""One feature vector per picture, for any number of pictures."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaussian:
    """What a set of features amounts to: how many, their mean, and their unbiased covariance."""

    count: int
    mean: Float[Tensor, "width"]
    covariance: Float[Tensor, "width width"]


def gaussian(parts: Iterable[Features]) -> Gaussian:
    """Mean and covariance of features that come in batches of any size, in one pass.

    Batches are merged by their own means, so nothing is lost to cancellation and the batch size does not matter.

    Raises:
        InputError: With fewer than two pictures, or batches of different widths.

    Source: Chan, Golub and LeVeque 1979, the pairwise update of the scatter matrix.
    """
    count, mean, scatter = 0, None, None
    for part in parts:
        batch = part.detach().to(device="cpu", dtype=torch.float64)
        if not len(batch):
            continue
        batch_mean = batch.mean(0)
        centred = batch - batch_mean
        batch_scatter = centred.T @ centred
        if mean is None or scatter is None:
            count, mean, scatter = len(batch), batch_mean, batch_scatter
            continue
        if batch_mean.shape != mean.shape:
            raise InputError(f"features have one width, got {len(mean)} and then {len(batch_mean)}")
        total = count + len(batch)
        shift = batch_mean - mean
        scatter = scatter + batch_scatter + torch.outer(shift, shift) * (count * len(batch) / total)
        mean = mean + shift * (len(batch) / total)
        count = total
    if mean is None or scatter is None or count < 2:
        raise InputError(f"a covariance needs at least two pictures, got {count}")
    return Gaussian(count=count, mean=mean, covariance=scatter / (count - 1))


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """How far two Gaussians lie apart: |mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    Zero for equal Gaussians, in squared units of the features. The estimate is biased upwards for few pictures, so
    compare only figures made from the same number of them.

    Raises:
        InputError: When the widths differ.

    Source: Dowson and Landau 1982; Heusel et al. 2017 (arXiv:1706.08500), eq. 6. The trace of the matrix root is
    taken from the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric: no complex parts, no jitter.
    """
    if one.mean.shape != other.mean.shape:
        raise InputError(
            f"both sets need the same features, got widths {len(one.mean)} and {len(other.mean)}"
        )
    mean = (one.mean - other.mean).square().sum()
    root = _symmetric_root(one.covariance)
    product = root @ other.covariance @ root
    overlap = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = mean + one.covariance.trace() + other.covariance.trace() - 2 * overlap
    return max(0.0, float(distance))


def _symmetric_root(matrix: Float[Tensor, "width width"]) -> Float[Tensor, "width width"]:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


__all__ = ["Features", "Gaussian", "frechet_distance", "gaussian"]
