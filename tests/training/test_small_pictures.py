"""What a super-resolution net is given to enlarge in training: spoilt pictures, and crops that show the same twice."""

import dataclasses

import pytest
import torch
from test_denoiser_objective import Recorder, batch

from bottega.data import DegradationRound, Degradations
from bottega.diffusion import AugmentationLevels
from bottega.errors import ConfigError, InputError
from bottega.seeding import generator
from bottega.training import DenoiserObjective, random_crops, shrink

PLAIN = DenoiserObjective(low_res_size=8, augmentation=AugmentationLevels(max_level=0.0))
CLEAN = Degradations(clean_prob=1.0)


def shown(objective, pictures, seed=0):
    """The small pictures and the noisy large ones that the network saw."""
    network = Recorder()
    loss = objective(network, pictures, generator(seed))
    return network.condition.low_res, network.calls[0][0], loss


def test_small_pictures_are_spoilt_and_the_large_ones_stay_what_is_to_be_painted():
    pictures = batch()
    spoilt, _, loss = shown(dataclasses.replace(PLAIN, degradations=Degradations()), pictures)
    small = shrink(pictures.clean(), 8)
    changed = (spoilt != small).flatten(1).any(1)
    assert changed.any() and (spoilt - small).abs().max() < 1.5
    clean, _, other = shown(dataclasses.replace(PLAIN, degradations=CLEAN), pictures)
    assert torch.equal(clean, small)
    assert torch.equal(loss.per_image, other.per_image)  # the same noise, on the same pictures


def test_each_picture_is_spoilt_by_the_generator_alone_and_differently():
    objective = dataclasses.replace(
        PLAIN,
        degradations=Degradations(
            rounds=(DegradationRound(gaussian_prob=1.0, gaussian_levels=(3.0, 3.0)),),
            clean_prob=0.0,
        ),
    )
    pictures = batch(4)
    pictures = dataclasses.replace(pictures, images=pictures.images[:1].expand(4, -1, -1, -1))
    first, again, other = (shown(objective, pictures, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert all(not torch.equal(first[0], first[i]) for i in range(1, 4))


def test_without_either_the_draws_are_what_they_were():
    pictures = batch()
    off = DenoiserObjective(low_res_size=8, augmentation=AugmentationLevels(max_level=0.5))
    whole = dataclasses.replace(off, crop_px=16)  # a crop of everything takes two draws more
    small, x, _ = shown(off, pictures)
    draws = generator(0)
    sigma = off.noise.sample(8, draws)
    eps = torch.randn(pictures.images.shape, generator=draws)
    scale = 1 / (sigma.square() + 0.25).sqrt()
    expected = (pictures.clean() + sigma[:, None, None, None] * eps) * scale[:, None, None, None]
    assert torch.allclose(x, expected, atol=1e-5)
    assert shown(whole, pictures)[0].shape == small.shape


def test_a_crop_shows_the_same_place_large_and_small():
    pictures = batch(64)
    large, small = random_crops(pictures.clean(), shrink(pictures.clean(), 8), 6, generator(3))
    assert large.shape == (64, 3, 6, 6) and small.shape == (64, 3, 3, 3)
    assert torch.allclose(shrink(large, 3), small, atol=1e-6)


def test_every_place_on_the_small_pictures_grid_is_as_likely_as_any_other():
    rows = torch.arange(4.0)[:, None].expand(4, 4)
    small = torch.stack([rows, rows.T])[None].expand(9000, -1, -1, -1)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    cut, _ = random_crops(large, small, 4, generator(0))
    places = (cut[:, 0, 0, 0] * 3 + cut[:, 1, 0, 0]).long()
    counts = places.bincount(minlength=9)
    assert len(counts) == 9 and (counts - 1000).abs().max() < 150


def test_the_network_learns_from_crops_of_the_spoilt_whole():
    pictures = batch(4)
    objective = dataclasses.replace(PLAIN, crop_px=8)
    small, x, loss = shown(objective, pictures)
    assert small.shape[2:] == (4, 4) and x.shape[2:] == (8, 8) and len(loss.per_image) == 4
    spoilt = dataclasses.replace(objective, degradations=CLEAN)
    assert shown(spoilt, pictures)[0].shape == (4, 3, 4, 4)


def test_crops_that_do_not_fit_are_refused():
    images, small = torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 8, 8)
    for crop in (0, 7, 18, -2):
        with pytest.raises(InputError, match="multiple of 2 pixels, up to 16"):
            random_crops(images, small, crop, generator(0))
    for setting in ({"crop_px": 8}, {"degradations": CLEAN}):
        with pytest.raises(ConfigError, match="for a super-resolution net"):
            DenoiserObjective(**setting)
