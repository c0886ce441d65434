"""Others' networks paint with words, and begin with pictures, as ours do."""

import numpy as np
import pytest
from PIL import Image

from bottega.pipelines import Explanation, FromPicture, Inpaint, Region, load

PROMPT = "a red car"
HALF = (0, 0, 0.5, 1)


@pytest.mark.parametrize("name", ["sd", "sdxl", "if1"])
def test_regions_draw_attention_and_none_of_them_changes_nothing(folders, name):
    painter = load(folders(name), device="cpu", dtype="float32")
    plain = painter.paint(PROMPT, steps=3)[0].tobytes()
    watch = Explanation()
    drawn = painter.paint(PROMPT, regions=[Region("car", HALF)], watch=watch, steps=3)[0]
    assert drawn.tobytes() != plain
    assert all(seen.inside()[0] > seen.areas()[0] for seen in watch.seen.values()) and watch.seen
    idle = painter.paint(PROMPT, regions=[Region("car", HALF, 0.0)], steps=3)[0]
    assert idle.tobytes() == plain


@pytest.mark.parametrize("name", ["sd", "if1"])
def test_what_is_not_masked_is_kept_through_latents_too(folders, name):
    painter = load(folders(name), device="cpu", dtype="float32")
    size = painter.stages[-1].size
    source = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8))
    mask = Image.new("L", source.size)
    mask.paste(255, (0, 0, size // 2, size))
    made = np.asarray(painter.paint(PROMPT, start=Inpaint(source, mask), steps=3)[0])
    assert np.array_equal(made[:, size // 2 :], np.asarray(source)[:, size // 2 :])
    little, much = (
        np.abs(
            np.asarray(painter.paint(PROMPT, start=FromPicture(source, s), steps=3)[0], float)
            - np.asarray(painter.paint(PROMPT, start=FromPicture(source, 0.05), steps=3)[0], float)
        ).mean()
        for s in (0.1, 0.9)
    )
    assert little < much
