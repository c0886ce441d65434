"""The world is a pure function of (seed, index), and everything it says about a picture is so."""

import concurrent.futures
import json
import multiprocessing
import random
import re

import numpy as np
import pytest

from bottega.config import dumps, from_json, to_json
from bottega.data.emoji_world import (
    BACKGROUNDS,
    STYLES,
    EmojiWorld,
    EmojiWorldConfig,
    PlacedObject,
    PlacedWord,
    Plan,
    Relation,
    SceneMixture,
    WorldSource,
    describe,
    parse_plan,
    plan_to_json,
    render,
    thing_named,
)
from bottega.errors import ConfigError, InputError

WORLD = EmojiWorld(EmojiWorldConfig(seed=3, num_things=60))
ALL_KINDS = EmojiWorld(
    EmojiWorldConfig(
        seed=5,
        split="all",
        mixture=SceneMixture(
            single=1.0, pair=1.0, together=1.0, count=1.0, between=1.0, corner=1.0, sizes=1.0, several=1.0, words=1.0,
            tint=0.3, style=0.4, synonym=0.3, long_caption=0.3, varied_phrasing=0.6,
        ),
    )
)  # fmt: skip


def fingerprint(config: EmojiWorldConfig, index: int) -> tuple[str, bytes]:
    example = EmojiWorld(config)[index]
    return example.caption, example.image(32).tobytes()


def test_an_example_is_the_same_in_any_order():
    indices = list(range(60))
    first = {i: (ALL_KINDS[i].caption, ALL_KINDS[i].image(32).tobytes()) for i in indices}
    random.Random(1).shuffle(indices)
    again = EmojiWorld(ALL_KINDS.config)
    for i in indices:
        assert (again[i].caption, again[i].image(32).tobytes()) == first[i]


def test_an_example_is_the_same_in_another_process():
    here = [fingerprint(WORLD.config, i) for i in range(4)]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        there = list(pool.map(fingerprint, [WORLD.config] * 4, range(4), timeout=120))
    assert there == here


def test_another_seed_is_another_world():
    other = EmojiWorld(EmojiWorldConfig(seed=4, num_things=60))
    assert sum(WORLD[i].caption == other[i].caption for i in range(100)) < 10


def test_a_world_shows_only_its_vocabulary_and_all_of_it():
    shown = {o.thing for i in range(600) for o in WORLD.plan(i).objects}
    assert shown == set(WORLD.things)
    assert len(WORLD.things) == 60


@pytest.mark.parametrize("size", [32, 64, 100, 128, 256])
def test_pictures_come_at_any_size(size: int):
    for i in range(8):
        assert ALL_KINDS[i].image(size).shape == (size, size, 3)


def test_a_small_picture_is_the_large_one_made_smaller():
    for i in range(40):
        large = ALL_KINDS[i].image(128).reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
        small = ALL_KINDS[i].image(32).astype(float)
        assert np.abs(large - small).mean() < 3, ALL_KINDS[i].caption


def test_a_plan_comes_back_from_json_and_draws_the_same_picture():
    for i in range(60):
        plan = ALL_KINDS.plan(i)
        again = parse_plan(json.loads(json.dumps(plan_to_json(plan))))
        assert again == plan
        assert (render(again, 48) == ALL_KINDS[i].image(48)).all()


def is_true(plan: Plan, relation: Relation) -> bool:
    subject = plan.objects[relation.subject]
    others = [plan.objects[j] for j in relation.others]
    left, top, right, bottom = subject.box
    match relation.name:
        case "left of":
            return right <= others[0].box[0] + 1e-9
        case "right of":
            return left >= others[0].box[2] - 1e-9
        case "above":
            return bottom <= others[0].box[1] + 1e-9
        case "below":
            return top >= others[0].box[3] - 1e-9
        case "larger than":
            return subject.size > 1.5 * others[0].size
        case "between":
            across = others[0].x < subject.x < others[1].x
            return across or others[0].y < subject.y < others[1].y
        case "in the corner":
            row, column = "top" if bottom <= 0.5 else "bottom", "left" if right <= 0.5 else "right"
            return f"{row} {column}" == relation.corner


def test_every_stated_relation_is_true_of_the_plan():
    seen: set[str] = set()
    for i in range(500):
        plan = ALL_KINDS.plan(i)
        for relation in plan.relations:
            assert is_true(plan, relation), (relation, plan)
            seen.add(relation.name)
    assert seen == {
        "left of", "right of", "above", "below", "larger than", "between", "in the corner",
    }  # fmt: skip


def test_nothing_leaves_the_picture_or_covers_another():
    for i in range(300):
        plan = ALL_KINDS.plan(i)
        assert plan.objects or plan.word is not None
        assert len(plan.objects) <= 4
        for a, first in enumerate(plan.objects):
            left, top, right, bottom = first.box
            assert min(left, top) >= 0
            assert max(right, bottom) <= 1
            for second in plan.objects[a + 1 :]:
                across = min(right, second.box[2]) - max(left, second.box[0])
                down = min(bottom, second.box[3]) - max(top, second.box[1])
                assert min(across, down) <= 0.07, plan


def test_sizes_keep_their_promises():
    single = EmojiWorld(EmojiWorldConfig(mixture=only("single")))
    pair = EmojiWorld(EmojiWorldConfig(mixture=only("pair")))
    assert all(0.5 <= single.plan(i).objects[0].size <= 0.95 for i in range(200))
    assert all(0.36 <= o.size <= 0.5 for i in range(200) for o in pair.plan(i).objects)


def only(kind: str, **options: float) -> SceneMixture:
    kinds = "single", "pair", "together", "count", "between", "corner", "sizes", "several", "words"
    return SceneMixture(**{**{k: float(k == kind) for k in kinds}, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["single", "pair", "corner"])
def test_freedom_says_how_far_things_stray_and_how_much_their_sizes_differ(kind: str):
    def spread(freedom: float) -> tuple[int, int]:
        world = EmojiWorld(EmojiWorldConfig(mixture=only(kind, freedom=freedom)))
        objects = [o for i in range(300) for o in world.plan(i).objects]
        return len({o.x for o in objects}), len({o.size for o in objects})

    free, tighter, fixed = spread(1.0), spread(0.3), spread(0.0)
    assert free[0] > tighter[0] >= fixed[0]
    assert free[1] > tighter[1] >= fixed[1] == 1
    assert fixed[0] == {"single": 1, "pair": 3, "corner": 2}[kind]


def test_masks_and_boxes_agree_with_the_pixels():
    for i in range(60):
        example = WORLD[i]
        if example.style != "plain" or example.plan.word is not None:
            continue
        picture = example.image(64).astype(int)
        ground = np.abs(picture - example.plan.shade).max(axis=2) == 0
        union = np.zeros((64, 64), bool)
        for phrase in example.phrases:
            if phrase.kind != "object":
                continue
            mask = phrase.mask(64)
            union |= mask
            assert mask.any(), example.caption
            left, top, right, bottom = phrase.box(64)
            outside = mask.copy()
            outside[top:bottom, left:right] = False
            assert not outside.any()
            assert mask[top:bottom, left].any()
            assert mask[top:bottom, right - 1].any()
            assert mask[top, left:right].any()
            assert mask[bottom - 1, left:right].any()
        # What is not ground belongs to a thing, but for the soft rims that a thing covers by less than half.
        assert (ground & union).mean() < 0.02
        rim = ~ground & ~union
        touching = np.zeros_like(union)
        for dy in (-2, -1, 0, 1, 2):
            for dx in (-2, -1, 0, 1, 2):
                touching |= np.roll(union, (dy, dx), (0, 1))
        assert not (rim & ~touching).mean() > 0.01


def test_edges_are_the_rims_of_the_masks():
    for i in range(40):
        example = WORLD[i]
        edges = example.edges(64)
        union = np.zeros((64, 64), bool)
        for phrase in example.phrases:
            if phrase.kind in ("object", "word"):
                union |= phrase.mask(64)
        assert edges.any()
        assert not (edges & ~union).any()
        padded = np.pad(union, 1)
        inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        if len(example.plan.objects) == 1 and example.plan.word is None:
            assert (edges == (union & ~inside)).all()


def test_spans_point_at_the_right_words():
    kinds: set[str] = set()
    for i in range(400):
        example = ALL_KINDS[i]
        for phrase in example.phrases:
            kinds.add(phrase.kind)
            assert phrase.text == example.caption[phrase.start : phrase.end]
            assert phrase.text == phrase.text.strip(" ,")
            if phrase.kind == "object":
                thing = thing_named(example.plan.objects[phrase.objects[0]].thing)
                names = (thing.name, thing.plural, *thing.synonyms)
                assert any(name and phrase.text.endswith(name) for name in names), phrase.text
                tint = example.plan.objects[phrase.objects[0]].tint
                assert tint is None or tint in phrase.text
            elif phrase.kind == "background":
                assert example.plan.background in phrase.text
            elif phrase.kind == "word":
                assert example.plan.word is not None
                assert f'"{example.plan.word.text}"' in phrase.text
        spoken = {o for p in example.phrases for o in p.objects}
        assert spoken == set(range(len(example.plan.objects))), example.caption
    assert kinds == {"object", "background", "word", "style"}


def test_background_word_and_style_have_masks_too():
    word = PlacedWord(text="HI", x=0.5, y=0.85, width=0.4)
    plan = Plan(
        objects=(PlacedObject(thing="cat", x=0.5, y=0.3, size=0.5),),
        background="blue", shade=BACKGROUNDS["blue"], style="ink", word=word,
    )  # fmt: skip
    assert describe(plan) == (
        'an ink drawing of a cat with a sign that says "HI" below it on a blue background'
    )
    world = EmojiWorld(EmojiWorldConfig(split="all", mixture=only("words", style=1.0)))
    masks = {p.kind: p.mask(64) for i in range(20) for p in world[i].phrases}
    assert masks["style"].all()
    assert masks["word"].any()
    assert masks["background"].any()


STYLE_WORDS = re.compile(r"\b(ink|pixel|neon|watercolou?r|sketch|drawing|painting|picture|image)\b")


def test_a_caption_that_is_silent_about_its_style_leaves_no_trace_of_it():
    mixture = SceneMixture(style=1.0, style_named=0.0, words=0.0)
    world = EmojiWorld(EmojiWorldConfig(seed=2, mixture=mixture))
    grounds = []
    for i in range(300):
        example = world[i]
        assert example.style != "plain"
        assert not STYLE_WORDS.search(example.caption), example.caption
        if example.style == "neon":  # named as often as elsewhere, or its absence would tell
            grounds.append(example.plan.background in example.caption)
    assert sum(grounds) > 0.6 * len(grounds)


def test_as_many_captions_name_their_style_as_were_asked_for():
    mixture = SceneMixture(style=1.0, style_named=0.4, words=0.0)
    world = EmojiWorld(EmojiWorldConfig(seed=2, mixture=mixture))
    named = [STYLE_WORDS.search(world[i].caption) is not None for i in range(600)]
    assert 0.34 < sum(named) / 600 < 0.46


def test_captions_are_english():
    article = re.compile(r"\b(a|an) (\w+)")
    for i in range(800):
        caption = ALL_KINDS[i].caption
        assert "  " not in caption
        assert caption == caption.strip()
        for word, following in article.findall(caption):
            vowel = following[0] in "aeiou" and not following.startswith("uni")
            assert (word == "an") == vowel, caption


def test_captions_are_short_enough_for_small_encoders():
    words = [len(WORLD[i].caption.split()) for i in range(600)]
    assert np.percentile(words, 98) <= 24
    assert np.median(words) <= 9


@pytest.mark.parametrize(
    ("relation", "first", "second", "caption"),
    [
        ("left of", (0.25, 0.5), (0.75, 0.5), "a pizza to the left of a cat on a blue background"),
        ("right of", (0.75, 0.5), (0.25, 0.5), "a pizza to the right of a cat on a blue background"),
        ("above", (0.5, 0.25), (0.5, 0.75), "a pizza above a cat on a blue background"),
        ("below", (0.5, 0.75), (0.5, 0.25), "a pizza below a cat on a blue background"),
    ],
)  # fmt: skip
def test_the_plainest_caption_says_it_all(relation, first, second, caption: str):
    plan = Plan(
        objects=(
            PlacedObject(thing="pizza", x=first[0], y=first[1], size=0.4),
            PlacedObject(thing="cat", x=second[0], y=second[1], size=0.4),
        ),
        background="blue",
        shade=BACKGROUNDS["blue"],
        relations=(Relation(subject=0, name=relation, others=(1,)),),
    )
    assert describe(plan) == caption
    assert describe(plan, 4) == describe(plan, 4)
    assert len({describe(plan, seed) for seed in range(60)}) > 8


def test_counts_say_their_number():
    world = EmojiWorld(EmojiWorldConfig(mixture=only("count", style=0.0)))
    numbers = {2: "two", 3: "three", 4: "four"}
    for i in range(200):
        plan = world.plan(i)
        assert plan.is_count
        thing = thing_named(plan.objects[0].thing)
        tint = plan.objects[0].tint
        noun = thing.plural if tint is None else f"{tint} {thing.plural}"
        assert f"{numbers[len(plan.objects)]} {noun}" in world[i].caption
        assert len({(o.size, o.tint) for o in plan.objects}) == 1


def test_tints_change_the_hue_and_keep_the_shape():
    def drawn(tint):
        placed = PlacedObject(thing="banana", x=0.5, y=0.5, size=0.875, tint=tint)
        plan = Plan(objects=(placed,), background="white", shade=(246, 246, 246))
        return render(plan, 64).astype(int), plan

    natural, _ = drawn(None)
    blue, _ = drawn("blue")
    changed = np.abs(natural - 246).max(axis=2) > 40
    assert (blue[changed][:, 2] > blue[changed][:, 0]).mean() > 0.95
    assert (natural[changed][:, 2] > natural[changed][:, 0]).mean() < 0.1
    assert ((np.abs(blue - 246).max(axis=2) > 40) == changed).mean() > 0.93


def test_every_style_looks_unlike_the_others():
    placed = PlacedObject(thing="apple", x=0.5, y=0.5, size=0.75)
    pictures = [
        render(Plan(objects=(placed,), background="blue", shade=(52, 106, 214), style=s), 64)
        for s in STYLES
    ]
    for a, first in enumerate(pictures):
        for second in pictures[a + 1 :]:
            assert np.abs(first.astype(int) - second.astype(int)).mean() > 4


def test_a_source_gives_batches_of_examples():
    source = WorldSource(WORLD, 32)
    batch = source.batch([5, 2, 9])
    assert batch.images.shape == (3, 3, 32, 32)
    assert batch.captions == tuple(WORLD[i].caption for i in (5, 2, 9))
    assert [e.index for e in batch.examples] == [5, 2, 9]
    assert (batch.images[1].permute(1, 2, 0).numpy() == WORLD[2].image(32)).all()
    assert source.num_examples is None


def test_the_configuration_comes_back_from_json():
    config = ALL_KINDS.config
    assert from_json(EmojiWorldConfig, to_json(config)) == config
    assert '"kind": "EmojiWorldConfig"' in dumps(config)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: EmojiWorldConfig(num_things=1),
        lambda: EmojiWorldConfig(num_things=5000),
        lambda: SceneMixture(single=-1.0),
        lambda: only("nothing"),
        lambda: SceneMixture(tint=1.5),
        lambda: SceneMixture(grid=4),
        lambda: SceneMixture(shade_jitter=200),
        lambda: SceneMixture(freedom=1.5),
        lambda: EmojiWorld(EmojiWorldConfig(num_things=2)),
        lambda: EmojiWorld(EmojiWorldConfig(split="held_out", mixture=only("single", tint=0.0))),
        lambda: thing_named("pizzza"),
        lambda: parse_plan({"kind": "Plan", "objects": [], "background": "bleu", "shade": [0, 0, 0]}),
        lambda: parse_plan({"objects": [], "background": "blue", "shade": [0, 0, 300]}),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(bad):
    with pytest.raises(ConfigError):
        bad()


def test_plans_that_cannot_be_drawn_are_refused():
    good = plan_to_json(WORLD.plan(0))
    outside = json.loads(json.dumps(good))
    outside["objects"][0]["x"] = 1.2
    with pytest.raises(ConfigError, match="leaves the picture"):
        parse_plan(outside)
    dangling = json.loads(json.dumps(good))
    dangling["relations"] = [
        {"kind": "Relation", "subject": 0, "name": "above", "others": [7], "corner": None}
    ]
    with pytest.raises(ConfigError, match="names object 7"):
        parse_plan(dangling)
    with pytest.raises(ConfigError, match="did you mean pizza"):
        thing_named("pizzza")


def test_counting_from_below_zero_and_sizes_of_nothing_are_refused():
    with pytest.raises(InputError):
        WORLD[-1]
    with pytest.raises(InputError):
        WORLD[0].image(4)
