import numpy as np
import pytest

from bottega.data.canny import Canny
from bottega.data.emoji_world import EmojiWorld
from bottega.errors import ConfigError, InputError


def grey(plane):
    return np.repeat(np.asarray(plane, np.uint8)[:, :, None], 3, axis=2)


def split_picture(size=16, at=8, low=0, high=255):
    plane = np.full((size, size), low)
    plane[:, at:] = high
    return grey(plane)


def test_a_straight_step_gives_one_straight_line_one_pixel_wide():
    found = Canny()(split_picture())
    assert found.sum() == 16
    columns = np.flatnonzero(found.any(axis=0))
    assert len(columns) == 1
    assert columns[0] in (7, 8)


def test_a_picture_turned_has_its_edges_turned():
    picture = split_picture()
    upright, turned = Canny()(picture), Canny()(picture.transpose(1, 0, 2))
    assert np.array_equal(upright.T, turned)


def test_one_colour_has_no_edges():
    assert not Canny()(np.full((12, 9, 3), 131, np.uint8)).any()


def test_a_disc_has_a_closed_outline_near_its_rim_and_nothing_else():
    y, x = np.mgrid[:64, :64] - 31.5
    radius = np.hypot(y, x)
    found = Canny()(grey(np.where(radius < 20, 220, 40)))
    assert np.abs(radius[found] - 20).max() < 1.6
    angles = np.arctan2(y[found], x[found])
    gaps = np.diff(np.sort(angles))
    assert gaps.max() < 0.12  # no hole wider than two pixels
    assert 100 < found.sum() < 160  # about the circumference, so one pixel wide


def test_colours_of_equal_brightness_have_an_edge():
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:, :8] = (200, 0, 0)
    picture[:, 8:] = (0, 102, 0)  # 0.299 * 200 = 0.587 * 102
    assert Canny()(picture).any(axis=1).all()


def test_a_weak_line_counts_only_where_it_leads_to_a_strong_one():
    plane = np.zeros((30, 40))
    plane[:, 20:] = np.linspace(35, 120, 30)[:, None]  # slowly stronger: weak above, strong below
    joined = Canny(low=0.05, high=0.25)(grey(plane))
    alone = Canny(low=0.05, high=0.25)(grey(plane[:8]))
    assert joined[:, 18:22].any(axis=1).all()
    assert not alone.any()
    assert not Canny(low=0.25, high=0.25)(grey(plane))[:8].any()


def test_contrast_beneath_the_low_slope_is_no_edge():
    assert not Canny()(split_picture(low=100, high=120)).any()
    assert Canny(low=0.02, high=0.02)(split_picture(low=100, high=120)).any()


def test_blurring_more_finds_less():
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    assert Canny(blur_px=3.0)(noise).sum() < Canny(blur_px=1.0)(noise).sum()


def test_without_blur_a_single_bright_pixel_is_outlined():
    plane = np.zeros((9, 9))
    plane[4, 4] = 255
    found = Canny(blur_px=0.0)(grey(plane))
    assert found[3:6, 3:6].any()
    assert found.sum() == found[3:6, 3:6].sum()


def test_outlines_of_the_world_are_found_within_two_pixels():
    world = EmojiWorld()
    plain = [
        world[i] for i in range(60) if world[i].style == "plain" and world[i].plan.word is None
    ]
    shares = []
    for example in plain[:12]:
        exact = example.edges(64)
        found = np.pad(Canny()(example.image(64)), 2)
        near = sum(
            np.roll(found, (dy, dx), (0, 1)).astype(int)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
        )
        shares.append((near[2:-2, 2:-2] > 0)[exact].mean())
    assert np.mean(shares) > 0.85


def test_nothing_given_is_changed():
    picture = split_picture()
    before = picture.copy()
    Canny()(picture)
    assert np.array_equal(picture, before)


@pytest.mark.parametrize(
    "settings", [{"blur_px": -1.0}, {"low": 0.0}, {"low": 0.3}, {"blur_px": 1e9}]
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match="must be"):
        Canny(**settings)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(InputError, match="needs pixels"):
        Canny()(np.zeros((0, 4, 3), np.uint8))
