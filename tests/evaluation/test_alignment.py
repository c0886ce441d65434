"""Painters whose skill is known get the scores they deserve."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from bottega.data.emoji_world import (
    BACKGROUNDS,
    STYLES,
    TINTS,
    EmojiWorld,
    Plan,
    render,
    vocabulary,
)
from bottega.data.emoji_world.layout import WORDS
from bottega.errors import InputError
from bottega.evaluation import judge_accuracy, judge_world
from bottega.evaluation.alignment import Subject, evaluate, images_of
from bottega.evaluation.judge import Detection, Reading
from bottega.evaluation.judge_network import JudgeConfig
from bottega.evaluation.prompts import CATEGORIES, make_prompts, real_plan

THINGS = 40
SEEDS = (0, 7)
SIZE = 32


def config(num_things: int) -> JudgeConfig:
    return JudgeConfig(
        things=tuple(thing.name for thing in vocabulary("core", num_things)),
        backgrounds=tuple(BACKGROUNDS),
        styles=STYLES,
        tints=TINTS,
        signs=WORDS,
        widths=(16, 16, 16),
    )


def reading_of(plan: Plan) -> Reading:
    return Reading(
        detections=tuple(
            Detection(thing=o.thing, score=1.0, x=o.x, y=o.y, size=o.size, tint=o.tint)
            for o in plan.objects
        ),
        background=plan.background,
        style=plan.style,
        word=None if plan.word is None else plan.word.text,
    )


class Oracle:
    """A reader that knows the truth: it recognises every picture that it was shown the plan of."""

    digest = "oracle"

    def __init__(self, num_things, prompts, seeds):
        self._config = config(num_things)
        self._known = {}
        for prompt in prompts:
            for seed in seeds:
                self.draw(real_plan(prompt, seed))

    @property
    def config(self) -> JudgeConfig:
        return self._config

    def draw(self, plan: Plan) -> torch.Tensor:
        picture = render(plan, SIZE)
        self._known[picture.tobytes()] = plan
        return torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1

    def read(self, images):
        pictures = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        return [reading_of(self._known[np.ascontiguousarray(p).tobytes()]) for p in pictures]


@pytest.fixture(scope="module")
def prompts():
    return make_prompts(vocabulary("core", THINGS), per_category=6)


@pytest.fixture(scope="module")
def oracle(prompts):
    return Oracle(THINGS, prompts, SEEDS)


class Perfect:
    """Draws exactly what was asked for, and counts how often it was called."""

    def __init__(self, oracle, prompts, change=lambda plan: plan, choose=lambda place: place):
        self.oracle, self.prompts, self.change, self.choose = oracle, prompts, change, choose
        self.places = {prompt.text: place for place, prompt in enumerate(prompts)}
        self.painted = []

    def __call__(self, texts, seeds):
        self.painted += zip(texts, seeds, strict=True)
        plans = [
            real_plan(self.prompts[self.choose(self.places[text])], seed)
            for text, seed in zip(texts, seeds, strict=True)
        ]
        return torch.stack([self.oracle.draw(self.change(plan)) for plan in plans])


def run(paint, oracle, prompts, **options):
    options = {"subject": Subject(name="test"), "seeds": SEEDS, "size": SIZE} | options
    return evaluate(paint, oracle, prompts, **options)


def test_a_perfect_painter_before_a_perfect_judge_is_right_in_every_claim_of_every_category(
    oracle, prompts
):
    report = run(Perfect(oracle, prompts), oracle, prompts)
    assert {score.category for score in report.scores} == set(CATEGORIES)
    for score in report.scores:
        assert score.painted.value == score.ceiling.value == 1.0, (score.category, score.claim)
        assert score.of_ceiling == 1.0
    assert report.score("single").painted.trials == 6 * len(SEEDS)


def test_a_perfect_painter_scores_the_ceiling_of_a_judge_that_errs(oracle, prompts):
    class Shortsighted(Oracle):
        """Misses whatever is small, and never sees pink."""

        def read(self, images):
            return [
                dataclasses.replace(
                    reading,
                    detections=tuple(d for d in reading.detections if d.size > 0.45),
                    background="white" if reading.background == "pink" else reading.background,
                )
                for reading in super().read(images)
            ]

    judge = Shortsighted(THINGS, prompts, SEEDS)
    report = run(Perfect(judge, prompts), judge, prompts)
    assert all(score.painted.successes == score.ceiling.successes for score in report.scores)
    assert report.score("positions").ceiling.value < 0.5
    assert report.score("single").ceiling.value == 1.0


def test_a_painter_that_ignores_the_prompt_is_right_no_more_often_than_chance(oracle):
    prompts = make_prompts(vocabulary("core", THINGS), per_category=40, categories=["single"])
    judge = Oracle(THINGS, prompts, SEEDS)
    paint = Perfect(judge, prompts, choose=lambda place: (place * 17 + 3) % len(prompts))
    score = run(paint, judge, prompts).score("single")
    assert score.painted.value <= 3 / THINGS
    assert score.ceiling.value == 1.0


def test_a_painter_that_swaps_left_and_right_finds_the_things_but_not_their_relation(oracle):
    prompts = make_prompts(vocabulary("core", THINGS), per_category=12, categories=["positions"])
    sideways = [p for p in prompts if p.expected.relation.name in ("left of", "right of")]

    def mirrored(plan):
        objects = tuple(dataclasses.replace(o, x=1 - o.x) for o in plan.objects)
        return dataclasses.replace(plan, objects=objects)

    judge = Oracle(THINGS, sideways, SEEDS)
    report = run(Perfect(judge, sideways, change=mirrored), judge, sideways)
    assert report.score("positions", "things").painted.value == 1.0
    assert report.score("positions", "relation").painted.value == 0.0
    assert report.score("positions").painted.value == 0.0


def test_the_batch_size_changes_nothing(oracle, prompts):
    whole = run(Perfect(oracle, prompts), oracle, prompts)
    assert run(Perfect(oracle, prompts), oracle, prompts, batch_size=5) == whole


def test_progress_counts_pictures_to_the_end(oracle, prompts):
    told = []
    few = prompts[:5]
    run(
        Perfect(oracle, few),
        oracle,
        few,
        batch_size=4,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(0, 10), (4, 10), (8, 10), (10, 10)]


def test_an_evaluation_that_was_stopped_goes_on_where_it_was(tmp_path, oracle, prompts):
    few = prompts[::9]
    whole = run(Perfect(oracle, few), oracle, few)
    journal = tmp_path / "deep" / "journal.jsonl"

    class Crash(Exception):
        pass

    def stop(done, total):
        if done >= 6:
            raise Crash

    first = Perfect(oracle, few)
    with pytest.raises(Crash):
        run(first, oracle, few, batch_size=3, journal=journal, progress=stop)
    with journal.open("a") as stream:
        stream.write('{"prompt": 3, "se')  # the power failed in the middle of a line
    second = Perfect(oracle, few)
    assert run(second, oracle, few, batch_size=3, journal=journal) == whole
    assert len(first.painted) == 6
    assert len(second.painted) == len(few) * len(SEEDS) - 6
    third = Perfect(oracle, few)
    assert run(third, oracle, few, journal=journal) == whole
    assert third.painted == []


def test_a_journal_of_another_evaluation_is_refused(tmp_path, oracle, prompts):
    few = prompts[:3]
    journal = tmp_path / "journal.jsonl"
    run(Perfect(oracle, few), oracle, few, journal=journal)
    with pytest.raises(InputError, match="another evaluation"):
        run(Perfect(oracle, few), oracle, few, seeds=(7,), journal=journal)
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([lines[0], "not json", *lines[1:]]) + "\n")
    with pytest.raises(InputError, match="damaged"):
        run(Perfect(oracle, few), oracle, few, journal=journal)


def test_seeds_that_agree_widen_the_interval(oracle, prompts):
    """Half the prompts are always right, the others never: three seeds teach no more than one."""
    colours = [p for p in prompts if p.category == "colours"]
    half = {p.text for p in colours[: len(colours) // 2]}

    def undyed(plan):
        return dataclasses.replace(
            plan, objects=tuple(dataclasses.replace(o, tint=None) for o in plan.objects)
        )

    judge = Oracle(THINGS, colours, SEEDS)
    good, bad = Perfect(judge, colours), Perfect(judge, colours, change=undyed)

    def paint(texts, seeds):
        return torch.cat(
            [(good if t in half else bad)([t], [s]) for t, s in zip(texts, seeds, strict=True)]
        )

    one = run(paint, judge, colours, seeds=SEEDS[:1]).score("colours", "tints").painted
    both = run(paint, judge, colours).score("colours", "tints").painted
    assert one.value == both.value == 0.5
    assert both.high - both.low >= (one.high - one.low) * 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": ()}, "needs prompts, seeds"),
        ({"batch_size": 0}, "batch size"),
        ({"seeds": (1, 1)}, "seeds must differ"),
    ],
)
def test_an_evaluation_that_makes_no_sense_is_refused(oracle, prompts, options, message):
    with pytest.raises(InputError, match=message):
        run(Perfect(oracle, prompts), oracle, prompts, **options)


def test_a_judge_that_cannot_name_what_is_asked_for_is_refused(prompts):
    with pytest.raises(InputError, match="cannot name"):
        run(lambda texts, seeds: torch.zeros(0, 3, 8, 8), Oracle(3, [], ()), prompts)


def test_a_painter_that_loses_a_picture_is_refused(oracle, prompts):
    with pytest.raises(InputError, match="returned 1 pictures for 16 prompts"):
        run(lambda texts, seeds: torch.zeros(1, 3, 8, 8), oracle, prompts)


def test_pil_pictures_become_a_batch_and_back():
    levels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    images = images_of([Image.fromarray(picture) for picture in levels])
    back = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert (back == levels).all()


def test_the_journal_says_how_it_was_made(tmp_path, oracle, prompts):
    few = prompts[:2]
    journal = tmp_path / "journal.jsonl"
    subject = Subject(name="piccolo", digest="abc", settings={"steps": 20})
    run(Perfect(oracle, few), oracle, few, journal=journal, subject=subject)
    card = json.loads(journal.read_text().splitlines()[0])["card"]
    assert (card["model"], card["model_digest"], card["settings"]) == (
        "piccolo",
        "abc",
        {"steps": 20},
    )


def test_a_judge_that_knows_the_truth_is_always_right_and_a_colour_blind_one_is_not():
    class ColourBlind(Oracle):
        def read(self, images):
            return [
                dataclasses.replace(
                    reading,
                    detections=tuple(dataclasses.replace(d, tint=None) for d in reading.detections),
                )
                for reading in super().read(images)
            ]

    config = judge_world(num_things=8, seed=3)
    for kind, tints in ((Oracle, 1.0), (ColourBlind, 0.0)):
        judge = kind(8, [], ())
        for index in range(150):
            judge.draw(EmojiWorld(config).plan(index))
        shares = judge_accuracy(judge, config, num_pictures=150, size=SIZE)
        assert shares.pop("tints").value == tints
        assert all(share.value == 1.0 for share in shares.values())
        assert {"things", "tinted things", "all things", "background", "style", "word"} == set(
            shares
        )
