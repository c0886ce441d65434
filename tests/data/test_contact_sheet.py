"""Contact sheets hold every picture where it belongs."""

import numpy as np
import pytest
from PIL import Image

from bottega.data import EmojiWorld, EmojiWorldConfig, WorldSource, contact_sheet
from bottega.errors import InputError

WORLD = EmojiWorld(EmojiWorldConfig(num_things=40))


def test_a_sheet_of_examples_shows_their_pictures(tmp_path):
    path = contact_sheet(WORLD, range(5), tmp_path / "sheet.png", columns=3, size=64)
    sheet = np.asarray(Image.open(path))
    assert (sheet[6:70, 6:70] == WORLD[0].image(64)).all()
    assert (sheet[6:70, 76:140] == WORLD[1].image(64)).all()
    assert sheet.shape[1] == 3 * 70 + 6


def test_a_sheet_of_a_source_enlarges_small_pictures_pixel_by_pixel(tmp_path):
    source = WorldSource(WORLD, 32)
    path = contact_sheet(source, [7], tmp_path / "sheet.png", size=64)
    shown = np.asarray(Image.open(path))[6:70, 6:70]
    assert (shown[::2, ::2] == WORLD[7].image(32)).all()
    smaller = contact_sheet(source, [7], tmp_path / "small.png", size=16)
    with Image.open(smaller) as sheet:
        assert sheet.width == 16 + 12


def test_the_caption_stands_below(tmp_path):
    path = contact_sheet(WORLD, [0], tmp_path / "sheet.png", size=128)
    below = np.asarray(Image.open(path))[136:]
    assert (below < 100).any()


@pytest.mark.parametrize(
    "options", [{"indices": []}, {"indices": [0], "columns": 0}, {"indices": [0], "size": 4}]
)
def test_a_sheet_of_nothing_is_refused(tmp_path, options):
    with pytest.raises(InputError):
        contact_sheet(WORLD, path=tmp_path / "sheet.png", **options)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        contact_sheet(WORLD, [0], tmp_path / "none" / "sheet.png")
