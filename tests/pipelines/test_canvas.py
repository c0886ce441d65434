"""Pictures that are no squares: every stage paints its share of them, and they can be made again."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from bottega.conditioning.numbers import sized_numbers
from bottega.errors import InputError
from bottega.pipelines import (
    Canvas,
    FromPicture,
    Inpaint,
    Region,
    open_picture,
    parse_aspect,
    parse_canvas,
    repaint,
    save_picture,
    sheet_of,
)
from bottega.pipelines.canvas import check_canvas, fit_aspect, stage_canvases, unit_px
from bottega.pipelines.provenance import parse_provenance, read_provenance

WIDE = (16, 32)
PROMPT = "a pizza to the left of a cat"


@dataclass(frozen=True)
class Known:
    """As much of a stage as sizes depend on."""

    size: int
    multiple: int


PICCOLO = (Known(32, 8), Known(128, 16))


def paint(painter, size=WIDE, prompt=PROMPT, **asked):
    return painter.paint(prompt, size=size, **asked)[0]


def pixels(picture):
    return np.asarray(picture, np.int16)


@pytest.mark.parametrize(
    ("text", "height", "width"), [("96x160", 96, 160), (" 8X16 ", 8, 16), ("64", 64, 64)]
)
def test_a_size_is_height_before_width(text: str, height: int, width: int):
    assert parse_canvas(text) == Canvas(height=height, width=width)


@pytest.mark.parametrize(
    "text", ["", "96 x 160", "96x", "-8x8", "8x8x8", "3:2", "0x8", "9000x8000"]
)
def test_what_is_no_size_is_refused_in_one_line(text: str):
    with pytest.raises(InputError) as refused:
        parse_canvas(text)
    assert "\n" not in str(refused.value)


def test_an_aspect_is_width_over_height():
    assert parse_aspect("3:2") == 1.5
    assert parse_aspect(" 1.85:1 ") == 1.85
    for wrong in ("3x2", "0:2", "3:0", "3", "17:1", "1:17", "nan:1"):
        with pytest.raises(InputError):
            parse_aspect(wrong)


@pytest.mark.parametrize(
    "stages", [PICCOLO, (Known(64, 8), Known(256, 32), Known(1024, 32)), (Known(512, 64),)]
)
def test_the_unit_is_the_smallest_side_that_every_stage_can_paint(stages):
    last = stages[-1].size

    def paints(side: int) -> bool:
        return all(side * s.size % (last * s.multiple) == 0 for s in stages)

    smallest = next(side for side in itertools.count(1) if paints(side))
    assert unit_px(stages) == smallest
    assert all(paints(smallest * times) for times in range(1, 9))


def test_stages_share_the_shape_of_the_finished_picture():
    assert stage_canvases(PICCOLO, Canvas(height=96, width=160)) == [
        Canvas(height=24, width=40),
        Canvas(height=96, width=160),
    ]


@pytest.mark.parametrize("aspect", [1.0, 1.5, 2 / 3, 16 / 9, 9 / 16, 2.0, 4.0, 0.3])
def test_an_aspect_gives_the_nearest_size_of_all_there_are(aspect: float):
    found = fit_aspect(PICCOLO, aspect)
    unit = unit_px(PICCOLO)

    def miss(height: int, width: int) -> float:
        return 2 * abs(np.log(width / height / aspect)) + abs(np.log(width * height / 128**2))

    every = itertools.product(range(unit, 700, unit), repeat=2)
    best = min(miss(height, width) for height, width in every)
    assert miss(found.height, found.width) == pytest.approx(best)
    assert check_canvas(PICCOLO, found, "piccolo") == found


def test_a_size_between_what_can_be_painted_names_the_nearest():
    with pytest.raises(InputError, match=r"multiples of 32 px; nearest to 100x150 is 96x160"):
        check_canvas(PICCOLO, Canvas(height=100, width=150), "piccolo")
    with pytest.raises(InputError, match=r"nearest to 8x8 is 32x32"):
        check_canvas(PICCOLO, Canvas(height=8, width=8), "piccolo")


def test_a_picture_has_the_size_that_was_asked_for_and_can_be_made_again(painter, tmp_path):
    made = paint(painter)
    assert made.size == (32, 16)
    path = save_picture(made, tmp_path / "wide.png")
    origin = read_provenance(path)
    assert origin.canvas == Canvas(height=16, width=32)
    again = repaint(painter, origin)
    assert save_picture(again, tmp_path / "again.png").read_bytes() == path.read_bytes()
    assert np.array_equal(pixels(open_picture(path)), pixels(again))


def test_the_square_a_model_was_trained_on_is_the_same_picture_named_or_not(painter):
    named, plain = paint(painter, size=(16, 16)), painter.paint(PROMPT)[0]
    assert np.array_equal(pixels(named), pixels(plain))
    assert named.info == plain.info


def test_a_canvas_says_what_it_is_in_every_step(painter):
    steps = list(painter.paint_steps(PROMPT, size=WIDE))
    sizes = {step.stage: tuple(step.denoised.shape[2:]) for step in steps}
    assert sizes == {"base": (8, 16), "sr16": (16, 32)}


def test_a_wide_picture_is_the_same_alone_and_in_company(painter):
    together = painter.paint([PROMPT, "a dog"], seeds=[4, 5], size=WIDE)
    alone = painter.paint("a dog", seeds=[5], size=WIDE)
    assert np.array_equal(pixels(together[1]), pixels(alone[0]))


def test_a_size_no_stage_can_paint_is_refused_before_the_first_step(painter):
    with pytest.raises(InputError, match="multiples of 4 px; nearest to 18x30 is 16x32"):
        painter.paint_steps(PROMPT, size=(18, 30))


def test_regions_act_where_they_lie_on_a_wide_picture(painter):
    strong = 8.0
    plain = paint(painter)
    left = paint(painter, regions=[Region("pizza", (0, 0, 0.5, 1), strength=strong)])
    right = paint(painter, regions=[Region("pizza", (0.5, 0, 1, 1), strength=strong)])
    assert not np.array_equal(pixels(plain), pixels(left))
    assert not np.array_equal(pixels(left), pixels(right))


def test_a_mask_of_the_shape_of_the_picture_is_its_box(painter):
    mask = torch.zeros(16, 32)
    mask[:, :16] = 1
    boxed = paint(painter, regions=[Region("pizza", (0, 0, 0.5, 1))])
    masked = paint(painter, regions=[Region("pizza", mask)])
    assert np.array_equal(pixels(boxed), pixels(masked))


def test_a_square_mask_does_not_fit_a_wide_picture(painter):
    with pytest.raises(InputError, match="a mask has the picture's shape"):
        paint(painter, regions=[Region("pizza", torch.ones(16, 16))])


def test_inpainting_keeps_every_other_pixel_of_a_wide_picture(painter):
    rng = np.random.default_rng(0)
    before = Image.fromarray(rng.integers(0, 255, (16, 32, 3), np.uint8))
    mask = np.zeros((16, 32))
    mask[:, 20:] = 1
    made = paint(painter, start=Inpaint(before, mask))
    assert np.array_equal(pixels(made)[:, :20], pixels(before)[:, :20])
    assert not np.array_equal(pixels(made)[:, 20:], pixels(before)[:, 20:])
    changed = paint(painter, start=FromPicture(before, 0.4))
    assert changed.size == (32, 16)


def test_pictures_of_one_sheet_have_one_size(painter):
    wide, plain = paint(painter), painter.paint(PROMPT)[0]
    with pytest.raises(InputError, match="one set of settings"):
        sheet_of([wide, plain], columns=2)
    page = sheet_of([wide, paint(painter, seeds=3)], columns=1)
    assert parse_provenance(page.info["bottega"]).canvas == Canvas(height=16, width=32)


def test_sdxl_is_told_the_size_of_the_picture():
    base = (512.0, 512.0, 0.0, 0.0, 512.0, 512.0)
    assert sized_numbers(base, 384, 640) == (384.0, 640.0, 0.0, 0.0, 384.0, 640.0)
    assert sized_numbers((512.0, 512.0, 0.0, 0.0, 6.0), 384, 640) == (384.0, 640.0, 0.0, 0.0, 6.0)
    assert sized_numbers((), 384, 640) == ()


def test_a_stage_tells_its_canvas_to_a_network_that_hears_numbers(painter):
    told = painter.stages[0].at(Canvas(height=8, width=16))
    assert (told.height, told.width, told.shape) == (8, 16, (3, 8, 16))
    assert told.numbers == ()
