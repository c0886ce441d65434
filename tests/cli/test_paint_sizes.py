"""``bottega paint --size`` and ``--aspect`` as a user meets them."""

from pathlib import Path

import pytest
from PIL import Image

from bottega.pipelines import Canvas, read_provenance


@pytest.fixture
def paint(bottega, tiny_folder):
    def call(*arguments):
        return bottega("paint", *arguments, "--model", tiny_folder, "--dtype", "float32")

    return call


def size_of(name: str) -> tuple[int, int]:
    """Width and height of a picture."""
    with Image.open(name) as picture:
        return picture.size


def test_a_wide_picture_with_a_masked_region_is_made_again_byte_for_byte(
    paint, bottega, tiny_folder
):
    Image.new("L", (64, 32), 255).save("here.png")
    done = paint("a dog", "--size", "16x32", "--region", "dog=here.png*2", "-o", "wide.png")
    assert (done.code, done.out, done.err) == (0, "wide.png\n", "")
    assert size_of("wide.png") == (32, 16)
    assert read_provenance("wide.png").canvas == Canvas(height=16, width=32)
    again = bottega("replay", "wide.png", "--model", tiny_folder)
    assert (again.code, again.out) == (0, "wide.png: identical, byte for byte\n")


def test_an_aspect_is_width_to_height_and_takes_the_nearest_size(paint):
    assert paint("a dog", "--aspect", "3:2", "-o", "wide.png").code == 0
    assert paint("a dog", "--aspect", "2:3", "-o", "tall.png").code == 0
    width, height = size_of("wide.png")
    assert abs(width / height - 1.5) < 0.2 and 150 < width * height < 400
    assert size_of("tall.png") == (height, width)


def test_the_models_own_square_is_painted_alike_however_it_is_named(paint):
    paint("a dog", "-o", "plain.png")
    paint("a dog", "-o", "size.png", "--size", "16")
    paint("a dog", "-o", "aspect.png", "--aspect", "1:1")
    plain = Path("plain.png").read_bytes()
    assert plain == Path("size.png").read_bytes() == Path("aspect.png").read_bytes()


def test_a_preview_has_the_shape_of_the_picture(paint):
    done = paint("a dog", "--size", "16x32", "--watch", "live.png", "-o", "a.png")
    assert done.code == 0, done.err
    assert size_of("live.png") == (32, 16)


def test_the_regions_of_a_wide_picture_are_explained(paint):
    done = paint(
        *("a dog", "--size", "16x32", "--region", "dog@0,0,0.5,1"),
        *("--explain", "why.png", "-o", "a.png"),
    )
    assert done.code == 0, done.err
    assert Path("why.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "18x30"], "nearest to 18x30 is 16x32"),
        (["--size", "wide"], "HEIGHTxWIDTH"),
        (["--size", "16x9000"], "1 to 8192 pixels"),
        (["--size", "16x512"], "at most 16 times"),
        (["--aspect", "3x2"], "WIDTH:HEIGHT"),
        (["--aspect", "99:1"], "at most 16 times"),
        (["--aspect", "3:2", "--size", "16x32"], "give one of them"),
        (["--size", "16x32", "--region", "dog=square.png"], "a mask has the picture's shape"),
    ],
)
def test_a_size_that_cannot_be_painted_is_one_line_and_leaves_nothing(paint, arguments, words):
    Image.new("L", (8, 8), 255).save("square.png")
    done = paint("a dog", "-o", "a.png", *arguments)
    assert done.code == 2 and words in done.err
    assert done.err.startswith("bottega: ") and done.err.count("\n") == 1
    assert not done.out and not Path("a.png").exists()
