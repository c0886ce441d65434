"""Prompts are fixed, ask for what training never showed, and come with real pictures that are truly of them."""

import pytest

from bottega.data.emoji_world import (
    EmojiWorld,
    EmojiWorldConfig,
    describe,
    facts,
    holds_unseen,
    vocabulary,
)
from bottega.errors import ConfigError, InputError
from bottega.evaluation.expectation import Expectation, Wanted, WantedRelation, check
from bottega.evaluation.judge import Detection, Reading
from bottega.evaluation.prompts import CATEGORIES, digest, make_prompts, real_plan

THINGS = vocabulary("core", 60)


@pytest.fixture(scope="module")
def prompts():
    return make_prompts(THINGS, per_category=12)


def of(prompts, category):
    return [prompt for prompt in prompts if prompt.category == category]


def test_the_same_vocabulary_and_seed_give_the_same_list(prompts):
    assert digest(make_prompts(THINGS, per_category=12)) == digest(prompts)
    assert digest(make_prompts(THINGS, per_category=12, seed=1)) != digest(prompts)
    assert digest(prompts[::-1]) != digest(prompts)


def test_every_category_is_filled_and_no_text_appears_twice(prompts):
    assert all(len(of(prompts, category)) == 12 for category in CATEGORIES)
    assert len({prompt.text for prompt in prompts}) == len(prompts)


def test_a_category_does_not_depend_on_the_others(prompts):
    alone = make_prompts(THINGS, per_category=12, categories=["positions"])
    assert list(alone) == of(prompts, "positions")


def test_what_can_be_held_out_is_held_out(prompts):
    for category in ("colours", "positions", "descriptions"):
        assert all(holds_unseen(prompt.plan) for prompt in of(prompts, category))
    dyed = [p for p in of(prompts, "conflicting") if p.scene == "pair"]
    assert len(dyed) == 6
    assert all(holds_unseen(prompt.plan) for prompt in dyed)


def test_training_never_states_a_fact_of_the_held_out_prompts(prompts):
    asked = {fact for p in prompts if holds_unseen(p.plan) for fact in facts(p.plan)}
    asked_tints = {(o.tint, o.thing) for p in of(prompts, "colours") for o in p.plan.objects}
    world = EmojiWorld(EmojiWorldConfig(num_things=60))
    for index in range(800):
        plan = world.plan(index)
        assert asked.isdisjoint(facts(plan))
        assert asked_tints.isdisjoint({(o.tint, o.thing) for o in plan.objects})


def test_real_pictures_are_described_in_the_prompts_words(prompts):
    for prompt in prompts:
        plans = [real_plan(prompt, seed) for seed in (0, 1)]
        assert plans[0] != plans[1]
        assert real_plan(prompt, 0) == plans[0]
        if prompt.category not in ("rare", "misspelt"):
            assert all(describe(plan).startswith(prompt.text) for plan in plans)


def test_each_category_asks_for_what_its_name_says(prompts):
    assert {len(p.plan.objects) for p in of(prompts, "counting")} == {2, 3, 4}
    assert all(p.expected.things[0].count == len(p.plan.objects) for p in of(prompts, "counting"))
    assert all(p.expected.background for p in of(prompts, "backgrounds"))
    assert all(p.expected.word and p.expected.word in p.text for p in of(prompts, "words"))
    assert {bool(p.expected.things) for p in of(prompts, "words")} == {True, False}
    assert all(p.expected.relation for p in of(prompts, "positions"))
    names = {p.expected.relation.name for p in of(prompts, "positions")}
    assert names == {"left of", "right of", "above", "below"}
    assert all(p.expected.style for p in of(prompts, "descriptions"))
    assert all(p.expected.things[0].tint for p in of(prompts, "colours"))


def test_rare_prompts_use_other_names_and_misspelt_ones_names_that_nothing_has(prompts):
    names = {thing.name for thing in THINGS}
    for prompt in of(prompts, "rare"):
        word = prompt.text.split(" ", 1)[1]
        assert word not in names
        (thing,) = [t for t in THINGS if t.name == prompt.expected.things[0].thing]
        assert word in thing.synonyms
    for prompt in of(prompts, "misspelt"):
        assert prompt.text.split(" ", 1)[1] not in names


def test_a_small_vocabulary_has_fewer_prompts_and_none_is_refused():
    few = make_prompts(vocabulary("core", 4), per_category=30, categories=["single", "positions"])
    assert len(of(few, "single")) == 4
    with pytest.raises(InputError, match="at least 2 things"):
        make_prompts(vocabulary("core", 4)[:1])
    with pytest.raises(InputError, match="1 per category"):
        make_prompts(THINGS, per_category=0)


def see(*detections, background="white", style="plain", word=None):
    return Reading(detections=detections, background=background, style=style, word=word)


def at(thing, x, y, size=0.4, tint=None, score=0.9):
    return Detection(thing=thing, score=score, x=x, y=y, size=size, tint=tint)


@pytest.mark.parametrize(
    ("name", "x", "y", "holds"),
    [
        ("left of", 0.2, 0.5, True),
        ("left of", 0.8, 0.5, False),
        ("left of", 0.4, 0.1, False),  # a little left, and far above
        ("right of", 0.8, 0.6, True),
        ("above", 0.5, 0.2, True),
        ("above", 0.5, 0.5, False),
        ("below", 0.6, 0.8, True),
        ("below", 0.5, 0.2, False),
    ],
)
def test_a_relation_holds_where_it_should(name, x, y, holds):
    expected = Expectation(
        things=(Wanted(thing="cat"), Wanted(thing="dog")), relation=WantedRelation(name=name)
    )
    claims = check(expected, see(at("cat", x, y), at("dog", 0.5, 0.5)))
    assert claims == {"things": True, "relation": holds, "nothing_else": True, "right": holds}


def test_larger_means_clearly_larger():
    expected = Expectation(
        things=(Wanted(thing="cat"), Wanted(thing="dog")),
        relation=WantedRelation(name="larger than"),
    )
    for size, holds in ((0.6, True), (0.42, False), (0.2, False)):
        reading = see(at("cat", 0.3, 0.5, size), at("dog", 0.7, 0.5, 0.4))
        assert check(expected, reading)["relation"] is holds


def test_a_missing_thing_stands_in_no_relation():
    expected = Expectation(
        things=(Wanted(thing="cat"), Wanted(thing="dog")), relation=WantedRelation(name="left of")
    )
    claims = check(expected, see(at("cat", 0.2, 0.5)))
    assert (claims["things"], claims["relation"], claims["right"]) == (False, False, False)


def test_a_number_is_exact_and_surplus_things_are_told():
    three = Expectation(things=(Wanted(thing="cat", count=3),))
    cats = [at("cat", x, 0.5, 0.2) for x in (0.2, 0.4, 0.6, 0.8)]
    assert [check(three, see(*cats[:n]))["right"] for n in (2, 3, 4)] == [False, True, False]
    one = Expectation(things=(Wanted(thing="cat"),))
    two_cats, with_dog = check(one, see(*cats[:2])), check(one, see(cats[0], at("dog", 0.9, 0.9)))
    assert two_cats == with_dog == {"things": True, "nothing_else": False, "right": True}


def test_a_dye_must_be_on_its_own_thing():
    expected = Expectation(
        things=(Wanted(thing="cat", tint="red"), Wanted(thing="dog", tint="blue"))
    )
    right = see(at("cat", 0.2, 0.5, tint="red"), at("dog", 0.8, 0.5, tint="blue"))
    swapped = see(at("cat", 0.2, 0.5, tint="blue"), at("dog", 0.8, 0.5, tint="red"))
    assert check(expected, right)["tints"]
    assert not check(expected, swapped)["tints"]
    assert not check(expected, see(at("dog", 0.8, 0.5, tint="blue")))["tints"]
    only_one = Expectation(things=(Wanted(thing="cat", tint="red"), Wanted(thing="dog")))
    assert check(only_one, right)["tints"]


def test_background_style_and_word_are_claims_only_where_they_are_asked_for():
    reading = see(background="blue", style="ink", word="HI")
    asked = Expectation(background="blue", style="neon", word="HI")
    assert check(asked, reading) == {
        "background": True,
        "style": False,
        "word": True,
        "nothing_else": True,
        "right": False,
    }
    assert check(Expectation(), reading) == {"nothing_else": True, "right": True}


@pytest.mark.parametrize(
    "relation",
    [
        WantedRelation(name="left of", other=2),
        WantedRelation(name="left of", other=0),
        WantedRelation(name="between"),
    ],
)
def test_a_relation_that_cannot_be_checked_is_refused(relation):
    with pytest.raises(ConfigError):
        Expectation(things=(Wanted(thing="cat"), Wanted(thing="dog")), relation=relation)
