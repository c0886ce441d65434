"""PNG files: whole or not there, saying what made them, and never trusted when read."""

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from bottega.errors import InputError
from bottega.pipelines import (
    check_writable,
    open_picture,
    read_provenance,
    save_picture,
    sheet,
    sheet_of,
)
from bottega.pipelines.output import (
    MAX_METADATA_BYTES,
    default_columns,
    open_mask,
    read_metadata,
    to_pictures,
)
from bottega.pipelines.provenance import Request, parse_provenance


def png(*chunks: tuple[bytes, bytes], end: bool = True) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in [*chunks, *([(b"IEND", b"")] if end else [])]:
        parts.append(
            struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
        )
    return b"".join(parts)


def test_tensors_become_bytes_rounded_and_clipped():
    values = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0])
    (picture,) = to_pictures(values.expand(1, 3, 1, 6))
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]


def test_what_was_written_is_read_again(painter, tmp_path):
    prompt = 'naïve "🍕" \n <cat> \\ \x07'
    (picture,) = painter.paint(prompt, negative="é", seeds=-5)
    origin = read_provenance(save_picture(picture, tmp_path / "a.png"))
    assert origin.requests == (Request(prompt=prompt, negative="é", seed=-5),)
    assert origin.model_digest == painter.digest
    assert {r.name: r.settings for r in origin.stages} == painter.settings
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.tobytes() == picture.tobytes()
        assert opened.info["bottega"] == picture.info["bottega"]


def test_metadata_can_be_left_out(painter, tmp_path):
    (picture,) = painter.paint("a secret")
    path = save_picture(picture, tmp_path / "a.png", metadata=False)
    assert b"secret" not in path.read_bytes()
    with pytest.raises(InputError, match="does not say how it was made"):
        read_provenance(path)
    assert "bottega" in picture.info


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.png"
    for colour in ("red", "blue"):
        save_picture(Image.new("RGB", (4, 4), colour), path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert open_picture(path).getpixel((0, 0)) == (0, 0, 255)


def test_a_write_that_fails_says_so_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        save_picture(Image.new("RGB", (4, 4)), tmp_path / "gone" / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_description_too_long_to_read_is_not_written(tmp_path):
    picture = Image.new("RGB", (4, 4))
    picture.info["bottega"] = "x" * (MAX_METADATA_BYTES + 1)
    with pytest.raises(InputError, match="more than"):
        save_picture(picture, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot_be_written_are_known_before(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    for place, words in {
        "a.jpg": "name the output .*a.png",
        "a": "name the output .*a.png",
        "folder.png": "it is a folder",
        "gone/a.png": "there is no folder",
        "file/a.png": "there is no folder|Not a directory",
        "n" * 300 + ".png": "File name too long",
    }.items():
        with pytest.raises(InputError, match=words):
            check_writable(tmp_path / place)
    assert check_writable(tmp_path / "b.PNG") == tmp_path / "b.PNG"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_place_where_no_file_can_be_made_is_refused():
    if not Path("/proc/self").is_dir():
        pytest.skip("needs /proc")
    with pytest.raises(InputError, match="cannot write"):
        check_writable("/proc/self/a.png")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GIF89a", "is not a PNG"),
        (b"", "is not a PNG"),
        (png(end=False), "cut short"),
        (png((b"tEXt", b"other\0x")), "does not say"),
        (png((b"zTXt", b"bottega\0\0" + zlib.compress(b"[" * 10**6))), "compressed or longer"),
        (png((b"iTXt", b"bottega\0\1\0\0\0" + zlib.compress(b"{}"))), "compressed or longer"),
        (png((b"tEXt", b"bottega\0" + b"x" * (MAX_METADATA_BYTES + 1))), "compressed or longer"),
        (png((b"tEXt", b"bottega\0{}"))[:-30], "cut short"),
        (png((b"tEXt", b"bottega\0not json")), "cannot be replayed.*not JSON"),
        (png((b"tEXt", b"bottega\0" + b"[" * 200_000)), "cannot be replayed"),
        (png((b"tEXt", b"bottega\0[]")), "cannot be replayed"),
        (png((b"tEXt", b'bottega\0{"kind":"Provenance"}')), "cannot be replayed.*lacks"),
    ],
    ids=range(12),
)
def test_hostile_or_broken_files_are_refused_in_words(tmp_path, data, words):
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_provenance(path)


def test_a_chunk_that_lies_about_its_length_is_cut_short(tmp_path):
    path = tmp_path / "bad.png"
    path.write_bytes(png(end=False) + struct.pack(">I4s", 1000, b"tEXt") + b"bottega\0{}")
    with pytest.raises(InputError, match="cut short"):
        read_metadata(path)
    with pytest.raises(InputError, match="No such file"):
        read_metadata(tmp_path / "gone.png")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("format_version",), 99, "upgrade bottega"),
        (("rng_scheme",), 99, "upgrade bottega"),
        (("stages", 0, "settings", "steps"), 10**9, "steps must be between"),
        (("stages", 0, "settings", "sampler"), "x" * 9, "not known"),
        (("stages", 0, "settings", "sigma"), 1, "not a setting"),
        (("machine", "threads"), 0, "not sane"),
        (("machine", "lanes"), 10**9, "not sane"),
        (("requests",), [], "1 to 4096"),
        (("requests", 0, "seed"), 2**70, "63 bits"),
        (("requests", 0, "seed"), "0", "expects int"),
        (("sheet",), {"columns": 0}, "columns must be"),
    ],
    ids=str,
)
def test_descriptions_out_of_bounds_are_refused(painter, path, value, words):
    facts = json.loads(painter.paint("a dog")[0].info["bottega"])
    place = facts
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError, match=words):
        parse_provenance(json.dumps(facts))


def test_several_pictures_need_a_sheet(painter):
    origin = parse_provenance(painter.paint("a dog")[0].info["bottega"])
    with pytest.raises(InputError, match="need a sheet"):
        replace(origin, requests=origin.requests * 2)


def test_pictures_are_opened_only_when_they_are_sane(tmp_path):
    huge = tmp_path / "huge.png"
    header = struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)
    huge.write_bytes(png((b"IHDR", header), (b"IDAT", b"")))
    with pytest.raises(InputError, match="more than 64,000,000"):
        open_picture(huge)
    for side in (10_000, 100_000):
        bomb = tmp_path / "bomb.png"
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb.write_bytes(png((b"IHDR", header), (b"IDAT", b"")))
        with pytest.raises(InputError, match="bomb"):
            open_picture(bomb)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InputError, match="as a picture"):
        open_picture(tmp_path / "text.png")
    with pytest.raises(InputError, match="no such file"):
        open_picture(tmp_path / "gone.png")
    assert (
        PngImagePlugin.MAX_TEXT_CHUNK < 64 * 2**20
    )  # Pillow's own guard, on the way we do not read


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_a_picture_is_opened_as_a_viewer_shows_it(tmp_path, ending: str):
    lying, exif = Image.new("RGB", (32, 16), "black"), Image.Exif()
    lying.paste("white", (0, 0, 16, 16))
    exif[0x0112] = 6  # to be turned by a quarter
    lying.save(tmp_path / f"lying.{ending}", exif=exif)
    for upright in (
        open_picture(tmp_path / f"lying.{ending}"),
        open_mask(tmp_path / f"lying.{ending}").convert("RGB"),
    ):
        pixels = np.asarray(upright)
        assert pixels.shape == (32, 16, 3)
        assert pixels[:14].mean() > 240 and pixels[18:].mean() < 15


def test_what_is_transparent_lies_on_white_and_odd_modes_become_rgb(tmp_path):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    for name, picture, told, colour in (
        ("rgba.png", clear, {}, (255, 255, 255)),
        ("la.png", Image.new("LA", (4, 4), (0, 0)), {}, (255, 255, 255)),
        ("palette.png", palette, {}, (0, 0, 255)),
        ("clear.png", palette, {"transparency": 1}, (255, 255, 255)),
        ("grey.png", Image.new("L", (4, 4), 7), {}, (7, 7, 7)),
        ("print.tif", Image.new("CMYK", (4, 4), (0, 0, 0, 255)), {}, (0, 0, 0)),
    ):
        picture.save(tmp_path / name, **told)
        opened = open_picture(tmp_path / name)
        assert (opened.mode, opened.getpixel((1, 1))) == ("RGB", colour), name
    assert open_mask(tmp_path / "la.png").mode == "LA"


def test_sixteen_bits_become_eight_and_fractions_are_refused(tmp_path):
    deep = np.array([[0, 257 * 7, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.asarray(open_picture(tmp_path / "deep.png"))[0, :, 1].tolist() == [0, 7, 255]
    assert list(open_mask(tmp_path / "deep.png").tobytes()) == [0, 7, 255]
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "fractions.tif")
    for read in (open_picture, open_mask):
        with pytest.raises(InputError, match="has fractions for pixels"):
            read(tmp_path / "fractions.tif")


def test_a_sheet_holds_every_picture_in_reading_order():
    colours = [(10 * i, 0, 0) for i in range(5)]
    pictures = [Image.new("RGB", (8, 8), colour) for colour in colours]
    page = sheet(pictures, columns=3)
    assert page.size == (3 * 12 + 4, 2 * 12 + 4)
    seen = [page.getpixel((4 + i % 3 * 12 + 1, 4 + i // 3 * 12 + 1)) for i in range(5)]
    assert seen == colours
    assert page.getpixel((4 + 2 * 12 + 1, 4 + 12 + 1)) == (255, 255, 255)


def test_captions_are_written_beneath_and_change_no_picture():
    pictures = [Image.new("RGB", (100, 64), "red")] * 2
    plain, told = sheet(pictures, 2), sheet(pictures, 2, ["a red square " * 1000, ""])
    assert told.height > plain.height
    assert told.crop((4, 4, 104, 68)).tobytes() == pictures[0].tobytes()
    under = np.asarray(told.crop((0, 69, 68, told.height)))
    assert (under < 128).any()


def test_captions_of_small_pictures_do_not_run_into_each_other():
    words = ["a hamburger on a grey background", ""]
    page = np.asarray(sheet([Image.new("RGB", (16, 16), "white")] * 2, 2, words))
    inked = (page < 128).all(axis=-1).any(axis=0).nonzero()[0]
    assert len(inked) and inked.max() < page.shape[1] / 2  # all of it in its own half


def test_sheets_are_as_square_as_can_be():
    assert [default_columns(n) for n in (1, 2, 3, 4, 5, 9, 10, 16)] == [1, 2, 2, 2, 3, 3, 4, 4]
    with pytest.raises(InputError, match="at least one picture"):
        sheet([])
    with pytest.raises(InputError, match="columns"):
        sheet([Image.new("RGB", (1, 1))], 0)
    with pytest.raises(InputError, match="captions"):
        sheet([Image.new("RGB", (1, 1))], 1, [])


def test_a_sheet_that_can_be_replayed_needs_pictures_made_alike(painter):
    one, other = painter.paint("a dog")[0], painter.paint("a dog", steps=2)[0]
    with pytest.raises(InputError, match="one set of settings"):
        sheet_of([one, other], columns=2)
    with pytest.raises(InputError, match="say what made them"):
        sheet_of([Image.new("RGB", (8, 8))], columns=1)
