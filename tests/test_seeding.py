"""Randomness is a value: the same words give the same numbers, other words give others."""

import pytest
import torch

from bottega.errors import InputError
from bottega.seeding import ImageNoise, derive, generator


def test_the_same_purpose_gives_the_same_seed_and_any_change_another():
    base = derive(0, "train", 0, 64)
    assert base == derive(0, "train", 0, 64)
    others = [
        derive(1, "train", 0, 64),
        derive(0, "order", 0, 64),
        derive(0, "train", 1, 64),
        derive(0, "train", 0, 65),
    ]
    assert len({base, *others}) == 5


def test_words_are_kept_apart():
    assert derive(1, "ab", "c") != derive(1, "a", "bc")
    assert derive(1, "1") == derive(1, 1)


def test_seeds_fit_a_signed_64_bit_integer_and_look_uniform():
    seeds = torch.tensor([derive(0, i) for i in range(4000)], dtype=torch.float64)
    assert seeds.min() >= 0 and seeds.max() < 2**63
    assert abs(seeds.mean() / 2**63 - 0.5) < 4 * (1 / 12 / 4000) ** 0.5


def test_a_generator_repeats_itself():
    first, second = (torch.randn(8, generator=generator(3, "train", 5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.randn(8, generator=generator(3, "train", 6)))


def test_an_images_noise_does_not_depend_on_its_neighbours_or_its_place():
    together = ImageNoise([4, 5, 0], purpose="base", shape=(3, 4, 4))
    alone = ImageNoise([5], purpose="base", shape=(3, 4, 4))
    turned = ImageNoise([0, 5], purpose="base", shape=(3, 4, 4))
    for _ in range(3):
        a, b, c = together(), alone(), turned()
        assert torch.equal(a[1], b[0])
        assert torch.equal(a[1], c[1])
        assert torch.equal(a[2], c[0])
        assert not torch.equal(a[0], a[1])


def test_stages_draw_different_noise_from_one_seed():
    base = ImageNoise([7], purpose="base", shape=(3, 4, 4))()
    sr = ImageNoise([7], purpose="sr128", shape=(3, 4, 4))()
    assert not torch.equal(base, sr)


def test_noise_is_unit_gaussian():
    draws = ImageNoise(list(range(64)), purpose="base", shape=(3, 16, 16))()
    assert draws.dtype == torch.float32
    assert abs(draws.mean()) < 4 / draws.numel() ** 0.5
    assert abs(draws.std() - 1) < 4 / (2 * draws.numel()) ** 0.5


def test_no_seeds_is_an_error():
    with pytest.raises(InputError, match="at least one seed"):
        ImageNoise([], purpose="base", shape=(3, 4, 4))
