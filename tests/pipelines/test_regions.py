"""Regions as they are asked for, and the pictures they make."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bottega.config import from_json, to_json
from bottega.errors import ConfigError, InputError
from bottega.models import LogitDeviation
from bottega.pipelines import Box, Explanation, Painter, Region, load
from bottega.pipelines.masks import StoredMask, store
from bottega.pipelines.regions import parse_region

PROMPT = "a pizza to the left of a cat"
LEFT = Region("pizza", (0, 0, 0.5, 1), strength=4.0)
RIGHT = Region("cat", (0.5, 0, 1, 1), strength=4.0)


def pixels(picture: Image.Image) -> bytes:
    return picture.tobytes()


def test_regions_change_the_picture_and_each_does_its_own(painter: Painter):
    plain = pixels(painter.paint(PROMPT)[0])
    made = {
        pixels(painter.paint(PROMPT, regions=regions)[0])
        for regions in ([LEFT], [RIGHT], [LEFT, RIGHT], [replace(LEFT, strength=-4.0)])
    }
    assert len(made) == 4 and plain not in made


def test_what_asks_for_nothing_gives_exactly_the_plain_picture(painter: Painter):
    plain = pixels(painter.paint(PROMPT)[0])
    nothing = Image.new("L", (16, 16))
    for regions in (
        [],
        [replace(LEFT, strength=0)],
        [Region("pizza", nothing)],
        [Region("pizza", nothing), replace(RIGHT, strength=0)],
    ):
        assert pixels(painter.paint(PROMPT, regions=regions)[0]) == plain
    assert pixels(painter.paint(PROMPT, regions=[LEFT], region_strength=0.0)[0]) == plain


@pytest.mark.parametrize("lanes", [1, 2])
def test_one_pictures_regions_change_no_other_in_the_batch(tiny_folder, lanes):
    painter = load(tiny_folder, device="cpu", dtype="float32", lanes=lanes)
    plain = painter.paint([PROMPT, PROMPT])
    some = painter.paint([PROMPT, PROMPT], regions=[[LEFT], []])
    assert pixels(some[1]) == pixels(plain[1]) and some[1].info == plain[1].info
    assert pixels(some[0]) != pixels(plain[0])


def test_every_stage_and_every_setting_of_regions_counts(painter: Painter):
    made = [
        pixels(painter.paint(PROMPT, regions=[LEFT], **settings)[0])
        for settings in (
            {},
            {"region_strength": {"base": 0.0}},
            {"region_strength": {"sr16": 0.0}},
            {"region_weight": LogitDeviation()},
            {"guidance_interval": (1.0, 30.0)},
            {"guidance_scale": 1.0},
        )
    ]
    assert len(set(made)) == len(made)
    with pytest.raises(ConfigError, match="region_strength must be"):
        painter.paint(PROMPT, region_strength=-1.0)


def test_a_phrase_that_is_not_there_names_the_words_that_are(painter: Painter):
    with pytest.raises(InputError, match=r"'dog' does not occur .* pizza, to, the, left, of, cat"):
        painter.paint(PROMPT, regions=[Region("dog", (0, 0, 1, 1))])
    with pytest.raises(InputError, match="occurs once in the prompt, so there is no number 2"):
        painter.paint(PROMPT, regions=[replace(LEFT, occurrence=1)])
    with pytest.raises(InputError, match="does not occur"):
        painter.paint([PROMPT, "a dog"], regions=[LEFT])
    with pytest.raises(InputError, match="stands behind the last token"):
        painter.paint("a dog " * 40 + PROMPT, regions=[LEFT])
    with pytest.raises(InputError, match="an encoder that reads the prompt"):
        painter.paint(PROMPT, regions=[LEFT], encoders=("clip_image",))


def test_only_encoders_that_are_heard_are_told(painter: Painter):
    one = pixels(painter.paint(PROMPT, regions=[LEFT], encoders=("t5",))[0])
    assert one != pixels(painter.paint(PROMPT, encoders=("t5",))[0])
    assert one != pixels(painter.paint(PROMPT, regions=[LEFT])[0])


def test_regions_are_one_list_for_all_or_one_each(painter: Painter):
    with pytest.raises(InputError, match="expected 2 lists of regions"):
        painter.paint([PROMPT, PROMPT], regions=[[LEFT]])
    with pytest.raises(InputError, match="not both"):
        painter.paint([PROMPT, PROMPT], regions=[LEFT, [RIGHT]])
    with pytest.raises(InputError, match="at most 64 regions"):
        painter.paint(PROMPT, regions=[LEFT] * 65)
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8))
    with pytest.raises(InputError, match="masks of one picture take"):
        painter.paint(PROMPT, regions=[Region("cat", grey)] * 13)


def test_a_mask_may_be_a_picture_or_numbers_of_any_size_but_of_the_pictures_shape(painter: Painter):
    half = np.zeros((16, 16), bool)
    half[:, :8] = True
    grey = Image.fromarray(half.astype(np.uint8) * 255)
    shades = Image.merge("LA", (Image.new("L", (16, 16), 255), grey))
    same = {
        pixels(painter.paint(PROMPT, regions=[Region("pizza", mask, 4.0)])[0])
        for mask in (
            half,
            torch.tensor(half),
            half.astype(float),
            grey,
            grey.convert("RGB"),
            shades,
        )
    }
    assert same == {pixels(painter.paint(PROMPT, regions=[LEFT])[0])}
    large = Region("pizza", half.repeat(20, axis=0).repeat(20, axis=1), 4.0)
    assert pixels(painter.paint(PROMPT, regions=[large])[0]) != pixels(painter.paint(PROMPT)[0])
    with pytest.raises(InputError, match="has the shape 32 x 16, the picture 16 x 16"):
        painter.paint(PROMPT, regions=[Region("pizza", np.ones((16, 32)))])


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.ones((2, 2, 3)), "rows and columns"),
        (np.full((2, 2), 255, np.uint8), "divide bytes by 255"),
        (np.full((2, 2), 1.5), "numbers from 0 to 1"),
        (np.full((2, 2), np.nan), "numbers from 0 to 1"),
        (np.ones((0, 2)), "numbers from 0 to 1"),
        (Image.new("RGB", (4, 4), "red"), "a picture in colour"),
        (Image.new("L", (9000, 2)), "along each side"),
    ],
    ids=["deep", "bytes", "above 1", "not numbers", "empty", "in colour", "huge"],
)
def test_what_is_no_mask_is_refused(mask, words):
    with pytest.raises(InputError, match=words):
        Region("cat", mask)


@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 1), (0.5, 0, 0.4, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (0, 0, float("nan"), 1)],
)
def test_a_box_lies_in_the_picture(box):
    with pytest.raises(InputError, match="a box is left,top,right,bottom"):
        Region("cat", box)


@pytest.mark.parametrize("strength", [101, -101, float("nan"), float("inf")])
def test_a_strength_is_sane(strength):
    with pytest.raises(InputError, match="strength of a region"):
        Region("cat", (0, 0, 1, 1), strength=strength)


def test_a_box_covers_its_share_of_every_pixel():
    mask = Box(left=0.1, top=0.5, right=0.6, bottom=1.0).mask(4, 10)
    assert float(mask.mean()) == pytest.approx(0.25)
    assert mask[3].tolist() == pytest.approx([0, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    assert Box(left=0.0, top=0.0, right=0.25, bottom=1.0).mask(2, 2).tolist() == [
        [0.5, 0],
        [0.5, 0],
    ]


def test_a_region_reads_back_as_it_was_written():
    mask = np.linspace(0, 1, 64).reshape(8, 8)
    for region in (LEFT, Region("two words", mask, strength=-0.5, occurrence=2)):
        assert from_json(Region, json.loads(json.dumps(to_json(region)))) == region
    stored = Region("cat", mask).place
    assert isinstance(stored, StoredMask)
    np.testing.assert_allclose(stored.tensor().numpy(), mask, atol=0.002)
    assert np.asarray(stored.picture()).shape == (8, 8)
    large = store(np.ones((1000, 500)), largest_px=256)
    assert (large.width, large.height) == (128, 256)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"data": "!"}, "cannot be read"),
        ({"data": "AAAA"}, "cannot be read"),
        ({"width": 5}, "another number of pixels"),
        ({"width": 3}, "another number of pixels"),
        ({"width": 0}, "1 to 8192"),
        ({"data": "A" * 600_000}, "simpler one"),
    ],
    ids=str,
)
def test_a_strangers_mask_is_checked(facts, words):
    good = store(np.ones((4, 4)))
    with pytest.raises(InputError, match=words):
        replace(good, **facts)


def test_a_mask_that_unpacks_to_gigabytes_is_not_unpacked():
    import base64
    import zlib

    bomb = base64.b64encode(zlib.compress(bytes(300_000_000), 9)).decode()
    with pytest.raises(InputError, match="another number of pixels"):
        StoredMask(width=4, height=4, data=bomb)


def test_the_command_lines_way_to_write_a_region():
    asked = []

    def read(path):
        asked.append(str(path))
        return Image.new("L", (4, 4), 255)

    assert parse_region("pizza@0,0.5,0.5,1", read) == Region("pizza", (0, 0.5, 0.5, 1))
    assert parse_region("red car @ 0, 0, 1, 1 * -2", read) == Region("red car", (0, 0, 1, 1), -2.0)
    assert parse_region("cat#2@0,0,1,1", read) == Region("cat", (0, 0, 1, 1), occurrence=1)
    masked = parse_region("cat=a@b=c.png*0.5", read)
    assert asked == ["a@b=c.png"]
    assert (masked.phrase, masked.strength) == ("cat", 0.5) and isinstance(masked.place, StoredMask)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat", "PHRASE@left,top,right,bottom or PHRASE=mask.png"),
        ("@0,0,1,1", "PHRASE@"),
        ("cat@", "PHRASE@"),
        ("cat@0,0,1", "four numbers"),
        ("cat@0,0,1,one", "four numbers"),
        ("cat@0,0,1,2", "0 <= top < bottom <= 1"),
        ("cat@0,0,1,1*much", "a strength, as in"),
        ("cat@0,0,1,1*inf", "not finite"),
        ("cat@0,0,1,1*1000", "from -100 to 100"),
        ("cat#0@0,0,1,1", "which occurrence"),
        ("cat#x@0,0,1,1", "which occurrence"),
    ],
)
def test_a_region_written_otherwise_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        parse_region(text, lambda path: Image.new("L", (4, 4)))


def test_an_explanation_shows_masks_and_attention_and_changes_nothing(painter: Painter):
    watch = Explanation()
    regions = [LEFT, RIGHT]
    watched = painter.paint(PROMPT, regions=regions, watch=watch)[0]
    assert pixels(watched) == pixels(painter.paint(PROMPT, regions=regions)[0])
    assert {size.stage for size in watch.seen} == {"base", "sr16"}
    for size, seen in watch.seen.items():
        assert seen.masks.shape == seen.attention.shape == (2, size.height, size.width)
        assert seen.areas() == pytest.approx([0.5, 0.5], abs=0.01)
        assert min(seen.inside()) > 0.5  # more than its share of the area
    page = watch.page([region.phrase for region in regions])
    assert page.width > page.height > 100 and len(page.getcolors(10**6)) > 10
    none = Explanation()
    painter.paint(PROMPT, regions=[replace(LEFT, strength=0)], watch=none)
    inside = [seen.inside()[0] for seen in none.seen.values()]
    assert inside == pytest.approx([0.5] * len(inside), abs=0.25)
    with pytest.raises(InputError, match="nothing was seen"):
        Explanation().page(["cat"])
