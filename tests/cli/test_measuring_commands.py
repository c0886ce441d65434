"""Every command that measures or probes runs on a tiny model, and refuses what makes no sense."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from tiny_adapters import write_lora

from bottega.pipelines import open_picture


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Path:
    from bottega.data.emoji_world import EmojiWorldConfig
    from bottega.evaluation.judge import Judge
    from bottega.evaluation.judge_network import JudgeNetwork
    from bottega.evaluation.judge_world import judge_config

    folder = tmp_path_factory.mktemp("judge")
    config = judge_config(EmojiWorldConfig(num_things=40))
    Judge(JudgeNetwork(config)).save(folder / "judge")
    return folder / "judge"


def refused(done, words: str) -> None:
    assert done.code == 2
    assert words in done.err, done.err
    assert done.err.count("\n") == 1 and "Traceback" not in done.err


COMMANDS = {
    "regions": ("--prompts", 2, "--strengths", "0,1", "--weights", "largest"),
    "style": ("--prompts", 2),
    "tradeoff": ("--prompts", 1, "--scales", "1,2"),
    "super-resolution": ("--pictures", 2, "--levels", "0,0.2"),
    "conditions": ("--prompts", 1),
}


SLOW = ("tradeoff", "conditions")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in COMMANDS]
)
def test_a_model_is_measured(bottega, tiny_folder, judge, name):
    arguments = ("evaluate", name, "--model", tiny_folder, "--judge", judge, "--steps", 1)
    done = bottega(*arguments, *COMMANDS[name], "-o", "r.json", "--plot", "r.png")
    assert done.code == 0, done.err
    assert json.loads(Path("r.json").read_text())["kind"] == name
    assert open_picture("r.png").width > 30


def test_a_lora_is_measured_under_a_name_of_its_own(bottega, tiny_folder, judge, tmp_path):
    lora = write_lora(tmp_path / "grey")
    arguments = ("evaluate", "alignment", "--model", tiny_folder, "--judge", judge, "--steps", 1)
    arguments = (*arguments, "--prompts", 1, "--seeds", 1, "--categories", "single")
    plain = bottega(*arguments, "-o", "plain.json", "--journal", "j.jsonl")
    assert plain.code == 0, plain.err
    styled = bottega(*arguments, "--lora", f"{lora}@0.8", "-o", "grey.json")
    assert styled.code == 0, styled.err
    assert "LoRA grey at 0.8 changes base" in styled.err
    cards = [json.loads(Path(name).read_text())["card"] for name in ("plain.json", "grey.json")]
    assert "tiny + grey@0.8" in json.dumps(cards[1]) and "grey" not in json.dumps(cards[0])
    mixed = bottega(*arguments, "--lora", lora, "--journal", "j.jsonl")
    assert mixed.code == 2 and "belongs to another evaluation" in mixed.err
    gone = bottega(*arguments, "--lora", "gone")
    refused(gone, "there is no folder gone")


def test_a_lora_changes_what_a_probe_sees(bottega, tiny_folder, tmp_path):
    lora = write_lora(tmp_path / "grey", strength=3.0)
    arguments = ("probe", "attention", "--model", tiny_folder, "--pictures", 1, "--sigmas", "1")
    facts = []
    for name, more in (
        ("plain", ()),
        ("silent", ("--lora", f"{lora}@0")),
        ("styled", ("--lora", lora)),
    ):
        done = bottega(*arguments, *more, "-o", f"{name}.json")
        assert done.code == 0, done.err
        facts.append(json.loads(Path(f"{name}.json").read_text()))
    plain, silent, styled = facts
    assert plain["levels"] == silent["levels"] != styled["levels"]
    assert len({one["model_digest"] for one in facts}) == 3


def test_a_judge_may_be_that_of_another_model(bottega, tiny_folder, judge, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    shutil.copytree(judge, other / "judge")
    facts = json.loads((other / "manifest.json").read_text())
    facts["judge"] = "judge"
    for path in sorted((other / "judge").iterdir()):
        facts["files"][f"judge/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (other / "manifest.json").write_text(json.dumps(facts))
    arguments = ("evaluate", "style", "--model", tiny_folder, "--prompts", 1, "--steps", 1)
    assert bottega(*arguments, "--judge", other, "-o", "a.json").code == 0
    assert bottega(*arguments, "--judge", judge, "-o", "b.json").code == 0
    cards = [json.loads(Path(name).read_text())["card"] for name in ("a.json", "b.json")]
    assert cards[0] == cards[1]
    refused(bottega(*arguments, "--judge", tiny_folder / "base"), "holds a denoiser, not a judge")
    refused(bottega(*arguments, "--judge", tiny_folder), "comes without a judge")


def test_a_switch_is_probed(bottega, tiny_folder, judge):
    arguments = ("probe", "switch", "--model", tiny_folder, "--judge", judge, "--prompts", 2)
    arguments = (*arguments, "--shares", "0,1", "--steps", 2)
    done = bottega(*arguments, "-o", "s.json", "--plot", "s.png")
    assert done.code == 0, done.err
    assert len(json.loads(Path("s.json").read_text())["points"]) == 2


def test_attention_is_probed(bottega, tiny_folder):
    arguments = ("probe", "attention", "--model", tiny_folder, "--pictures", 1, "--sigmas", "1,2")
    done = bottega(*arguments, "-o", "a.json", "--plot", "a.png", "--maps", "m.png")
    assert done.code == 0, done.err
    assert "null" in done.out and Path("m.png").exists()
    refused(bottega(*arguments, "--stage", "sr16"), "enlarges")
    refused(bottega(*arguments, "--plot", "b.png", "--maps", "b.png"), "for two outputs")
    refused(bottega(*arguments, "--pictures", 0), "--pictures must be at least 1")


def test_intervals_are_probed(bottega, tiny_folder):
    arguments = ("probe", "intervals", "--model", tiny_folder, "--bins", 2, "--batch-size", 2)
    refused(bottega(*arguments, "--batches", 3), "even number")
    refused(bottega(*arguments, "--experts", 3), "2 bins fall into 2 to 2 groups, got 3")
    refused(bottega(*arguments, "--bins", 60, "--experts", 12), "more than 100,000 ways")
    done = bottega(*arguments, "--batches", 4, "-o", "i.json", "--plot", "i.png")
    if done.code == 2:  # a random network of this size may have no gradient but noise
        assert "nothing but noise" in done.err
        return
    assert json.loads(Path("i.json").read_text())["bounds"] == pytest.approx([0.3012], abs=1e-3)


def test_figures_are_whole_where_nobody_looks_at_a_terminal(bottega, tiny_folder, judge):
    arguments = ("evaluate", "style", "--model", tiny_folder, "--judge", judge, "--steps", 1)
    done = bottega(*arguments, "--prompts", 1, "-o", "r.json")
    assert done.code == 0, done.err
    assert "with reference" in done.out and "…" not in done.out
    done = bottega("evaluate", "alignment", *arguments[2:], "--prompts", 1, "--seeds", 1)
    assert done.code == 0 and "…" not in done.out


def test_what_makes_no_sense_is_refused_before_anything_is_painted(bottega, tiny_folder, judge):
    base = ("evaluate", "regions", "--model", tiny_folder, "--judge", judge)
    refused(bottega(*base, "--strengths", "0,x"), "--strengths expects")
    refused(bottega(*base, "--weights", "largst"), "did you mean largest")
    refused(bottega(*base, "--prompts", 0), "--prompts must be")
    refused(bottega(*base, "--weights", ""), "expected names")
    refused(bottega(*base, "-o", "r.json", "--journal", "r.json"), "for two outputs")
    refused(bottega(*base, "-o", "gone/r.json"), "there is no folder")
    refused(bottega(*base, "--plot", "r.jpg"), "written as PNG")
    refused(bottega("evaluate", "style", "--model", tiny_folder), "comes without a judge")
    twice = ("evaluate", "tradeoff", "--model", tiny_folder, "--model", tiny_folder)
    refused(bottega(*twice, "--judge", judge, "--prompts", 1), "names of their own")
    refused(bottega("probe", "switch", "--shares", "2,2"), "--shares expects")
    assert not list(Path().iterdir())
