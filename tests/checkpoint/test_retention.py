"""Which checkpoints stay, and which one a run goes on from."""

import pytest
import torch

from bottega.checkpoint import (
    Retention,
    latest_good,
    list_checkpoints,
    name_for,
    prune,
    save_checkpoint,
)
from bottega.errors import ConfigError


def fill(folder, counts):
    for images in counts:
        tensors = {"network": {"w": torch.full((4,), float(images))}}
        save_checkpoint(folder / name_for(images), tensors, kind="train", images_seen=images)


def counts(folder):
    return [int(p.name.removeprefix("images-")) for p in list_checkpoints(folder)]


def test_names_sort_by_progress_even_beyond_nine_digits(tmp_path):
    assert name_for(512_000) == "images-000512000"
    fill(tmp_path, [2_000_000_000, 512, 64])
    assert counts(tmp_path) == [64, 512, 2_000_000_000]


def test_other_entries_are_not_checkpoints(tmp_path):
    fill(tmp_path, [64])
    (tmp_path / "images-abc").mkdir()
    (tmp_path / "images-000000099").write_text("a file")
    (tmp_path / ".images-000000128.writing-1").mkdir()
    assert counts(tmp_path) == [64]
    assert list_checkpoints(tmp_path / "nowhere") == []


def test_the_newest_whole_checkpoint_is_offered_and_damaged_ones_are_named(tmp_path):
    fill(tmp_path, [1, 2, 3])
    (tmp_path / name_for(3) / "manifest.json").write_text("{")
    path = tmp_path / name_for(2) / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    good, problems = latest_good(tmp_path)
    assert good == tmp_path / name_for(1)
    assert len(problems) == 2
    assert "images-000000003" in problems[0]
    assert "images-000000002" in problems[1]
    assert latest_good(tmp_path / "nowhere") == (None, [])


def test_the_last_few_and_one_per_distance_are_kept(tmp_path):
    fill(tmp_path, [100, 200, 300, 400, 500, 600])
    removed = prune(tmp_path, Retention(keep_last=2, keep_every_images=250))
    assert counts(tmp_path) == [300, 500, 600]
    assert [p.name for p in removed] == [name_for(n) for n in (100, 200, 400)]


def test_pruning_as_one_goes_keeps_the_same_as_pruning_at_the_end(tmp_path):
    policy = Retention(keep_last=2, keep_every_images=250)
    for images in range(100, 1300, 100):
        fill(tmp_path / "along", [images])
        fill(tmp_path / "after", [images])
        prune(tmp_path / "along", policy)
    prune(tmp_path / "after", policy)
    assert (
        counts(tmp_path / "along")
        == counts(tmp_path / "after")
        == [300, 500, 800, 1000, 1100, 1200]
    )


def test_scraps_of_writes_that_crashed_are_cleared(tmp_path):
    fill(tmp_path, [1])
    for scrap in (".images-000000002.writing-77", ".images-000000001.removed"):
        (tmp_path / scrap).mkdir()
        (tmp_path / scrap / "network.safetensors").write_text("half")
    prune(tmp_path, Retention())
    assert [p.name for p in tmp_path.iterdir()] == [name_for(1)]


def test_a_policy_that_keeps_nothing_is_refused():
    with pytest.raises(ConfigError, match="keep_last must be at least 1"):
        Retention(keep_last=0)
    with pytest.raises(ConfigError, match="keep_every_images must be positive"):
        Retention(keep_every_images=0)
