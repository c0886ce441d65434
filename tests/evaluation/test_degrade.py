"""What is done to a picture is what was asked for, and nothing when nothing was."""

import dataclasses

import pytest
import torch

from bottega.errors import ConfigError
from bottega.evaluation.degrade import Degradation, _blurred, _cosines, _quantised, _warped, resized
from bottega.seeding import generator

NEVER = Degradation(
    low_res_prob=0.0,
    warp_prob=0.0,
    blur_prob=0.0,
    colour_prob=0.0,
    quantise_prob=0.0,
    noise_prob=0.0,
)


def pictures(count=3, size=32):
    return torch.rand(count, 3, size, size, generator=generator(5)) * 1.8 - 0.9


def test_no_fault_leaves_the_pictures_as_they_are():
    assert torch.equal(NEVER(pictures(), generator(0)), pictures())


@pytest.mark.parametrize("name", [n for n in vars(NEVER) if n.endswith("_prob")])
def test_every_fault_changes_every_picture_when_it_is_certain(name):
    images = pictures()
    spoilt = dataclasses.replace(NEVER, **{name: 1.0})(images, generator(0))
    assert torch.equal(images, pictures())
    assert spoilt.shape == images.shape
    assert spoilt.abs().max() <= 1
    assert all((one - other).abs().max() > 1e-3 for one, other in zip(spoilt, images, strict=True))


def test_the_generator_alone_decides():
    ways = Degradation()
    first, again, other = (ways(pictures(), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_faults_keep_an_even_picture_even():
    even = torch.full((1, 3, 32, 32), 0.25)
    assert torch.allclose(_blurred(even), even, atol=1e-6)
    assert torch.allclose(_warped(even, torch.ones(1, 2, 6, 6)), even, atol=1e-6)
    assert torch.allclose(resized(resized(even, 16), 32), even, atol=1e-5)


def test_a_warp_of_one_pixel_moves_by_one_pixel():
    images = pictures()
    shift = torch.zeros(3, 2, 6, 6)
    shift[:, 0] = 1.0  # to the right, in pixels
    warped = _warped(images, shift)
    assert torch.allclose(warped[..., :-1], images[..., 1:], atol=1e-4)


def test_the_cosines_are_orthonormal_and_a_fine_step_loses_nothing():
    basis = _cosines()
    assert torch.allclose(basis @ basis.T, torch.eye(8), atol=1e-6)
    images = pictures()
    fine = _quantised(images, torch.full((3, 1, 1, 1, 1, 1), 1e-5))
    coarse = _quantised(images, torch.full((3, 1, 1, 1, 1, 1), 1.0))
    assert torch.allclose(fine, images, atol=1e-4)
    assert (coarse - images).abs().max() > 0.1


def test_pictures_that_blocks_do_not_fit_are_not_quantised():
    odd = pictures(size=30)
    assert torch.equal(_quantised(odd, torch.ones(3, 1, 1, 1, 1, 1)), odd)


def test_shrinking_averages_instead_of_picking():
    stripes = torch.ones(1, 3, 64, 64)
    stripes[..., ::2] = -1
    assert resized(stripes, 16)[..., 2:-2].abs().max() < 0.1
    assert resized(stripes, 64) is stripes


def test_a_fault_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="noise_prob"):
        Degradation(noise_prob=1.5)
    with pytest.raises(ConfigError, match="quantum"):
        Degradation(quantum=-1.0)
