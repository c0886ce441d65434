"""The commands about routes run on a tiny model, and refuse what makes no sense."""

import json
from pathlib import Path

import pytest

from bottega.pipelines import open_picture


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    from routed_model import write_routed_model

    return write_routed_model(tmp_path_factory.mktemp("routed"))


def refused(done, words: str) -> None:
    assert done.code == 2
    assert words in done.err, done.err
    assert done.err.count("\n") == 1 and "Traceback" not in done.err


def test_the_routes_of_a_prompt_are_told_written_and_drawn(bottega, folder):
    arguments = ("routes", "a red car", "--model", folder, "--steps", 2, "--sigmas", "0.5,5")
    done = bottega(*arguments, "-o", "routes.json", "--page", "routes.png")
    assert done.code == 0, done.err
    assert "clip_text  (end)" in done.out
    assert done.out.count("noise takes") == 2
    facts = json.loads(Path("routes.json").read_text())
    assert (facts["kind"], facts["model"], facts["prompt"]) == ("routes", "routed", "a red car")
    assert {reach["sigma"] for reach in facts["reaches"]} == {0.5, 5.0}
    assert open_picture("routes.png").width > 300


def test_other_experts_are_tried_told_written_and_drawn(bottega, folder):
    arguments = ("probe", "experts", "--model", folder, "--pictures", 2, "--sigmas", "0.5,5")
    done = bottega(*arguments, "-o", "experts.json", "--plot", "experts.png")
    assert done.code == 0, done.err
    assert done.out.count("words to other experts") == done.out.count("noise to other") == 3
    facts = json.loads(Path("experts.json").read_text())
    assert [one["block"] for one in facts["found"]] == [None, None, 0, 0, 1, 1]
    assert open_picture("experts.png").width > 300
    none = bottega(*arguments[:-1], "0")
    assert none.code == 2 and "above 0" in none.err


def test_paths_are_told_apart_with_controls(bottega, folder):
    arguments = ("probe", "paths", "--model", folder, "--nouns", 3, "--sentences", 6)
    done = bottega(*arguments, "--rounds", 2, "-o", "paths.json")
    assert done.code == 0, done.err
    facts = json.loads(Path("paths.json").read_text())
    assert facts["nouns"]["sentences"] + facts["nouns"]["left_out"] == 18
    assert set(facts["adjectives"]["mixed"]) == {
        "paths",
        *(f"untrained gates {i}" for i in (1, 2, 3)),
        "tokens",
    }
    assert "3 nouns, " in done.out
    assert "in new sentences" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("routes", "..."), "has none"),
        (("routes", "a dog", "--sigmas", "0"), "above 0"),
        (("routes", "a dog", "--stage", "sr16"), "enlarges"),
        (("probe", "paths", "--words", "verbs"), "'verbs' is not known"),
        (("probe", "paths", "--streams", "clip", "--words", "nouns"), "no text stream 'clip'"),
        (("probe", "paths", "--sentences", "4"), "--sentences must be at least 5"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(bottega, folder, arguments, words):
    refused(bottega(*arguments, "--model", folder), words)


def test_a_model_without_experts_is_refused(bottega, tiny_folder):
    refused(bottega("routes", "a dog", "--model", tiny_folder), "no experts inside")
