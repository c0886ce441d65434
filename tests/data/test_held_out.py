"""What is held out is never seen in training, and always seen in the held-out world."""

import re

import pytest

from bottega.data.emoji_world import (
    BACKGROUNDS,
    TINTS,
    EmojiWorld,
    EmojiWorldConfig,
    PlacedObject,
    Plan,
    Relation,
    SceneMixture,
    facts,
    holds_unseen,
    is_held_out_tint,
    is_held_out_triple,
    vocabulary,
)

BUSY = SceneMixture(
    single=1.0, pair=2.0, together=1.0, count=1.0, between=2.0, corner=1.0, sizes=1.0, several=2.0, words=0.3,
    tint=0.4, long_caption=0.5, varied_phrasing=0.7, synonym=0.0,
)  # fmt: skip
NAMES = [thing.name for thing in vocabulary()]


def test_a_tenth_is_held_out():
    triples = [
        is_held_out_triple(a, relation, b)
        for a in NAMES[:60]
        for b in NAMES[:60]
        if a != b
        for relation in ("left of", "above")
    ]
    tints = [is_held_out_tint(tint, name) for tint in TINTS for name in NAMES]
    assert 0.085 < sum(triples) / len(triples) < 0.115
    assert 0.07 < sum(tints) / len(tints) < 0.13


def test_a_fact_and_its_mirror_are_held_out_together():
    for a in NAMES[:40]:
        for b in NAMES[:40]:
            assert is_held_out_triple(a, "left of", b) == is_held_out_triple(b, "right of", a)
            assert is_held_out_triple(a, "above", b) == is_held_out_triple(b, "below", a)


def test_training_never_states_shows_or_says_a_held_out_fact():
    world = EmojiWorld(EmojiWorldConfig(seed=2, num_things=120, mixture=BUSY))
    noun = "|".join(re.escape(t.name) for t in sorted(vocabulary(), key=lambda t: -len(t.name)))
    thing = rf"(?:(?:a|an|some|the) )?(?:(?:{'|'.join(TINTS)}) )?({noun})\b"
    place = {"left of": "left of", "right of": "right of", "above": "above", "below": "below",
             "over": "above", "under": "below", "beneath": "below"}  # fmt: skip
    stated = re.compile(rf"{thing} (?:to the |on the )?({'|'.join(place)}) {thing}")
    sides = re.compile(
        rf"{thing} (?:is )?(on the left|on the right|at the top|at the bottom)\w* and {thing}"
    )
    side = {"on the left": "left of", "on the right": "right of", "at the top": "above",
            "at the bottom": "below"}  # fmt: skip
    matched = 0
    for i in range(1200):
        example = world[i]
        assert not holds_unseen(example.plan)
        caption = example.caption
        for first, relation, second in stated.findall(caption):
            matched += 1
            assert not is_held_out_triple(first, place[relation], second), caption
        for first, relation, second in sides.findall(caption):
            matched += 1
            assert not is_held_out_triple(first, side[relation], second), caption
    assert matched > 150


@pytest.mark.parametrize("seed", [0, 9])
def test_every_held_out_scene_shows_one(seed: int):
    world = EmojiWorld(EmojiWorldConfig(seed=seed, num_things=100, split="held_out"))
    tinted = 0
    for i in range(150):
        plan = world.plan(i)
        assert holds_unseen(plan)
        tinted += not facts(plan)
    assert 15 < tinted < 75


def test_held_out_without_pairs_or_without_tints_still_works():
    no_tints = SceneMixture(tint=0.0)
    world = EmojiWorld(EmojiWorldConfig(num_things=100, split="held_out", mixture=no_tints))
    assert all(facts(world.plan(i)) for i in range(30))
    no_pairs = SceneMixture(pair=0.0)
    world = EmojiWorld(EmojiWorldConfig(num_things=100, split="held_out", mixture=no_pairs))
    assert all(world.plan(i).objects[0].tint is not None for i in range(30))


def test_splits_share_no_pictures():
    train = EmojiWorld(EmojiWorldConfig(num_things=60))
    held = EmojiWorld(EmojiWorldConfig(num_things=60, split="held_out"))
    assert not {str(train.plan(i)) for i in range(100)} & {str(held.plan(i)) for i in range(100)}


def test_between_states_the_row_it_stands_for():
    def placed(name: str, x: float, y: float) -> PlacedObject:
        return PlacedObject(thing=name, x=x, y=y, size=0.3)

    between = Relation(subject=1, name="between", others=(0, 2))
    across = Plan(
        objects=(placed("cat", 0.2, 0.5), placed("dog", 0.5, 0.5), placed("car", 0.8, 0.5)),
        background="red", shade=BACKGROUNDS["red"], relations=(between,),
    )  # fmt: skip
    assert facts(across) == [("cat", "left of", "dog"), ("dog", "left of", "car")]
    down = Plan(
        objects=(placed("cat", 0.5, 0.2), placed("dog", 0.5, 0.5), placed("car", 0.5, 0.8)),
        background="red", shade=BACKGROUNDS["red"], relations=(between,),
    )  # fmt: skip
    assert facts(down) == [("cat", "above", "dog"), ("dog", "above", "car")]
