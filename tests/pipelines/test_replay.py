"""A picture is made again from its file, byte for byte."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from bottega.config import dumps, from_json
from bottega.errors import InputError
from bottega.pipelines import (
    FromPicture,
    Inpaint,
    Region,
    StageSettings,
    open_picture,
    paint_again,
    read_provenance,
    save_picture,
    sheet_of,
)
from bottega.pipelines.output import encode


def test_a_picture_is_made_again_byte_for_byte(painter, tiny_folder, tmp_path):
    (picture,) = painter.paint("a dog", negative="a cat", seeds=9, sampler="euler_ancestral")
    path = save_picture(picture, tmp_path / "a.png")
    threads = torch.get_num_threads()
    again = paint_again(path, model=tiny_folder)
    assert again.same_bytes and again.verdict() == "identical, byte for byte"
    assert encode(again.picture) == path.read_bytes()
    assert torch.get_num_threads() == threads


def test_a_sheet_is_made_again_byte_for_byte(painter, tiny_folder, tmp_path):
    pictures = painter.paint(["a dog", "", "a red car"], seeds=4)
    for captions in (True, False):
        page = sheet_of(pictures, columns=2, captions=captions)
        path = save_picture(page, tmp_path / "sheet.png")
        assert len(read_provenance(path).requests) == 3
        assert paint_again(path, model=tiny_folder).same_bytes


def test_a_style_picture_must_be_given_again(painter, tiny_folder, tmp_path):
    style, other = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    path = save_picture(painter.paint("a dog", style=style)[0], tmp_path / "a.png")
    assert paint_again(path, model=tiny_folder, style=style).same_bytes
    with pytest.raises(InputError, match="needs its style picture"):
        paint_again(path, model=tiny_folder)
    with pytest.raises(InputError, match="another style picture"):
        paint_again(path, model=tiny_folder, style=other)
    plain = save_picture(painter.paint("a dog")[0], tmp_path / "b.png")
    with pytest.raises(InputError, match="without a style picture"):
        paint_again(plain, model=tiny_folder, style=style)


def test_regions_and_their_masks_are_kept_in_the_picture(painter, tiny_folder, tmp_path):
    mask = np.linspace(0, 1, 1024).reshape(32, 32)
    regions = [Region("red car", mask, 3.0), Region("red", (0, 0, 1, 0.5), -0.5)]
    path = save_picture(painter.paint("a red car", regions=regions)[0], tmp_path / "a.png")
    assert list(read_provenance(path).requests[0].regions) == regions
    assert paint_again(path, model=tiny_folder).same_bytes
    pictures = painter.paint(["a red car", "a dog"], regions=[regions, []])
    path = save_picture(sheet_of(pictures, columns=2), tmp_path / "sheet.png")
    assert paint_again(path, model=tiny_folder).same_bytes


def test_a_picture_to_begin_with_must_be_given_again(painter, tiny_folder, tmp_path):
    before, other = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    mask = Image.new("L", (16, 16))
    mask.paste(255, (0, 0, 8, 16))
    for start in (FromPicture(before, 0.4), Inpaint(before, mask, 0.9)):
        path = save_picture(painter.paint("a dog", start=start)[0], tmp_path / "a.png")
        assert paint_again(path, model=tiny_folder, picture=before).same_bytes
        with pytest.raises(InputError, match=r"a\.png cannot be replayed: it needs the picture"):
            paint_again(path, model=tiny_folder)
        with pytest.raises(InputError, match="from another picture"):
            paint_again(path, model=tiny_folder, picture=other)
    plain = painter.paint("a dog")[0]
    with pytest.raises(InputError, match="not painted from a picture"):
        paint_again(save_picture(plain, path), model=tiny_folder, picture=before)
    with pytest.raises(InputError, match="one set of settings"):
        sheet_of([plain, painter.paint("a dog", start=FromPicture(before))[0]], columns=2)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("regions", 0, "where", "right"), 7.0, "a box is left,top,right,bottom"),
        (("regions", 0, "strength"), 1e9, "strength of a region"),
        (("regions", 0, "where"), {"kind": "Path", "path": "/etc"}, "kind 'Path' is not known"),
        (("start", "strength"), 2.0, "strength is above 0"),
        (("start", "mask", "width"), 10**6, "1 to 8192 pixels"),
        (("start", "mask", "data"), "?", "cannot be read"),
    ],
    ids=str,
)
def test_a_strangers_description_of_regions_is_checked(painter, tmp_path, place, value, words):
    mask = Image.new("L", (16, 16), 255)
    (picture,) = painter.paint(
        "a dog",
        regions=[Region("dog", (0, 0, 1, 1))],
        start=Inpaint(Image.new("RGB", (16, 16)), mask),
    )
    facts = json.loads(picture.info["bottega"])
    inner = facts["requests"][0]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    picture.info["bottega"] = json.dumps(facts)
    path = save_picture(picture, tmp_path / "a.png")
    with pytest.raises(InputError, match=words):
        read_provenance(path)


def test_a_changed_file_is_told_from_the_picture_that_it_describes(painter, tiny_folder, tmp_path):
    path = save_picture(painter.paint("a dog")[0], tmp_path / "a.png")
    edited = open_picture(path)
    edited.info.update(bottega=painter.paint("a dog")[0].info["bottega"])
    save_picture(edited, path)
    assert paint_again(path, model=tiny_folder).same_bytes
    r, g, b = edited.getpixel((3, 3))
    edited.putpixel((3, 3), (r ^ 16, g, b))
    save_picture(edited, path)
    assert paint_again(path, model=tiny_folder).verdict() == "1 pixels differ, by at most 16 of 255"
    cropped = edited.crop((0, 0, 5, 5))
    cropped.info.update(edited.info)
    save_picture(cropped, path)
    assert paint_again(path, model=tiny_folder).verdict() == "different in size"


def test_the_verdict_says_which_versions_have_changed(painter, tiny_folder, tmp_path):
    (picture,) = painter.paint("a dog")
    facts = json.loads(picture.info["bottega"])
    facts["machine"]["torch"] = "1.0"
    picture.info["bottega"] = json.dumps(facts)
    path = save_picture(picture, tmp_path / "a.png")
    again = paint_again(path, model=tiny_folder)
    assert not again.same_bytes and again.num_different == 0
    assert again.verdict().startswith(
        "the same pixels in a file that differs; other than then: torch 1.0"
    )


def test_another_model_is_refused(painter, tiny_folder, tmp_path):
    (picture,) = painter.paint("a dog")
    picture.info["bottega"] = picture.info["bottega"].replace(painter.digest, "0" * 64)
    path = save_picture(picture, tmp_path / "a.png")
    with pytest.raises(InputError, match="painted by tiny 000000000000, but this tiny is"):
        paint_again(path, model=tiny_folder)


def test_whole_numbers_for_settings_read_back_as_they_were_written():
    settings = StageSettings()
    for name, value in {"guidance_scale": 2, "sigma_max": 40, "guidance_interval": (0, 9)}.items():
        object.__setattr__(settings, name, value)  # as a caller without the shape hook may do
    settings.__post_init__()
    text = dumps(settings)
    assert '"sigma_max": 40.0' in text
    assert dumps(from_json(StageSettings, json.loads(text))) == text
