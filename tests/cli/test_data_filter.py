"""``bottega data inspect`` and ``bottega data filter`` as a user meets them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_model import WIDTH

SIZES = [(64, 64), (40, 90), (96, 64), (64, 20), (30, 300)]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    rows = []
    for number, (height, width) in enumerate(SIZES):
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        row = {"file_name": f"{number}.png", "text": f"a <b>red</b> car {number}"}
        rows.append(json.dumps({**row, "pwatermark": number / 10}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    (folder / "unnamed.png").write_bytes((folder / "0.png").read_bytes())
    return folder


def test_an_inspection_is_a_page_or_json_or_the_names_of_a_bucket(bottega, raw):
    page = bottega("data", "inspect", "raw", "--size", 64, "--multiple", 8)
    assert page.code == 0, page.err
    assert page.out.startswith("5 pictures can be used, 1 files cannot")
    facts = json.loads(bottega("data", "inspect", "raw", "--size", 64, "--json").out)
    assert facts["usable"] == 5 and facts["buckets"]["64x64"] == 1
    assert facts["no_bucket"] == 3 and facts["captions_to_clean"] == 5
    assert bottega("data", "inspect", "raw", "--size", 64, "--bucket", "64x64").out == "0.png\n"


def test_a_filtered_folder_says_what_went_and_why(bottega, raw):
    done = bottega(
        *("data", "filter", "raw", "good", "--min-side", 32, "--limit", "pwatermark<=0.15")
    )
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "6 samples seen, 2 kept",
        "        1  read: no caption",
        "        2  size: shorter side below 32 px",
        "        1  limit pwatermark<=0.15: pwatermark above 0.15",
    ]
    rows = [json.loads(line) for line in Path("good/metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["a red car 0", "a red car 1"]
    assert [row["source"] for row in rows] == ["0.png", "1.png"]


def test_shards_go_in_and_out_and_buckets_are_noted(bottega, raw):
    options = ("--buckets", "--size", 64, "--no-clean", "--shards", 1)
    assert bottega("data", "filter", "raw", "shards", *options).code == 0
    assert sorted(path.name for path in Path("shards").glob("*.tar")) == ["00000.tar", "00001.tar"]
    again = bottega("data", "filter", "shards/{00000..00001}.tar", "--dry-run")
    assert again.out == "2 samples seen, 2 kept\n"
    shown = bottega("data", "show", "--folder", "shards", "-o", "sheet.png", "--size", 32)
    assert shown.code == 0 and Path("sheet.png").is_file()


def test_scores_by_clip_are_noted_with_what_is_kept(bottega, raw, tiny_folder):
    save_file({"weight": torch.ones(1, WIDTH)}, "head.safetensors")
    clip = ("--clip", tiny_folder)
    done = bottega(
        *("data", "filter", "raw", "good", *clip, "--min-clip-score", -1),
        *("--aesthetic", "head.safetensors", "--min-aesthetic", -99),
        *("--watermark", "head.safetensors", "--max-watermark", 1),
    )
    assert done.code == 0, done.err
    for line in Path("good/metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert -1 <= row["clip_score"] <= 1 and 0 <= row["watermark"] <= 1
        assert row["watermark"] == pytest.approx(1 / (1 + np.exp(-row["aesthetic"])), abs=1e-5)
    none = bottega(
        "data", "filter", "raw", "none", "--clip", tiny_folder / "clip", "--min-clip-score", 1.1
    )
    assert none.code == 2 and "5 clip_score: clip_score below 1.1" in none.err
    assert not Path("none").exists() and none.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "gone"], "not a folder"),
        (["inspect", "gone.tar"], "no shard gone.tar"),
        (["inspect", "raw", "--size", "64", "--bucket", "64x65"], "did you mean 64x64"),
        (["inspect", "raw", "--size", "2"], "--size must be between"),
        (["inspect", "raw", "--multiple", "0"], "buckets.multiple must be positive"),
        (["filter", "raw"], "give a TARGET"),
        (["filter", "raw", "new", "--dry-run"], "give a TARGET"),
        (["filter", "raw", "raw"], "is there already"),
        (["filter", "raw", "raw/better"], "choose a folder beside it"),
        (["filter", "raw", "a/b"], "there is no folder"),
        (["filter", "raw", "new", "--shards", "0"], "at least 1 picture"),
        (["filter", "raw", "new", "--min-side", "0"], "at least 1 pixel"),
        (["filter", "raw", "new", "--min-words", "0"], "min_words must be at least 1"),
        (["filter", "raw", "new", "--min-words", "2", "--no-clean"], "leave out --no-clean"),
        (["filter", "raw", "new", "--limit", "pwatermark"], "NAME<=NUMBER"),
        (["filter", "raw", "new", "--min-side", "999"], "nothing is left"),
        (["filter", "raw", "new", "--min-clip-score", "0.3"], "give --clip FOLDER"),
        (["filter", "raw", "new", "--clip", "raw"], "--clip is for"),
        (["filter", "raw", "new", "--min-aesthetic", "5"], "--min-aesthetic is for --aesthetic"),
        (["filter", "raw", "new", "--max-watermark", "0.5"], "--max-watermark is for --watermark"),
        (["filter", "raw", "new", "--size", "64"], "--size and --multiple are for --buckets"),
        (["filter", "raw", "new", "--multiple", "16"], "--size and --multiple are for --buckets"),
        (["filter", "raw", "new", "--buckets", "--multiple", "0"], "must be positive"),
        (["filter", "raw", "new", "--buckets", "--size", "2"], "--size must be between"),
        (["filter", "raw", "new", "--clip", "raw", "--min-clip-score", "0"], "holds no encoder"),
        (["filter", "raw", "new", "--clip", "picolo", "--min-clip-score", "0"], "did you mean"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(bottega, raw, arguments, words):
    done = bottega("data", *arguments)
    assert done.code == 2 and words in done.err, done.err
    assert done.err.startswith("bottega: ") and done.err.count("\n") == 1
    assert not done.out
    assert [path.name for path in Path().iterdir()] == ["raw"]


def test_a_head_for_another_clip_is_one_line(bottega, raw, tiny_folder):
    save_file({"weight": torch.ones(1, 768)}, "head.safetensors")
    options = ("--clip", tiny_folder, "--aesthetic", "head.safetensors")
    done = bottega("data", "filter", "raw", "new", *options)
    assert done.code == 2 and "vectors of 768 numbers" in done.err
    assert done.err.count("\n") == 1 and not Path("new").exists()
