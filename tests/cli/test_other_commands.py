"""``bottega train``, ``data``, ``show`` and ``evaluate``."""

import json
from pathlib import Path

import pytest

from bottega.cli.show import _usual_size, short
from bottega.cli.train import parse_duration
from bottega.errors import InputError
from bottega.pipelines import open_picture


def refused(done, words: str) -> None:
    assert done.code == 2
    assert words in done.err, done.err
    assert done.err.count("\n") == 1 and "Traceback" not in done.err


def test_train_lists_its_recipes_and_shows_what_it_would_do(bottega):
    assert "piccolo-base" in bottega("train").out
    done = bottega("train", "piccolo-judge", "--set", "train.batch_size=24", "--dry-run")
    assert done.code == 0
    assert json.loads(done.out)["train"]["batch_size"] == 24
    assert not list(Path().iterdir())


def test_train_refuses_what_it_does_not_know(bottega):
    refused(bottega("train", "piccolo-jugde"), "did you mean piccolo-judge")
    refused(
        bottega("train", "piccolo-judge", "--set", "train.batch_sise=3"), "did you mean batch_size"
    )
    refused(
        bottega("train", "piccolo-judge", "--set", "train.batch_size=x"), "train.batch_size expects"
    )
    refused(bottega("train", "piccolo-judge", "--time-limit", "soon"), "90m, 2h")
    refused(
        bottega("train", "piccolo-judge", "--stop-after", "0", "--run", "r"), "at least 1 image"
    )
    refused(bottega("train", "--resume"), "name the recipe")
    assert not Path("runs").exists()


def test_a_refused_start_leaves_no_folder_and_what_was_there_stays(bottega):
    thin = "task.network.middle.attention.space.ratio=0.001"
    refused(bottega("train", "lab-raphael", "--set", thin), "ratio must be at least 1/128")
    unknown = ("train", "lab", "--set", "task.encoders=nowhere", "--run")
    refused(bottega(*unknown, "r"), "neither a folder nor known")
    assert not Path("r").exists() and not Path("runs/lab-raphael").exists()
    Path("mine").mkdir()
    refused(bottega(*unknown, "mine"), "neither a folder nor known")
    assert Path("mine").is_dir()


def test_a_damaged_run_folder_is_named(bottega):
    for text in ("{", "[1]", "7"):
        Path("config.json").write_text(text)
        done = bottega("train", "lab", "--run", ".", "--set", "data.num_things=4")
        refused(done, "config.json is damaged")


def test_a_run_stops_where_it_is_told_and_goes_on(bottega):
    tiny = ("--set", "train.batch_size=8", "--set", "train.total_images=48", "--run", "r")
    tiny = (*tiny, "--set", "data.num_things=4", "--set", "train.checkpoint_images=1000")
    done = bottega("train", "piccolo-judge", *tiny, "--stop-after", "16", "--resume")
    assert done.code == 0, done.err
    assert "r holds nothing to go on from: it begins at the beginning" in done.err
    assert "r: 16 of 48 images seen" in done.out and "--resume" in done.err
    refused(bottega("train", "piccolo-judge", *tiny), "resume")
    done = bottega("train", "piccolo-judge", "--run", "r", "--resume", "--stop-after", "24")
    assert "r: 24 of 48 images seen" in done.out  # by the settings that it was begun with
    done = bottega("train", "piccolo-judge", *tiny, "--resume", "--time-limit", "1s")
    assert done.code == 0, done.err
    assert "begins at" not in done.err
    assert "images seen" in done.out


def test_times_are_read():
    assert [parse_duration(t) for t in ("90m", "2h", "600s", "1h30m", "45")] == [
        5400,
        7200,
        600,
        5400,
        45,
    ]
    for text in ("", "0", "-5", "m", "1.5h", "2d", "9" * 5000):
        with pytest.raises(InputError):
            parse_duration(text)


def test_data_can_be_looked_at(bottega):
    done = bottega("data", "show", "-o", "sheet.png", "-n", 4, "--columns", 2, "--size", 32)
    assert (done.code, done.out) == (0, "sheet.png\n")
    assert open_picture("sheet.png").width > 64
    one = bottega("data", "show", "-o", "b.png", "-n", 1, "--set", "split=held_out")
    assert one.code == 0, one.err


def test_a_folder_of_pictures_can_be_looked_at(bottega):
    from PIL import Image

    Path("mine").mkdir()
    Image.new("RGB", (40, 30), "red").save("mine/a.png")
    Path("mine/a.txt").write_text("a red square")
    done = bottega("data", "show", "--folder", "mine", "-o", "s.png")
    assert done.code == 0 and Path("s.png").exists()
    refused_later = bottega("data", "show", "--folder", "mine", "-o", "s.png", "--start", 5)
    assert refused_later.code == 2 and "--start is beyond them" in refused_later.err


def test_data_refuses_what_makes_no_sense(bottega):
    refused(bottega("data", "show", "-n", "0"), "--count must be")
    refused(bottega("data", "show", "--start", "-1"), "--start must be")
    refused(bottega("data", "show", "-o", "gone/a.png"), "there is no folder")
    refused(bottega("data", "show", "--set", "splt=all"), "did you mean split")
    refused(bottega("data", "show", "--folder", "gone"), "gone")
    refused(bottega("data", "embed", "piccolo-judge"), "trains no denoiser")
    for size in (-64, 0, 8, 4096):
        refused(bottega("data", "show", "--size", size), "--size must be between 16 and 1024")
    refused(bottega("data", "show", "-n", 10_000, "--size", 1024), "more than one sheet holds")
    refused(bottega("data", "show", "--columns", 0), "--columns must be")
    refused(bottega("data", "show", "--folder", ".", "--set", "seed=1"), "a folder has no settings")
    assert not list(Path().iterdir())


def test_captions_are_embedded_once(bottega, tiny_folder):
    arguments = ("data", "embed", "piccolo-base", "--cache", "cache", "--set", "num_examples=6")
    arguments = (*arguments, "--set", f"task.encoders={tiny_folder}")
    first, second = bottega(*arguments), bottega(*arguments, "--verify")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "t5: " in first.out and "clip_text: " in first.out
    assert first.out == second.out
    endless = bottega(*arguments[:5], "--set", "num_examples=none", *arguments[-2:])
    refused(endless, "never ends")


def test_show_sets_plans_beside_their_papers(bottega):
    done = bottega("show")
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()[1:]}
    assert rows["adm64"][1] == "296M" and "sd15" in rows
    one = bottega("show", "adm64")
    assert "the paper's figure 296M" in one.out


def test_show_knows_recipes_checkpoints_and_models(bottega, tiny_folder):
    assert "parameters" in bottega("show", "piccolo-base", "--set", "train.batch_size=2").out
    assert "JudgeTask" in bottega("show", "piccolo-judge").out
    model = bottega("show", tiny_folder)
    assert model.code == 0, model.err
    assert "stage sr16: 16 px, enlarges base" in model.out
    stage = bottega("show", tiny_folder / "base")
    assert "images seen        0" in stage.out and "parameters" in stage.out


def test_show_refuses_what_it_does_not_know(bottega):
    refused(bottega("show", "adm46"), "did you mean adm64")
    refused(bottega("show", "adm64", "--set", "a=b"), "--set changes a recipe")
    refused(bottega("show", "adm64", "--size", "-8"), "size must be")
    wrong = bottega(
        "show", "raphael", "--size", "100"
    )  # a recipe, of which something could be said
    refused(wrong, "size must be")
    assert not wrong.out
    refused(bottega("show", "."), "neither a model nor a checkpoint")
    refused(bottega("show", "--set", "a=b"), "name it")
    refused(bottega("show", "--size", "64"), "name it")
    refused(bottega("show", "--steps", "25"), "name it")
    refused(bottega("show", "adm64", "--sampler", "heun"), "give both")
    Path("manifest.json").write_text("[" * 100_000)
    refused(bottega("show", "."), "neither a model nor a checkpoint")


def test_numbers_are_short():
    assert [short(n) for n in (12, 1500, 2.5e6, 3e9, 4e12, 5e15)] == [
        "12",
        "1.5K",
        "2.5M",
        "3B",
        "4T",
        "5P",
    ]
    assert [_usual_size(n) for n in ("imagen_sr256_listed", "adm64", "sd15", "other")] == [
        256,
        64,
        64,
        64,
    ]


def test_alignment_needs_a_judge_and_known_categories(bottega, tiny_folder):
    refused(bottega("evaluate", "alignment", "--model", tiny_folder), "comes without a judge")
    refused(
        bottega("evaluate", "alignment", "--model", tiny_folder, "--seeds", "0"), "--seeds must be"
    )
    refused(
        bottega("evaluate", "alignment", "--model", tiny_folder, "--judge", tiny_folder / "base"),
        "judge",
    )


def test_alignment_refuses_a_report_it_could_not_write(bottega, tiny_folder):
    for place in ("gone/r.json", "."):
        done = bottega("evaluate", "alignment", "--model", tiny_folder, "-o", place)
        refused(done, "cannot write")
    refused(
        bottega("evaluate", "alignment", "--model", tiny_folder, "--journal", "."), "cannot write"
    )


def test_alignment_is_painted_judged_and_reported(bottega, tiny_folder):
    from bottega.data.emoji_world import EmojiWorldConfig
    from bottega.evaluation.judge import Judge
    from bottega.evaluation.judge_network import JudgeNetwork
    from bottega.evaluation.judge_world import judge_config
    from bottega.evaluation.report import Report

    Judge(JudgeNetwork(judge_config(EmojiWorldConfig(num_things=4)))).save("judge")
    arguments = ("evaluate", "alignment", "--model", tiny_folder, "--judge", "judge")
    arguments = (*arguments, "--prompts", 2, "--seeds", 1, "--steps", 1, "--guidance", 1)
    refused(bottega(*arguments, "--categories", "singel"), "did you mean single")
    done = bottega(
        *arguments, "--categories", "single,backgrounds", "-o", "r.json", "--journal", "j.jsonl"
    )
    assert done.code == 0, done.err
    assert "alignment of tiny" in done.out
    report = Report.load("r.json")
    assert {score.category for score in report.scores} >= {"single", "backgrounds"}
    assert report.card.settings["base"]["guidance_scale"] == 1
    for text in ("[]\n", "{}\n", '{"card": 1}\n{"prompt": 0}\n', "\xff\n", "[" * 100_000 + "\n"):
        Path("j.jsonl").write_bytes(text.encode("latin-1"))
        refused(bottega(*arguments, "--categories", "single", "--journal", "j.jsonl"), "is damaged")
