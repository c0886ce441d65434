"""The Frechet distance equals its closed forms and scipy's, whatever the batches."""

import numpy as np
import pytest
import torch
from scipy import linalg

from bottega.errors import InputError
from bottega.evaluation.fid import Gaussian, frechet_distance, gaussian


def random_gaussian(width: int, seed: int) -> Gaussian:
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(width, width, generator=draw, dtype=torch.float64)
    mean = torch.randn(width, generator=draw, dtype=torch.float64)
    return Gaussian(count=100, mean=mean, covariance=root @ root.T)


def test_the_distance_agrees_with_scipys_matrix_root():
    one, other = random_gaussian(12, 0), random_gaussian(12, 1)
    root = linalg.sqrtm(one.covariance.numpy() @ other.covariance.numpy()).real
    theirs = (
        float((one.mean - other.mean).square().sum())
        + float(one.covariance.trace() + other.covariance.trace())
        - 2 * np.trace(root)
    )
    assert frechet_distance(one, other) == pytest.approx(theirs, rel=1e-9)


def test_the_distance_of_commuting_gaussians_is_that_of_their_standard_deviations():
    a = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    b = torch.tensor([3.0, 0.5, 4.0], dtype=torch.float64)
    one = Gaussian(count=9, mean=torch.zeros(3, dtype=torch.float64), covariance=a.square().diag())
    other = Gaussian(count=9, mean=torch.ones(3, dtype=torch.float64), covariance=b.square().diag())
    exact = 3 + float((a - b).square().sum())
    assert frechet_distance(one, other) == pytest.approx(exact, rel=1e-12)
    assert frechet_distance(other, one) == pytest.approx(exact, rel=1e-12)


def test_a_set_lies_at_no_distance_from_itself_even_when_its_covariance_is_singular():
    few = torch.randn(5, 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert frechet_distance(gaussian([few]), gaussian([few])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_the_moments_do_not_depend_on_the_batch_size(batch):
    draw = torch.Generator().manual_seed(4)
    features = 1000 + torch.randn(1000, 6, generator=draw)  # a large mean provokes cancellation
    got = gaussian(features.split(batch))
    exact = features.double().numpy()
    assert got.count == 1000
    np.testing.assert_allclose(got.mean.numpy(), exact.mean(0), rtol=1e-13)
    np.testing.assert_allclose(got.covariance.numpy(), np.cov(exact.T), rtol=1e-9)


def test_empty_batches_count_for_nothing():
    features = torch.randn(10, 3, generator=torch.Generator().manual_seed(5))
    whole, parts = gaussian([features]), gaussian([features[:0], features[:4], features[4:]])
    assert frechet_distance(whole, parts) == pytest.approx(0, abs=1e-9)


def test_too_few_pictures_or_features_that_do_not_match_are_refused():
    with pytest.raises(InputError, match="at least two pictures, got 1"):
        gaussian([torch.zeros(1, 3)])
    with pytest.raises(InputError, match="got 0"):
        gaussian([])
    with pytest.raises(InputError, match="one width, got 3 and then 4"):
        gaussian([torch.zeros(2, 3), torch.zeros(2, 4)])
    with pytest.raises(InputError, match="widths 3 and 4"):
        frechet_distance(random_gaussian(3, 0), random_gaussian(4, 0))
