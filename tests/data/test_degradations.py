"""Degradations spoil as much as they say, each picture by itself, and leave alone what they should."""

import pytest
import torch

from bottega.data.degradations import (
    DegradationRound,
    Degradations,
    blurred,
    resized_and_back,
    through_jpeg,
    with_shot_noise,
)
from bottega.errors import ConfigError, InputError

OFF = {f"{name}_prob": 0.0 for name in ("blur", "resize", "gaussian", "poisson", "jpeg")}


def pictures(count: int = 4, size: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    small = torch.rand(count, 3, 6, 6, generator=generator) * 1.6 - 0.8
    return torch.nn.functional.interpolate(small, size, mode="bicubic").clamp(-1, 1)


def only(name: str, **settings) -> Degradations:
    plan = DegradationRound(**{**OFF, f"{name}_prob": 1.0, **settings})
    return Degradations(rounds=(plan,), clean_prob=0.0)


def test_a_picture_is_spoilt_alike_alone_in_a_batch_and_in_any_order():
    images, spoil = pictures(), Degradations()
    together = spoil(images, [3, 1, 4, 15])
    assert torch.equal(spoil(images[2:3], [4]), together[2:3])
    assert torch.equal(spoil(images.flip(0), [15, 4, 1, 3]), together.flip(0))
    assert not torch.equal(spoil(images, [7, 8, 9, 10]), together)
    assert together.shape == images.shape and together.abs().max() <= 1
    assert torch.equal(images, pictures())


def test_nothing_is_spoilt_without_a_chance_of_it():
    images = pictures()
    assert torch.equal(Degradations(clean_prob=1.0)(images, range(4)), images)
    idle = Degradations(rounds=(DegradationRound(**OFF),), clean_prob=0.0)
    assert torch.equal(idle(images, range(4)), images)
    assert torch.equal(Degradations(rounds=())(images, range(4)), images)
    assert len(Degradations()(images[:0], [])) == 0


@pytest.mark.parametrize("name", ["blur", "resize", "gaussian", "poisson", "jpeg"])
def test_every_fault_changes_the_picture_and_mildly(name):
    images = pictures()
    error = (only(name)(images, range(4)) - images).square().mean().sqrt()
    assert 0 < error < 0.1


def test_the_share_of_pictures_struck_is_the_one_asked_for():
    flat = torch.zeros(1, 3, 2, 2).expand(1000, -1, -1, -1)
    plan = DegradationRound(**{**OFF, "gaussian_prob": 0.3, "gaussian_levels": (3.0, 3.0)})
    spoilt = Degradations(rounds=(plan,), clean_prob=0.5)(flat, range(1000))
    share = (spoilt != 0).flatten(1).any(1).float().mean()
    assert float(share) == pytest.approx(0.15, abs=0.04)


def test_gaussian_noise_has_the_spread_it_was_asked_for_in_levels():
    flat = torch.zeros(1, 3, 128, 128)
    spoilt = only("gaussian", gaussian_levels=(12.75, 12.75))(flat, [0])
    assert float(spoilt.std()) == pytest.approx(0.1, rel=0.03)


def test_shot_noise_grows_with_brightness_as_poisson_noise_does():
    generator = torch.Generator().manual_seed(0)
    for brightness in (-0.8, 0.0, 0.7):
        flat = torch.full((1, 3, 128, 128), brightness)
        noise = with_shot_noise(flat, 1.0, generator) - flat
        expected = ((brightness + 1) * 127.5) ** 0.5 / 127.5
        assert float(noise.std()) == pytest.approx(expected, rel=0.03)
        assert abs(float(noise.mean())) < 0.003
    black = torch.full((1, 3, 8, 8), -1.0)
    assert torch.equal(with_shot_noise(black, 2.0, generator), black)


def test_a_blur_keeps_what_is_flat_and_spreads_a_point_by_its_sigma():
    flat = torch.full((1, 3, 16, 16), 0.3)
    assert torch.allclose(blurred(flat, 1.0, 2.0), flat, atol=1e-6)
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    spread = blurred(point, 1.0, 2.5)[0, 0]
    place = torch.arange(41.0) - 20
    down, across = (spread.sum(1) * place**2).sum(), (spread.sum(0) * place**2).sum()
    assert float(down) == pytest.approx(1.0, rel=0.05)
    assert float(across) == pytest.approx(2.5**2, rel=0.05)
    assert torch.equal(blurred(point, 0.0, 0.0), point)


def test_a_resize_by_one_changes_nothing_and_a_small_one_loses_detail():
    images = pictures(1)
    for name in ("area", "bilinear", "bicubic"):
        assert torch.allclose(resized_and_back(images, 1.0, name, name), images, atol=1e-5)
        assert not torch.allclose(resized_and_back(images, 0.5, name, name), images, atol=1e-2)
    with pytest.raises(InputError, match="a filter is one of"):
        resized_and_back(images, 0.5, "nearest", "area")


def test_jpeg_loses_more_at_lower_quality():
    images = pictures(1)
    low, high = ((through_jpeg(images, q) - images).square().mean() for q in (10, 95))
    assert high < low < 0.1
    with pytest.raises(InputError, match="3 channels"):
        through_jpeg(images[:, :1], 90)


def test_two_rounds_spoil_more_than_one():
    images = pictures()
    plan = only("gaussian", gaussian_levels=(3.0, 3.0)).rounds[0]
    one, two = (
        (Degradations(rounds=(plan,) * n, clean_prob=0.0)(images, range(4)) - images).std()
        for n in (1, 2)
    )
    assert float(two / one) == pytest.approx(2**0.5, rel=0.1)


def test_what_makes_no_sense_is_refused():
    for bad in (
        {"blur_prob": 1.5},
        {"gaussian_levels": (3.0, 1.0)},
        {"resize_factor": (0.0, 1.0)},
        {"jpeg_quality": (0.0, 50.0)},
    ):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            DegradationRound(**bad)
    with pytest.raises(ConfigError, match="clean_prob"):
        Degradations(clean_prob=-1.0)
    with pytest.raises(InputError, match="one per picture"):
        Degradations()(pictures(), [1])
