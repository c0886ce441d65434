import json

import numpy as np
import pytest
import torch
from PIL import Image

from bottega.conditioning.pictures import PicturePreparation
from bottega.errors import CheckpointError, InputError


def test_a_picture_of_the_right_size_is_only_normalised():
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    prepared = PicturePreparation(image_size_px=16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))(
        images
    )
    red = ((images[:, 0] + 1) / 2 - 0.1) / 0.5
    torch.testing.assert_close(prepared[:, 0], red)
    torch.testing.assert_close(PicturePreparation(image_size_px=16)(images), images)


def test_pictures_are_made_smaller_as_pillow_does_it():
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((96, 64))
    images = torch.from_numpy(np.asarray(smooth).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    prepared = PicturePreparation(image_size_px=32)(images)
    expected = np.asarray(smooth.resize((48, 32), Image.Resampling.BICUBIC))[:, 8:40]
    found = (prepared[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(found - expected).max() < 1.5  # Pillow rounds to bytes between its two passes


def test_settings_are_read_from_the_folder(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.3]})
    )
    preparation = PicturePreparation.read(tmp_path, image_size_px=224)
    assert preparation == PicturePreparation(
        image_size_px=224, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3)
    )
    assert PicturePreparation.read(tmp_path / "none", image_size_px=8).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("text", ["{", '{"image_mean": [0.5]}'])
def test_settings_that_make_no_sense_are_refused(tmp_path, text):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(CheckpointError):
        PicturePreparation.read(tmp_path, image_size_px=8)


def test_a_picture_without_three_channels_is_refused():
    with pytest.raises(InputError, match="3 channels"):
        PicturePreparation(image_size_px=8)(torch.zeros(1, 4, 8, 8))
