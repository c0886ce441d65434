"""Reports survive the disk, speak plainly, and refuse to be compared when they were made differently."""

import dataclasses
import json

import pytest
from rich.console import Console

from bottega.errors import BottegaError, InputError
from bottega.evaluation.intervals import wilson
from bottega.evaluation.report import Card, Report, Score, Share, compare

CARD = Card(
    model="piccolo",
    model_digest="m",
    settings={"steps": 20, "guidance_scale": None},
    prompts_digest="p" * 64,
    num_prompts=20,
    seeds=(0, 1),
    size=128,
    judge_digest="j" * 64,
    bottega="0.1.0",
)
REPORT = Report(
    card=CARD,
    scores=(
        Score(
            category="single",
            claim="right",
            painted=Share.of(30, 40),
            ceiling=Share.of(38, 40),
            by_seed=(0.7, 0.8),
        ),
        Score(
            category="single",
            claim="nothing_else",
            painted=Share.of(40, 40),
            ceiling=Share.of(40, 40),
            by_seed=(1.0, 1.0),
        ),
        Score(
            category="words",
            claim="right",
            painted=Share.of(0, 40),
            ceiling=Share.of(0, 40),
            by_seed=(0.0, 0.0),
        ),
    ),
)


def shown(table):
    console = Console(width=160)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_a_report_comes_back_from_disk_as_it_was(tmp_path):
    path = tmp_path / "report.json"
    REPORT.save(path)
    assert Report.load(path) == REPORT
    rows = json.loads(path.read_text())["scores"]
    assert [row["of_ceiling"] for row in rows] == [pytest.approx(30 / 38), 1.0, None]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"scores": [{}]}', '{"scores": 3}'])
def test_what_is_no_report_is_refused(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(BottegaError):
        Report.load(path)
    with pytest.raises(InputError, match="is not a report"):
        Report.load(tmp_path / "missing.json")


def test_a_share_carries_wilsons_interval():
    interval = wilson(30, 40)
    share = REPORT.score("single").painted
    assert (share.low, share.high) == (interval.low, interval.high)
    assert str(share) == " 75.0% [59.8%,  85.8%]"


def test_the_ratio_to_the_ceiling_lies_in_its_interval():
    score = REPORT.score("single")
    low, high = score.of_ceiling_interval
    assert low < score.of_ceiling < high


def test_the_table_shows_every_score_and_the_card():
    text = shown(REPORT.table())
    for expected in ("single", "nothing_else", "75.0%", "95.0%", "78.9%", "70% to 80%", "p" * 12):
        assert expected in text


def test_reports_of_two_models_stand_side_by_side():
    other = dataclasses.replace(
        REPORT, card=dataclasses.replace(CARD, model="grande", settings={"steps": 50})
    )
    text = shown(compare([REPORT, other]))
    assert "piccolo" in text
    assert "grande" in text
    assert "nothing_else" not in text


@pytest.mark.parametrize(
    "change",
    [
        {"prompts_digest": "q"},
        {"seeds": (0,)},
        {"judge_digest": "k"},
        {"size": 64},
        {"num_prompts": 3},
    ],
)
def test_reports_that_were_made_differently_are_not_compared(change):
    other = dataclasses.replace(REPORT, card=dataclasses.replace(CARD, **change))
    with pytest.raises(InputError, match=f"cannot be compared: {next(iter(change))}"):
        compare([REPORT, other])


def test_a_score_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="'right' of 'rare'"):
        REPORT.score("rare")
    with pytest.raises(InputError, match="nothing to compare"):
        compare([])
