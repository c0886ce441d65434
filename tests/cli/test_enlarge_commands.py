"""``bottega enlarge`` and ``bottega evaluate enlarging``, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
from enlarger_runs import write_toy_judge
from PIL import Image

from bottega.checkpoint import save_module
from bottega.config import to_json
from bottega.models.srgan import RRDBNet, RRDBNetConfig
from bottega.pipelines import open_picture
from bottega.pipelines.output import read_metadata


def refused(done, words: str) -> None:
    assert done.code == 2
    assert words in done.err, done.err
    assert done.err.count("\n") == 1 and "Traceback" not in done.err


@pytest.fixture
def model(tmp_path) -> Path:
    network = RRDBNet(RRDBNetConfig(width=4, num_blocks=1, grow=2))
    folder = tmp_path / "toy"
    config = to_json(network.config)
    save_module(folder, network.state_dict(), kind="enlarger", config=config, name="enlarger")
    return folder


@pytest.fixture
def small(tmp_path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "small.png")
    return tmp_path / "small.png"


def test_a_picture_becomes_four_times_larger_and_says_how(bottega, model, small):
    done = bottega("enlarge", small, "-o", "big.png", "--scale", 4, "--model", model, "--tile", 8)
    assert (done.code, done.out) == (0, "big.png: 80 x 48\n"), done.err
    assert open_picture("big.png").size == (80, 48)
    note = json.loads(read_metadata("big.png"))
    assert (note["kind"], note["model"], note["scale"]) == ("enlarged", "toy", 4)
    assert (note["tile_px"], note["halo_px"]) == (8, 17)
    again = bottega("enlarge", small, "-o", "again.png", "--model", model, "--tile", 8)
    assert again.code == 0
    assert Path("again.png").read_bytes() == Path("big.png").read_bytes()
    refused(bottega("replay", "big.png"), "was enlarged from a picture of SHA-256")


def test_what_cannot_be_enlarged_is_refused_before_anything_is_written(bottega, model, small):
    to = ("-o", "big.png", "--model", model)
    refused(bottega("enlarge", "gone.png", *to), "there is no such file")
    Path("text.png").write_text("no picture")
    refused(bottega("enlarge", "text.png", *to), "cannot read text.png as a picture")
    refused(bottega("enlarge", small, *to, "--scale", 3), "makes pictures 4 times larger, not 3")
    refused(bottega("enlarge", small, *to, "--tile", 0), "a tile is at least 1 px")
    refused(bottega("enlarge", small, *to, "--halo", -1), "its halo not negative")
    refused(bottega("enlarge", small, *to, "--device", "gpu"), "device 'gpu' is not known")
    refused(bottega("enlarge", small, "-o", "big.jpg", "--model", model), "written as PNG")
    refused(bottega("enlarge", small, "-o", "big.png", "--model", "gone"), "with an enlarger")
    Path("weights.pth").write_bytes(b"PK\x03\x04 pickled")
    refused(bottega("enlarge", small, "-o", "big.png", "--model", "weights.pth"), "is a pickle")
    (model / "enlarger.safetensors").write_bytes(b"damaged")
    refused(bottega("enlarge", small, *to), "is damaged")
    assert not Path("big.png").exists()


def test_ways_to_enlarge_are_measured_side_by_side(bottega, model):
    write_toy_judge(Path("judge"))
    judged = ("evaluate", "enlarging", model, "--judge", "judge", "--size", 32)
    done = bottega(*judged, "--pictures", 2, "-o", "r.json", "--sheet", "s.png")
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()]
    assert [row[:2] for row in rows[1:]] == [
        ["clean", "bicubic"],
        ["clean", "toy"],
        ["spoilt", "bicubic"],
        ["spoilt", "toy"],
    ]
    report = json.loads(Path("r.json").read_text())
    assert report["pictures"] == 2 and len(report["scores"]) == 4
    assert report["scores"][0]["better"] == 0
    assert open_picture("s.png").width > 3 * 32
    refused(bottega(*judged[:-1], 30), "--size must be a multiple of 4 from 16 to 1024")
    refused(bottega(*judged, "--pictures", 1), "--pictures must be at least 2")
    refused(bottega(*judged, "-o", "gone/r.json"), "there is no folder")
