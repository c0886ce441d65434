"""A folder of pictures: what can be used is used in order, and what cannot is named with its reason."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottega.data import FolderSource
from bottega.errors import DataError, InputError


def save(folder: Path, name: str, caption: str | None = None, size=(40, 30), colour="red") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def claims(path: Path, width: int, height: int) -> None:
    """A PNG of a few bytes that says it is very large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    path.with_suffix(".txt").write_text("a bomb", encoding="utf-8")


def reasons(source: FolderSource) -> dict[str, str]:
    return {rejected.file: rejected.reason for rejected in source.report.rejected}


def test_pictures_come_in_the_order_of_their_paths_with_their_captions(tmp_path: Path):
    save(tmp_path, "b.png", "a blue\nsquare ", colour="blue")
    save(tmp_path, "a.jpg", "a red square")
    save(tmp_path, "inner/c.webp", "a green square", colour=(0, 128, 0))
    source = FolderSource(tmp_path, 16)
    assert [e.file for e in source.examples] == ["a.jpg", "b.png", "inner/c.webp"]
    assert source.num_examples == 3
    batch = source.batch([2, 1])
    assert batch.captions == ("a green square", "a blue square")
    assert batch.images.shape == (2, 3, 16, 16)
    assert batch.images[1, :, 8, 8].tolist() == [0, 0, 255]
    assert not source.report.rejected


def test_every_file_that_cannot_be_used_is_named_with_its_reason(tmp_path: Path):
    save(tmp_path, "good.png", "fine")
    save(tmp_path, "silent.png")
    save(tmp_path, "empty.png", "  \n")
    save(tmp_path, "latin.png").with_suffix(".txt").write_bytes(b"caf\xe9")
    whole = save(tmp_path, "cut.png", "cut", size=(200, 200))
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(whole)
    whole.write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "letters.jpg").write_text("not a picture")
    (tmp_path / "letters.txt").write_text("letters")
    (tmp_path / "notes.md").write_text("notes")
    (tmp_path / "alone.txt").write_text("alone")
    (tmp_path / ".hidden").write_text("passed over")
    save(tmp_path, "good.jpg")
    source = FolderSource(tmp_path, 8)
    found = reasons(source)
    assert source.num_examples == 1
    assert set(found) == {
        "silent.png", "empty.png", "latin.png", "cut.png", "letters.jpg", "notes.md", "alone.txt",
        "good.png",
    }  # fmt: skip
    assert "silent.txt is missing" in found["silent.png"]
    assert "empty" in found["empty.png"]
    assert "UTF-8" in found["latin.png"]
    assert "truncated" in found["cut.png"]
    assert found["letters.jpg"] == "not a picture, by its contents"
    assert "ending" in found["notes.md"]
    assert "without a picture" in found["alone.txt"]
    assert "belongs to good.jpg" in found["good.png"]
    assert "1 pictures can be used, 8 files cannot" in str(source.report)
    assert "  cut.png: " in str(source.report)


@pytest.mark.parametrize("width", [9_000, 12_000, 60_000])
def test_a_picture_that_claims_too_many_pixels_is_refused_unopened(tmp_path: Path, width: int):
    save(tmp_path, "good.png", "fine")
    claims(tmp_path / "bomb.png", width, width)
    source = FolderSource(tmp_path, 8)
    assert "exhaust the memory" in reasons(source)["bomb.png"]
    assert source.num_examples == 1


def test_postscript_in_the_clothes_of_a_picture_is_not_run(tmp_path: Path):
    save(tmp_path, "good.png", "fine")
    (tmp_path / "bad.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nquit\n%%EOF\n"
    )
    (tmp_path / "bad.txt").write_text("a picture")
    assert reasons(FolderSource(tmp_path, 8))["bad.png"] == "not a picture, by its contents"


def test_damage_is_met_later_when_only_headers_are_checked(tmp_path: Path):
    path = save(tmp_path, "cut.png", "cut")
    path.write_bytes(path.read_bytes()[:-30])
    source = FolderSource(tmp_path, 8, check="headers")
    assert source.num_examples == 1
    with pytest.raises(DataError, match=r"cut\.png cannot be read"):
        source.batch([0])
    with pytest.raises(DataError, match="no picture that can be used"):
        FolderSource(tmp_path, 8)


def test_a_metadata_file_in_the_form_of_imagefolder_is_read(tmp_path: Path):
    for name in ("a.png", "b.png", "c.png", "sub/d.png", "unnamed.png"):
        save(tmp_path, name)
    rows = [
        json.dumps({"file_name": "sub/d.png", "text": "the last"}),
        json.dumps({"file_name": "a.png", "text": "the  first"}),
        "{not json",
        json.dumps({"text": "no name"}),
        json.dumps([1, 2]),
        "",
        json.dumps({"file_name": "b.png"}),
        json.dumps({"file_name": "c.png", "text": 3}),
        json.dumps({"file_name": "gone.png", "text": "gone"}),
        json.dumps({"file_name": "../secret.png", "text": "out"}),
        json.dumps({"file_name": "/secret.png", "text": "out"}),
        json.dumps({"file_name": "a.png", "text": "again"}),
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    source = FolderSource(tmp_path, 8)
    assert [(e.file, e.caption) for e in source.examples] == [
        ("a.png", "the first"),
        ("sub/d.png", "the last"),
    ]
    found = reasons(source)
    assert found["metadata.jsonl line 3"] == "not JSON"
    assert found["metadata.jsonl line 4"] == found["metadata.jsonl line 5"] == "no file_name"
    assert "'text' is missing" in found["b.png"]
    assert "'text' is missing" in found["c.png"]
    assert found["gone.png"] == "named but missing"
    assert "out of the folder" in found["../secret.png"]
    assert "out of the folder" in found["/secret.png"]
    assert "named twice" in found["a.png"]
    assert "does not name it" in found["unnamed.png"]


def test_captions_may_stand_under_another_key(tmp_path: Path):
    save(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "caption": "yes"}')
    assert FolderSource(tmp_path, 8, caption_field="caption").batch([0]).captions == ("yes",)


def test_the_shorter_side_is_fitted_and_the_centre_kept(tmp_path: Path):
    picture = np.zeros((60, 180, 3), np.uint8)
    picture[:, 60:120] = 255
    Image.fromarray(picture).save(tmp_path / "wide.png")
    (tmp_path / "wide.txt").write_text("wide")
    assert (FolderSource(tmp_path, 20).batch([0]).images[..., 1:-1] > 250).all()


def test_making_a_picture_smaller_is_antialiased(tmp_path: Path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    (tmp_path / "stripes.txt").write_text("stripes")
    inner = FolderSource(tmp_path, 8).batch([0]).images[..., 2:-2].float()
    assert (inner - 127.5).abs().max() < 8


def test_rotation_transparency_grey_and_deep_pictures_are_understood(tmp_path: Path):
    turned = Image.new("RGB", (40, 20), "black")
    turned.paste("white", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("L", (10, 10), 77).save(tmp_path / "grey.png")
    Image.fromarray(np.full((10, 10), 65535, np.uint16)).save(tmp_path / "deep.png")
    for name in ("turned", "clear", "grey", "deep"):
        (tmp_path / f"{name}.txt").write_text(name)
    source = FolderSource(tmp_path, 10)
    clear, deep, grey, upright = source.batch(range(4)).images
    assert (clear == 255).all()
    assert (deep == 255).all()
    assert (grey == 77).all()
    assert upright[:, 1].float().mean() > 240
    assert upright[:, -2].float().mean() < 15


def test_folders_of_nothing_and_sizes_of_nothing_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="not a folder"):
        FolderSource(tmp_path / "none", 8)
    with pytest.raises(DataError, match="no picture that can be used"):
        FolderSource(tmp_path, 8)
    save(tmp_path, "a.png", "a")
    with pytest.raises(InputError):
        FolderSource(tmp_path, 0)


def test_pictures_without_any_caption_say_what_to_do(tmp_path: Path):
    Image.new("RGB", (9, 9)).save(tmp_path / "red_car.png")
    with pytest.raises(DataError, match=r"for want of captions: .*data\.caption"):
        FolderSource(tmp_path, 8)
    assert FolderSource(tmp_path, 8, caption="a {name}").examples[0].caption == "a red car"
    (tmp_path / "00000.tar.gz").write_bytes(b"packed")
    with pytest.raises(DataError, match=r"shards end in \.tar, and are not compressed"):
        FolderSource(tmp_path / "00000.tar.gz", 8)


def test_a_line_separator_in_a_caption_ends_no_line(tmp_path: Path):
    save(tmp_path, "a.png")
    row = {"file_name": "a.png", "text": "one\u2028two", "note": "next\u0085line"}
    text = json.dumps(row, ensure_ascii=False) + "\r\n"
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8", newline="")
    (example,) = FolderSource(tmp_path, 8).examples
    assert (example.caption, example.facts["note"]) == ("one two", "next\u0085line")


def test_hostile_rows_are_named_and_stop_nothing(tmp_path: Path):
    for name in ("good.png", "half.png"):
        save(tmp_path, name)
    rows = [
        '{"file_name": "good.png", "text": "good"}',
        '{"file_name": "half.png", "text": "half \\ud800 a character"}',
        '{"file_name": "digits.png", "text": "digits", "n": ' + "9" * 5000 + "}",
        json.dumps({"file_name": "long" * 100 + ".png", "text": "long"}),
        "[" * 100_000,
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    source = FolderSource(tmp_path, 8)
    assert [e.file for e in source.examples] == ["good.png"]
    found = reasons(source)
    assert found["half.png"] == "its caption is not Unicode text"
    assert found["metadata.jsonl line 3"] == found["metadata.jsonl line 5"] == "not JSON"
    assert found["long" * 100 + ".png"] == "named but missing"


def test_pictures_of_print_of_palettes_and_of_motion_are_understood(tmp_path: Path):
    Image.new("CMYK", (10, 10), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    animated = Image.new("RGB", (10, 10), "lime")
    animated.save(tmp_path / "b.gif", save_all=True, append_images=[Image.new("RGB", (10, 10))])
    palette = Image.new("P", (10, 10), 3)
    palette.putpalette([0, 0, 0] * 3 + [0, 0, 255])
    palette.save(tmp_path / "c.png")
    palette.save(tmp_path / "d.png", transparency=3)
    Image.fromarray(np.full((10, 10), 2**31 - 1, np.int32)).save(tmp_path / "e.tif")
    Image.fromarray(np.full((10, 10), 0.5, np.float32)).save(tmp_path / "f.tif")
    for name in "abcdef":
        (tmp_path / f"{name}.txt").write_text(name)
    source = FolderSource(tmp_path, 10)
    means = source.batch(range(5)).images.float().mean((2, 3)).round()
    white = [255, 255, 255]
    assert means[0].tolist() == pytest.approx([254, 0, 0], abs=2)  # JPEG is not exact
    assert means[1:].tolist() == [[0, 255, 0], [0, 0, 255], white, white]
    assert reasons(source) == {"f.tif": "its pixels are fractions, whose range is not known"}
