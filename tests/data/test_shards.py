"""Shards of WebDataset are read by position, without a pickle, and everything that is no picture is named."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottega.data import Buckets, FolderSource, ShardSource, groups_of, pictures_in
from bottega.data.shards import find_shards, is_shards, list_shards
from bottega.errors import DataError


def png(colour="red", size=(40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, members: dict[str, bytes | str], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def reasons(source: ShardSource) -> dict[str, str]:
    return {rejected.file: rejected.reason for rejected in source.report.rejected}


def test_captions_come_from_text_or_from_json(tmp_path: Path):
    shard = write(
        tmp_path / "0.tar",
        {
            "a.png": png("red"), "a.txt": "a  red\nsquare", "a.json": '{"caption": "other", "n": 3}',
            "b.png": png("lime"), "b.json": json.dumps({"caption": "a green square", "score": 5.5}),
            "c.png": png("blue"), "c.json": json.dumps({"text": "a blue square", "caption": "no"}),
        },
    )  # fmt: skip
    source = ShardSource(shard, 8)
    assert [e.file for e in source.examples] == ["0.tar/a.png", "0.tar/b.png", "0.tar/c.png"]
    batch = source.batch([2, 0])
    assert batch.captions == ("a blue square", "a red square")
    assert batch.images[:, :, 4, 4].tolist() == [[0, 0, 255], [255, 0, 0]]
    assert source.examples[0].facts == {"n": 3}
    assert source.examples[1].facts == {"score": 5.5}
    assert not source.report.rejected


def test_a_shard_of_the_same_files_is_the_folder(tmp_path: Path):
    generator = np.random.default_rng(0)
    members: dict[str, bytes | str] = {}
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(6):
        height, width = generator.integers(20, 90, 2).tolist()
        buffer = io.BytesIO()
        pixels = generator.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        members[f"{number}.png"], members[f"{number}.txt"] = buffer.getvalue(), f"number {number}"
        (folder / f"{number}.png").write_bytes(buffer.getvalue())
        (folder / f"{number}.txt").write_text(f"number {number}")
    shard = write(tmp_path / "all.tar", members)
    buckets = Buckets(multiple=8, max_stretch=9.0)
    for kind in (None, buckets):
        one = FolderSource(folder, 32, buckets=kind)
        other = ShardSource(shard, 32, buckets=kind)
        assert groups_of(one) == groups_of(other)
        for index in range(6):
            ours, theirs = one.batch([index]), other.batch([index])
            assert ours.captions == theirs.captions
            assert np.array_equal(ours.images, theirs.images)


def test_what_cannot_be_used_is_named_with_its_reason(tmp_path: Path):
    shard = write(
        tmp_path / "0.tar",
        {
            "good.png": png(), "good.txt": "fine",
            "silent.png": png(),
            "empty.png": png(), "empty.txt": " \n",
            "latin.png": png(), "latin.txt": b"caf\xe9",
            "odd.png": png(), "odd.json": "{",
            "list.png": png(), "list.json": "[1]",
            "two.png": png(), "two.jpg": png(), "two.txt": "two",
            "letters.jpg": b"letters", "letters.txt": "letters",
            "alone.txt": "alone",
            "pickled.pkl": b"\x80\x04N.", "pickled.txt": "never read",
            "seen.png": png(), "between.txt": "between", "seen.txt": "apart",
        },
    )  # fmt: skip
    with tarfile.open(shard, "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    source = ShardSource(shard, 8)
    assert [e.file for e in source.examples] == ["0.tar/good.png"]
    found = reasons(source)
    assert found.pop("0.tar/link.png") == "not a plain file"
    assert found["0.tar/silent"] == found["0.tar/empty"] == "no caption"
    assert "UTF-8" in found["0.tar/latin"]
    assert "not JSON" in found["0.tar/odd"]
    assert "not an object" in found["0.tar/list"]
    assert "two pictures" in found["0.tar/two"]
    assert found["0.tar/letters.jpg"] == "not a picture, by its contents"
    assert found["0.tar/alone"] == found["0.tar/pickled"] == "no picture under this name"
    assert found["0.tar/seen"] in ("no caption", "no picture under this name")


def test_a_truncated_shard_gives_what_stood_before_the_cut(tmp_path: Path):
    members = {f"{n}.{e}": d for n in range(3) for e, d in (("png", png()), ("txt", f"n {n}"))}
    shard = write(tmp_path / "0.tar", members)
    whole = shard.read_bytes()
    shard.write_bytes(whole[: 512 * 5])
    source = ShardSource(shard, 8)
    assert source.examples[0].caption == "n 0"
    assert source.num_examples < 3
    assert "damaged" in reasons(source)["0.tar"]


def test_a_compressed_shard_and_what_is_no_tar_are_refused_by_name(tmp_path: Path):
    write(tmp_path / "zipped.tar", {"a.png": png(), "a.txt": "a"}, mode="w:gz")
    (tmp_path / "words.tar").write_text("words " * 400)
    with pytest.raises(DataError, match=r"zipped\.tar: damaged, or not a tar file"):
        ShardSource(tmp_path / "zipped.tar", 8)
    with pytest.raises(DataError, match=r"words\.tar: damaged, or not a tar file"):
        ShardSource(tmp_path / "words.tar", 8)


def test_shards_are_found_in_a_folder_and_by_numbers_in_braces(tmp_path: Path):
    for number in (0, 1, 2):
        write(tmp_path / f"cats-{number:03d}.tar", {"a.png": png(), "a.txt": f"shard {number}"})
    assert is_shards(tmp_path) and is_shards(tmp_path / "cats-{000..002}.tar")
    assert not is_shards(tmp_path / "none")
    found = find_shards(tmp_path / "cats-{001..002}.tar")
    assert [path.name for path in found] == ["cats-001.tar", "cats-002.tar"]
    source = pictures_in(tmp_path, 8)
    assert source.batch(range(3)).captions == ("shard 0", "shard 1", "shard 2")
    assert not source.report.rejected
    (tmp_path / "loose.PNG").write_bytes(png())
    assert reasons(pictures_in(tmp_path, 8)) == {
        "loose.PNG": "beside the shards, and in none of them"
    }
    with pytest.raises(DataError, match=r"no shard .*cats-003\.tar"):
        find_shards(tmp_path / "cats-{001..003}.tar")
    with pytest.raises(DataError, match="counted upwards"):
        find_shards(tmp_path / "cats-{002..001}.tar")


def test_a_member_is_read_like_a_file_of_its_own(tmp_path: Path):
    data = np.random.default_rng(0).integers(0, 255, 5000, np.uint8).tobytes()
    shard = write(tmp_path / "0.tar", {"0.png": png(), "a.png": data, "a.txt": "a", "b.png": png()})
    member = next(m for m in list_shards(shard).members if m.size == len(data))
    assert member.read() == data
    with member.open() as ours, io.BytesIO(data) as theirs:
        for offset, whence, count in (
            (0, 0, 7),
            (4990, 0, 99),
            (-5, 2, 3),
            (-4000, 1, 1000),
            (0, 2, 1),
        ):
            assert ours.seek(offset, whence) == theirs.seek(offset, whence)
            assert ours.read(count) == theirs.read(count)
            assert ours.tell() == theirs.tell()
        ours.seek(0)
        assert ours.read() == data


def test_damage_inside_a_picture_is_met_when_it_is_looked_at_or_drawn(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    cut = buffer.getvalue()[:2000]
    shard = write(tmp_path / "0.tar", {"a.png": png(), "a.txt": "a", "b.png": cut, "b.txt": "b"})
    assert "truncated" in reasons(ShardSource(shard, 8))["0.tar/b.png"]
    late = ShardSource(shard, 8, check="headers")
    assert late.num_examples == 2
    with pytest.raises(DataError, match=r"b\.png cannot be read"):
        late.batch([1])


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its own files
def test_webdataset_would_group_the_same_samples(tmp_path: Path):
    webdataset = pytest.importorskip("webdataset")
    members: dict[str, bytes | str] = {}
    for number in range(5):
        members[f"in/{number}.png"] = png(size=(10 + number, 9))
        members[f"in/{number}.txt"] = f"number {number}"
    shard = write(tmp_path / "0.tar", members)
    theirs = [
        (sample["__key__"], sample["txt"].decode(), sample["png"])
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False)
    ]
    listing = list_shards(shard)
    ours = [
        (example.file.removeprefix("0.tar/").removesuffix(".png"), example.caption, member.read())
        for example, member in zip(listing.examples, listing.members, strict=True)
    ]
    assert ours == theirs
