"""Filters judge samples alone, every drop is counted by its reason, and a data set is written whole or not at all."""

import io
import json
import math
import os
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottega.data import Buckets, pictures_in
from bottega.data.decoding import Shape
from bottega.data.filtering import AT_ONCE, FilterReport, filter_pictures, sort_samples
from bottega.data.filters import (
    CleanCaption,
    Dropped,
    FitsBucket,
    MinSide,
    Scored,
    Within,
    parse_limit,
)
from bottega.data.inspecting import inspect_samples
from bottega.data.samples import Sample, read_samples
from bottega.errors import ConfigError, InputError


def sample(name="a.png", caption="a cat", shape=(64, 64), **facts) -> Sample:
    return Sample(name=name, caption=caption, shape=Shape(*shape), read=lambda: b"", facts=facts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of growing size, a third of them with an address in the caption, and one that is none."""
    place = tmp_path / "raw"
    place.mkdir()
    generator = np.random.default_rng(0)
    for number in range(12):
        pixels = generator.integers(0, 255, (20 + 4 * number, 30 + 2 * number, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number:02d}.png")
        dirty = " http://example.org/x" if number % 3 == 0 else ""
        (place / f"{number:02d}.txt").write_text(f"picture {number}{dirty}")
    (place / "broken.png").write_bytes(b"no picture")
    (place / "broken.txt").write_text("broken")
    (place / "silent.png").write_bytes((place / "00.png").read_bytes())
    return place


def test_a_caption_is_cleaned_or_its_sample_dropped():
    kept, gone = CleanCaption()([sample(caption="a <b>cat</b>"), sample(caption="www.x.org")])
    assert isinstance(kept, Sample) and kept.caption == "a cat"
    assert gone == Dropped("a.png", "no word left of the caption", "www.x.org")
    (short,) = CleanCaption(min_words=3)([sample(caption="a cat")])
    assert isinstance(short, Dropped) and short.reason == "fewer than 3 words left of the caption"


def test_small_pictures_are_dropped_by_their_shorter_side():
    verdicts = MinSide(pixels=64)([sample(shape=(64, 900)), sample(shape=(900, 63))])
    assert isinstance(verdicts[0], Sample)
    assert verdicts[1] == Dropped("a.png", "shorter side below 64 px", "900 x 63")


def test_strips_are_dropped_and_others_told_their_bucket():
    step = FitsBucket(buckets=Buckets(multiple=64), size=640)
    kept, gone = step([sample(shape=(300, 450)), sample(shape=(100, 900))])
    assert isinstance(kept, Sample) and kept.facts["bucket"] == "512x768"
    assert isinstance(gone, Dropped) and gone.reason.startswith("stretched by more than 1.25")


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("p<=0.5", 0.5, None),
        ("p<=0.5", 0.51, "p above 0.5"),
        ("p>=0.5", 0.5, None),
        ("p>=0.5", 0.49, "p below 0.5"),
        ("p<=0.5", "0.2", "no number p"),
        ("p<=0.5", True, "no number p"),
        ("p<=0.5", math.nan, "no number p"),
        ("p<=0.5", None, "no number p"),
        ("p>=-1e3", -999, None),
    ],
)
def test_a_limit_is_on_a_number_noted_with_the_picture(limit, value, reason):
    (verdict,) = parse_limit(limit)([sample(p=value)])
    assert (verdict.reason if isinstance(verdict, Dropped) else None) == reason


def test_a_limit_on_a_number_nobody_noted_drops_the_sample():
    (verdict,) = parse_limit("p<=1")([sample()])
    assert verdict == Dropped("a.png", "no number p")


@pytest.mark.parametrize("text", ["p", "p<1", "p=1", "p<=", "<=1", "p<=one", "p<=nan", "p q<=1"])
def test_a_limit_written_otherwise_is_refused(text: str):
    with pytest.raises(InputError, match="NAME<=NUMBER"):
        parse_limit(text)


def test_limits_that_nothing_meets_and_settings_of_nothing_are_refused():
    with pytest.raises(ConfigError, match="no number is at least 2 and at most 1"):
        Within(name="p", at_least=2.0, at_most=1.0)
    with pytest.raises(ConfigError):
        MinSide(pixels=0)
    with pytest.raises(ConfigError):
        CleanCaption(min_words=0)


def test_a_score_is_noted_and_decides_alone_for_each_sample():
    step = Scored(
        score=lambda samples: [float(s.shape.width) for s in samples],
        limits=Within(name="width", at_least=50.0, at_most=70.0),
    )
    samples = [sample(shape=(9, width)) for width in (49, 50, 70, 71)]
    low, first, last, high = step(samples)
    assert (low.reason, high.reason) == ("width below 50", "width above 70")
    assert (first.scores, last.scores) == ({"width": 50.0}, {"width": 70.0})
    for verdict, one in zip((low, first, last, high), samples, strict=True):
        (alone,) = step([one])
        assert type(alone) is type(verdict)
    (after,) = parse_limit("width<=60")([first])
    assert isinstance(after, Sample)


def test_every_sample_is_kept_or_counted_once(folder: Path):
    report = FilterReport(filters=("caption", "size"))
    names: list[tuple[str, str]] = []
    kept = list(
        sort_samples(
            read_samples(folder),
            {"caption": CleanCaption(), "size": MinSide(pixels=40)},
            report,
            lambda name, dropped: names.append((name, dropped.name)),
        )
    )
    assert report.seen == 14 and report.kept == len(kept)
    assert sum(report.dropped.values()) == len(names) == report.seen - report.kept
    small = [n for n in range(12) if min(20 + 4 * n, 30 + 2 * n) < 40]
    assert report.dropped == {
        ("read", "not a picture, by its contents"): 1,
        ("read", "no caption"): 1,
        ("size", "shorter side below 40 px"): len(small),
    }
    assert all("http" not in one.caption for one in kept)
    assert str(report).splitlines()[0] == f"14 samples seen, {len(kept)} kept"
    facts = report.facts()
    assert [row["filter"] for row in facts["dropped"]] == ["read", "read", "size"]


def test_samples_go_through_together_but_never_more_than_so_many():
    sizes: list[int] = []

    def step(samples):
        sizes.append(len(samples))
        return list(samples)

    report = FilterReport(filters=("count",))
    many = [sample(name=f"{n}.png") for n in range(2 * AT_ONCE + 3)]
    assert list(sort_samples(many, {"count": step}, report)) == many
    assert sizes == [AT_ONCE, AT_ONCE, 3]


@pytest.mark.parametrize("per_shard", [None, 4])
def test_what_is_kept_is_a_data_set_like_the_first(folder: Path, tmp_path: Path, per_shard):
    target = tmp_path / "better"
    steps = {"caption": CleanCaption(), "size": MinSide(pixels=40)}
    report = filter_pictures(read_samples(folder), target, steps, per_shard=per_shard)
    source, raw = pictures_in(target, 16), pictures_in(folder, 16)
    assert source.num_examples == report.kept > 0
    assert json.loads((target / "report.json").read_text()) == report.facts()
    rows = [json.loads(line) for line in (target / "dropped.jsonl").read_text().splitlines()]
    assert Counter((row["filter"], row["reason"]) for row in rows) == report.dropped
    by_name = {example.file: index for index, example in enumerate(raw.examples)}
    for index, example in enumerate(source.examples):
        origin = by_name[example.facts["source"]]
        assert np.array_equal(source.batch([index]).images, raw.batch([origin]).images)
        assert example.caption == f"picture {int(example.facts['source'][:2])}"
        assert min(example.facts["height"], example.facts["width"]) >= 40
    if per_shard is not None:
        assert len(list(target.glob("*.tar"))) == -(-report.kept // per_shard)
    again = filter_pictures(read_samples(target), None, steps)
    assert again.kept == report.kept and not again.dropped


def test_shards_of_the_same_samples_are_the_same_bytes(folder: Path, tmp_path: Path):
    for name in ("one", "other"):
        filter_pictures(read_samples(folder), tmp_path / name, {}, per_shard=5)
    for shard in (tmp_path / "one").glob("*.tar"):
        assert shard.read_bytes() == (tmp_path / "other" / shard.name).read_bytes()


def test_nothing_is_left_behind_when_it_cannot_be_finished(folder: Path, tmp_path: Path):
    def fails(samples):
        raise InputError("no more")

    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="no more"):
        filter_pictures(read_samples(folder), tmp_path / "new", {"fails": fails})
    with pytest.raises(InputError, match="nothing is left"):
        filter_pictures(read_samples(folder), tmp_path / "new", {"s": MinSide(pixels=999)})
    with pytest.raises(InputError, match="there already"):
        filter_pictures(read_samples(folder), folder, {})
    with pytest.raises(InputError, match="no folder"):
        filter_pictures(read_samples(folder), tmp_path / "a" / "b", {})
    with pytest.raises(InputError, match="at least 1 picture"):
        filter_pictures(read_samples(folder), tmp_path / "new", {}, per_shard=0)
    assert sorted(tmp_path.iterdir()) == before


def test_a_hostile_name_in_a_shard_leads_nowhere(folder: Path, tmp_path: Path):
    shard = tmp_path / "0.tar"
    with tarfile.open(shard, "w") as tar:
        for ending, data in (("png", (folder / "00.png").read_bytes()), ("txt", b"evil")):
            info = tarfile.TarInfo(f"../../evil.{ending}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    filter_pictures(read_samples(shard), tmp_path / "new", {})
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "000000000.png",
        "dropped.jsonl",
        "metadata.jsonl",
        "report.json",
    ]
    assert not list(tmp_path.parent.glob("evil*"))


def test_an_inspection_counts_what_is_there(folder: Path):
    buckets = Buckets(multiple=8)
    found = inspect_samples(read_samples(folder), buckets, 64)
    shapes = [(20 + 4 * n, 30 + 2 * n) for n in range(12)]
    places = Counter(buckets.place(64, *shape) for shape in shapes)
    assert found.usable == 12 and sum(found.rejected.values()) == 2
    assert found.homeless == places.pop(None, 0)
    assert found.fitting == places
    assert found.unclean == 4 and found.repeated == 0
    facts = found.facts()
    assert facts["shorter_side"] == {"least": 20, "median": 41.0, "most": 52}
    assert facts["buckets"].keys() == {str(bucket) for bucket in buckets.at(64)}
    page = str(found)
    assert page.startswith("12 pictures can be used, 2 files cannot")
    assert all(str(bucket) in page for bucket in buckets.at(64))
    assert json.dumps(facts)


def test_nothing_at_all_can_be_inspected_too(tmp_path: Path):
    found = inspect_samples(read_samples(tmp_path), Buckets(), 64)
    assert found.usable == 0 and found.facts()["caption_words"] == {}
    assert "0 pictures can be used" in str(found)


def test_a_listed_file_with_another_ending_is_no_picture(folder: Path, tmp_path: Path):
    place = tmp_path / "odd"
    place.mkdir()
    (place / "a.bin").write_bytes((folder / "00.png").read_bytes())
    (place / "metadata.jsonl").write_text('{"file_name": "a.bin", "text": "a cat"}')
    (found,) = read_samples(place)
    assert found == ("a.bin", "not a picture, by its ending")


def test_a_picture_that_vanished_is_named(folder: Path):
    first = next(one for one in read_samples(folder) if isinstance(one, Sample))
    (folder / first.name).unlink()
    with pytest.raises(ValueError, match=f"{first.name} cannot be read"):
        first.picture()
    assert replace(first, caption="x").name == first.name


def test_a_filter_that_loses_samples_is_refused(folder: Path):
    for name, judge in {
        "fewer": lambda samples: samples[1:],
        "none": lambda samples: [None] * len(samples),
        "nothing": lambda _: None,
    }.items():
        with pytest.raises(InputError, match=f"filter '{name}' must return a list with a Sample"):
            filter_pictures(read_samples(folder), folder.parent / "kept", {name: judge})
        assert sorted(p.name for p in folder.parent.iterdir()) == ["raw"]


def test_names_and_numbers_of_no_kind_are_written_and_read_again(tmp_path: Path):
    raw = tmp_path / "raw"
    raw.mkdir()
    Image.new("RGB", (9, 9)).save(raw / "a.png")
    (raw / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no picture")
    lines = ['{"file_name": "a.png", "text": "a", "u": "x\\u2028\\ud800", "n": ' + "9" * 400 + "}"]
    (raw / "metadata.jsonl").write_text("\n".join(lines))
    for target, per_shard in (("plain", None), ("shards", 4)):
        filters = {"n": parse_limit("n>=5")}
        report = filter_pictures(read_samples(raw), tmp_path / target, filters, per_shard=per_shard)
        assert (report.seen, report.kept) == (2, 1)
        (kept,) = read_samples(tmp_path / target)
        assert isinstance(kept, Sample)
        assert kept.facts["u"] == "x\u2028\ud800" and kept.facts["n"] == int("9" * 400)
        log = (tmp_path / target / "dropped.jsonl").read_text(encoding="utf-8")
        assert json.loads(log)["name"] == "caf\udce9.png"
    (gone,) = parse_limit("n<=5")([sample(n=10**400)])
    assert isinstance(gone, Dropped) and gone.reason == "n above 5"
