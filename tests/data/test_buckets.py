"""Every picture goes whole to the bucket nearest its shape; a batch never mixes buckets."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottega.data import Bucket, Buckets, EmojiWorld, EmojiWorldConfig, FolderSource, WorldSource
from bottega.data.buckets import RAPHAEL_SHAPES, find_bucket, groups_of
from bottega.data.emoji_world import edges, labels, render
from bottega.errors import ConfigError, InputError

TOY = Buckets(multiple=4)
SHAPES = {
    "wide.png": (140, 260),
    "tall.png": (260, 140),
    "square.png": (90, 90),
    "near.png": (100, 95),
}


def save(folder: Path, name: str, shape: tuple[int, int]) -> None:
    """A picture whose four quarters are red, green, blue and white, in reading order."""
    height, width = shape
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = 255
    Image.fromarray(pixels).save(folder / name)
    (folder / name).with_suffix(".txt").write_text(name, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, shape in SHAPES.items():
        save(tmp_path, name, shape)
    return tmp_path


def test_the_papers_own_size_has_the_papers_nine_buckets():
    assert {str(bucket) for bucket in Buckets(multiple=64).at(640)} == set(RAPHAEL_SHAPES)
    assert len(RAPHAEL_SHAPES) == 9


@pytest.mark.parametrize(("size", "multiple"), [(32, 4), (64, 8), (80, 8), (256, 8), (512, 64)])
def test_scaled_buckets_keep_area_shape_and_multiples(size: int, multiple: int):
    scaled = Buckets(multiple=multiple).at(size)
    slack = 1 + multiple / (0.7 * size)
    assert Bucket(size, size) in scaled
    assert len(set(scaled)) == len(scaled) <= 9
    for bucket in scaled:
        assert bucket.height % multiple == bucket.width % multiple == 0
        assert Bucket(bucket.width, bucket.height) in scaled
        assert 0.88 / slack**2 < bucket.height * bucket.width / size**2 < 1.02 * slack**2


def test_the_nearest_bucket_is_the_one_that_stretches_least():
    generator = np.random.default_rng(0)
    buckets = Buckets(multiple=64)
    for height, width in generator.integers(100, 2000, (200, 2)).tolist():
        found = buckets.place(640, height, width)
        stretches = {
            bucket: math.exp(abs(math.log(height / width) - math.log(bucket.height / bucket.width)))
            for bucket in buckets.at(640)
        }
        least = min(stretches.values())
        if found is None:
            assert least > buckets.max_stretch
        else:
            assert stretches[found] == pytest.approx(least)
            assert found.stretch(height, width) == pytest.approx(least)
            assert least <= buckets.max_stretch


def test_pictures_within_the_papers_range_are_stretched_by_an_eighth_at_most():
    buckets = Buckets(multiple=64, max_stretch=1.125)
    for width in range(448, 833):
        assert buckets.place(640, 1280 - width, width) is not None


def test_a_strip_belongs_nowhere_and_is_reported(folder: Path):
    save(folder, "strip.png", (40, 400))
    source = FolderSource(folder, 32, buckets=TOY)
    assert source.num_examples == len(SHAPES)
    (rejected,) = source.report.rejected
    assert rejected.file == "strip.png" and "no bucket for 40 x 400 pixels" in rejected.reason
    assert sum(source.report.buckets.values()) == len(SHAPES)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shapes": ("512:768",)}, "HEIGHTxWIDTH"),
        ({"shapes": ()}, "no bucket"),
        ({"multiple": 0}, "positive"),
        ({"max_stretch": 0.5}, "max_stretch"),
        ({"max_stretch": math.inf}, "max_stretch"),
    ],
)
def test_buckets_that_mean_nothing_are_refused(settings, words: str):
    with pytest.raises(ConfigError, match=words):
        Buckets(**settings)


def test_an_unknown_bucket_names_the_nearest():
    known = TOY.at(32)
    assert find_bucket("32x32", known) == (32, 32)
    with pytest.raises(InputError, match=r"'32x33' is not known; did you mean 32x\d\d\?"):
        find_bucket("32x33", known)


def test_a_picture_keeps_its_corners_in_its_bucket(folder: Path):
    source = FolderSource(folder, 32, buckets=TOY)
    for index, example in enumerate(source.examples):
        bucket = source.bucket(index)
        images = source.batch([index]).images
        assert images.shape == (1, 3, bucket.height, bucket.width)
        height, width = SHAPES[example.file]
        assert bucket.stretch(height, width) <= 1.25
        corners = images[0][:, [0, 0, -1, -1], [0, -1, 0, -1]].T.tolist()
        assert corners == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]


def test_without_buckets_the_same_picture_loses_its_ends(folder: Path):
    picture = np.zeros((40, 120, 3), np.uint8)
    picture[:, 40:80] = 255
    Image.fromarray(picture).save(folder / "wide.png")
    cut = FolderSource(folder, 20)
    assert groups_of(cut) is None
    row = [e.file for e in cut.examples].index("wide.png")
    assert (cut.batch([row]).images[..., 1:-1] > 250).all()


def test_groups_are_the_pictures_of_each_bucket_and_mixed_batches_are_refused(folder: Path):
    source = FolderSource(folder, 32, buckets=TOY)
    groups = groups_of(source)
    assert sorted(index for group in groups for index in group) == list(range(len(SHAPES)))
    for group in groups:
        assert len({source.bucket(index) for index in group}) == 1
        assert len(source.batch(group)) == len(group)
    with pytest.raises(InputError, match="a batch holds pictures of one bucket, got"):
        source.batch(range(len(SHAPES)))


def test_a_turned_photograph_goes_where_it_is_seen_to_belong(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (260, 140)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "turned.txt").write_text("turned")
    bucket = FolderSource(tmp_path, 32, buckets=TOY).bucket(0)
    assert bucket.height > bucket.width


def test_a_square_of_the_world_is_the_square_it_always_was():
    world = EmojiWorld(EmojiWorldConfig())
    for index in range(12):
        plan = world.plan(index)
        assert np.array_equal(render(plan, 48), render(plan, (48, 48)))


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (64, 96)])
def test_scenes_fit_other_shapes_whole_and_unstretched(shape: tuple[int, int]):
    world = EmojiWorld(EmojiWorldConfig())
    side = min(shape)
    for index in range(60):
        example = world[index]
        picture, owners = example.image(shape), labels(example.plan, shape)
        assert picture.shape == (*shape, 3) and owners.shape == shape
        assert edges(example.plan, shape).shape == shape
        for phrase in example.phrases:
            assert phrase.mask(shape).shape == shape
        for number, placed in enumerate(example.plan.objects, start=1):
            rows, columns = np.nonzero(owners == number)
            if len(rows):
                extent = max(np.ptp(rows), np.ptp(columns)) + 1
                assert extent <= placed.size * side + 2


def test_what_stands_left_or_above_does_so_in_every_shape():
    world = EmojiWorld(EmojiWorldConfig())
    seen = 0
    for index in range(300):
        plan = world.plan(index)
        for relation in plan.relations:
            if relation.name not in ("left of", "above"):
                continue
            axis = 1 if relation.name == "left of" else 0
            for shape in ((32, 56), (56, 32)):
                owners = labels(plan, shape)
                first = np.nonzero(owners == relation.subject + 1)[axis]
                other = np.nonzero(owners == relation.others[0] + 1)[axis]
                if len(first) and len(other):
                    assert first.mean() < other.mean()
                    seen += 1
    assert seen > 50


def test_a_world_in_buckets_shows_every_example_in_one_of_them():
    world = EmojiWorld(EmojiWorldConfig())
    source = WorldSource(world, 32, buckets=TOY, num_examples=300)
    groups = groups_of(source)
    assert sorted(i for group in groups for i in group) == list(range(300))
    assert len(groups) == len(TOY.at(32))
    assert min(map(len, groups)) > 300 / len(groups) / 2
    for group in groups:
        shape = source.bucket(group[0])
        batch = source.batch(group[:2])
        assert batch.images.shape[2:] == shape
        again = WorldSource(world, 32, buckets=TOY, num_examples=300).batch(group[:2])
        assert np.array_equal(batch.images, again.images)
    with pytest.raises(InputError, match="one bucket"):
        source.batch([groups[0][0], groups[1][0]])
    with pytest.raises(InputError, match="num_examples"):
        WorldSource(world, 32, buckets=TOY)
