"""Fixed lists of prompts in the manner of DrawBench's categories, each with what it asks for and real pictures of it.

Every prompt has an exemplar plan. Its real pictures are all the plans that the world would describe in the same words,
so a judge can be tried on truth before it is used on paintings.

Source: Saharia et al. 2022 (arXiv:2205.11487), appendix C. We differ: the prompts speak of Emoji World, and what can be
held out (dyed things, relations of two things) is taken from the facts that training never shows.
"""

import dataclasses
import functools
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bottega import config as configs
from bottega import seeding
from bottega.conditioning.misspelling import misspell
from bottega.data.emoji_world import (
    BACKGROUNDS,
    STYLES,
    TINTS,
    EmojiWorldConfig,
    Plan,
    SceneMixture,
    Thing,
    describe,
    is_held_out_tint,
    is_held_out_triple,
    thing_named,
)
from bottega.data.emoji_world.draws import Draws
from bottega.data.emoji_world.layout import PLACES, Scenes
from bottega.data.emoji_world.mixture import KINDS
from bottega.data.emoji_world.plan import Style, Tint
from bottega.errors import InputError
from bottega.evaluation.expectation import COLOURLESS, Expectation, Wanted, WantedRelation

Category = Literal[
    "single", "backgrounds", "colours", "counting", "positions", "conflicting", "words",
    "descriptions", "rare", "misspelt",
]  # fmt: skip
CATEGORIES: tuple[Category, ...] = (
    "single", "backgrounds", "colours", "counting", "positions", "conflicting", "words",
    "descriptions", "rare", "misspelt",
)  # fmt: skip
"""Every category, in the order of reports."""

_TRIES = 20_000
_BACKGROUND = re.compile(r" on an? \w+ background$")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Something to paint, what its picture must show, and one plan of such a picture.

    ``scene`` is the kind of scene (`SceneMixture`) whose layouts its real pictures have.
    """

    text: str
    category: Category
    expected: Expectation
    scene: str
    plan: Plan


def make_prompts(
    things: Sequence[Thing],
    *,
    seed: int = 0,
    per_category: int = 40,
    categories: Sequence[Category] = CATEGORIES,
) -> tuple[Prompt, ...]:
    """The fixed list for a vocabulary: the same things, seed and number always give the same prompts.

    No text appears twice. A category that the vocabulary cannot fill has fewer prompts than ``per_category``.

    Raises:
        InputError: With fewer than two things or no prompts asked for.
    """
    if len(things) < 2 or per_category < 1:
        raise InputError(
            f"prompts need at least 2 things and 1 per category, got {len(things)}, {per_category}"
        )
    prompts: dict[str, Prompt] = {}
    for category in categories:
        draws = Draws(seed, "prompts", category)
        made = 0
        for prompt in _MAKERS[category](things, draws):
            if prompt.text not in prompts:
                prompts[prompt.text] = prompt
                made += 1
            if made == per_category:
                break
    return tuple(prompts.values())


@functools.lru_cache(maxsize=1 << 14)
def real_plan(prompt: Prompt, seed: int) -> Plan:
    """The plan of a real picture of a prompt; another seed places, and where the prompt is silent colours, it anew."""
    return _plan_like(
        prompt.plan,
        prompt.scene,
        Draws(seed, "real", prompt.text),
        keeps_background=prompt.expected.background is not None,
    )


def digest(prompts: Sequence[Prompt]) -> str:
    """One SHA-256 for a list of prompts: their words, their order, and what is expected of each."""
    text = json.dumps([configs.to_json(prompt) for prompt in prompts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plan_like(exemplar: Plan, scene: str, draws: Draws, *, keeps_background: bool) -> Plan:
    """A new layout of the same content: drawn until the world describes both in the same words."""
    told = _told(exemplar, keeps_background)
    for _ in range(_TRIES):
        plan = _scenes(scene).plan(draws)
        if len(plan.objects) != len(exemplar.objects):
            continue
        if keeps_background:
            plan = _on(plan, exemplar.background, draws)
        objects = tuple(
            dataclasses.replace(place, thing=like.thing, tint=like.tint)
            for place, like in zip(plan.objects, exemplar.objects, strict=True)
        )
        word = plan.word
        if word is not None and exemplar.word is not None:
            if len(word.text) != len(exemplar.word.text):  # its width would not fit
                continue
            word = dataclasses.replace(word, text=exemplar.word.text)
        plan = dataclasses.replace(plan, objects=objects, style=exemplar.style, word=word)
        if _told(plan, keeps_background) == told:
            return plan
    raise InputError(f"no scene of kind {scene!r} can be described as {told!r}")


def _told(plan: Plan, with_background: bool) -> str:
    text = describe(plan)
    return text if with_background else _BACKGROUND.sub("", text)


def _on(plan: Plan, background: str, draws: Draws) -> Plan:
    jitter = SceneMixture().shade_jitter
    red, green, blue = (
        min(255, max(0, level + draws.below(2 * jitter + 1) - jitter))
        for level in BACKGROUNDS[background]
    )
    return dataclasses.replace(plan, background=background, shade=(red, green, blue))


@functools.cache
def _scenes(kind: str) -> Scenes:
    """Layouts of one kind, without dyes and styles, which prompts choose themselves."""
    weights: dict[str, Any] = {name: float(name == kind) for name in KINDS}
    mixture = SceneMixture(**weights, tint=0.0, style=0.0)
    return Scenes(EmojiWorldConfig(split="all", mixture=mixture))


def _exemplar(
    kind: str,
    draws: Draws,
    things: Sequence[Thing],
    *,
    accepts: Callable[[Plan], bool] = lambda _: True,
    tints: Sequence[Tint | None] = (None, None),
    background: str | None = None,
    style: Style = "plain",
) -> Plan:
    """A plan of one kind that shows these things; a count shows the first of them throughout."""
    for _ in range(_TRIES):
        plan = _scenes(kind).plan(draws)
        if accepts(plan):
            break
    else:
        raise InputError(f"no scene of kind {kind!r} is like that")
    several = kind == "count"
    objects = tuple(
        dataclasses.replace(
            placed, thing=things[0 if several else i].name, tint=tints[0 if several else i]
        )
        for i, placed in enumerate(plan.objects)
    )
    plan = dataclasses.replace(plan, objects=objects, style=style)
    return plan if background is None else _on(plan, background, draws)


def _prompt(
    category: Category, scene: str, plan: Plan, *, says_background: bool = False, text: str = ""
) -> Prompt:
    """Ask for a plan: the expectation is read off it, and the words are the world's plainest unless given."""
    names = [placed.thing for placed in plan.objects]
    things = tuple(
        Wanted(
            thing=placed.thing,
            count=len(names) if plan.is_count else None,
            tint=placed.tint,
        )
        for placed in (plan.objects[:1] if plan.is_count else plan.objects)
    )
    relation = None
    if plan.relations:
        first = plan.relations[0]
        relation = WantedRelation(name=first.name, subject=first.subject, other=first.others[0])
    expected = Expectation(
        things=things,
        relation=relation,
        # A neon sign hangs in the dark: the world never names its ground.
        background=plan.background
        if says_background and _BACKGROUND.search(describe(plan))
        else None,
        style=plan.style if plan.style != "plain" else None,
        word=None if plan.word is None else plan.word.text,
    )
    told = text if text else _told(plan, says_background)
    return Prompt(text=told, category=category, expected=expected, scene=scene, plan=plan)


def _shuffled(things: Sequence[Thing], draws: Draws) -> list[Thing]:
    """Every thing once, in a random order."""
    keys = {thing.name: draws.unit() for thing in things}
    return sorted(things, key=lambda thing: keys[thing.name])


def _single(things: Sequence[Thing], draws: Draws) -> Iterator[Prompt]:
    for thing in _shuffled(things, draws):
        yield _prompt("single", "single", _exemplar("single", draws, [thing]))


def _backgrounds(things: Sequence[Thing], draws: Draws) -> Iterator[Prompt]:
    colours = tuple(BACKGROUNDS)
    for turn in range(len(colours)):
        for place, thing in enumerate(_shuffled(things, draws)):
            colour = colours[(place + turn) % len(colours)]
            plan = _exemplar("single", draws, [thing], background=colour)
            yield _prompt("backgrounds", "single", plan, says_background=True)


def _colours(things: Sequence[Thing], draws: Draws) -> Iterator[Prompt]:
    unseen: list[tuple[Tint, Thing]] = [
        (t, thing) for t in TINTS for thing in things if is_held_out_tint(t, thing.name)
    ]
    order = {pair: draws.unit() for pair in unseen}
    for tint, thing in sorted(unseen, key=lambda pair: order[pair]):
        yield _prompt("colours", "single", _exemplar("single", draws, [thing], tints=[tint]))


def _counting(things: Sequence[Thing], draws: Draws) -> Iterator[Prompt]:
    for turn in range(3):
        for place, thing in enumerate(_shuffled([t for t in things if t.countable], draws)):
            number = 2 + (place + turn) % 3
            plan = _exemplar(
                "count", draws, [thing], accepts=lambda plan, n=number: len(plan.objects) == n
            )
            yield _prompt("counting", "count", plan)


def _unseen_pair(
    things: Sequence[Thing], draws: Draws, relation: str
) -> tuple[Thing, Thing] | None:
    for _ in range(_TRIES):
        first, second = draws.pick(things), draws.pick(things)
        if first != second and is_held_out_triple(first.name, relation, second.name):
            return first, second
    return None


def _unseen_scenes(
    things: Sequence[Thing], draws: Draws, *, dyed: int = 0, adorned: bool = False
) -> Iterator[Plan]:
    """Two things in a relation that training never shows, the first ``dyed`` of them in different colours."""
    for turn in range(len(things) ** 2):
        relation = PLACES[turn % len(PLACES)]
        pair = _unseen_pair(things, draws, relation)
        if pair is None:
            return
        style = draws.pick(STYLES[1:]) if adorned else "plain"
        first: Tint = draws.pick(TINTS)
        tints: tuple[Tint, Tint] = (first, draws.pick([tint for tint in TINTS if tint != first]))
        yield _exemplar(
            "pair",
            draws,
            pair,
            accepts=lambda plan, name=relation: plan.relations[0].name == name,
            tints=[*tints[: 0 if style in COLOURLESS else dyed], None, None],
            background=draws.pick(tuple(BACKGROUNDS)) if adorned else None,
            style=style,
        )


def _positions(things: Sequence[Thing], draws: Draws) -> Iterator[Prompt]:
    for plan in _unseen_scenes(things, draws):
        yield _prompt("positions", "pair", plan)


def _conflicting(things: Sequence[Thing], draws: Draws) -> Iterator[Prompt]:
    """In turn: sizes without regard to what is large in life, and two dyes that must not change places."""
    for dyed in _unseen_scenes(things, draws, dyed=2):
        names = [thing_named(placed.thing) for placed in dyed.objects]
        sizes = _exemplar("sizes", draws, names, accepts=lambda plan: len(plan.objects) == 2)
        yield _prompt("conflicting", "sizes", sizes)
        yield _prompt("conflicting", "pair", dyed)


def _words(things: Sequence[Thing], draws: Draws) -> Iterator[Prompt]:
    for turn, thing in enumerate(_shuffled(things, draws) * 2):
        alone = turn % 2 == 0
        plan = _exemplar("words", draws, [thing], accepts=lambda p, a=alone: bool(p.objects) != a)
        yield _prompt("words", "words", plan)


def _descriptions(things: Sequence[Thing], draws: Draws) -> Iterator[Prompt]:
    for plan in _unseen_scenes(things, draws, dyed=1, adorned=True):
        yield _prompt("descriptions", "pair", plan, says_background=True)


def _rare(things: Sequence[Thing], draws: Draws) -> Iterator[Prompt]:
    """Single things by another name."""
    for thing in _shuffled([t for t in things if t.synonyms], draws):
        name = draws.pick(thing.synonyms)
        article = "an" if name[0] in "aeiou" else "a"
        article = thing.article if thing.article == "some" else article
        plan = _exemplar("single", draws, [thing])
        yield _prompt("rare", "single", plan, text=f"{article} {name}")


def _misspelt(things: Sequence[Thing], draws: Draws) -> Iterator[Prompt]:
    """Single things with one slip of the pen, which must not turn one name into another."""
    known = {name for thing in things for name in (thing.name, thing.plural, *thing.synonyms)}
    for thing in _shuffled(things, draws):
        slips = random.Random(seeding.derive(draws.below(1 << 30), "misspelt", thing.name))
        spoilt = misspell(thing.name, slips)
        if spoilt not in known:
            plan = _exemplar("single", draws, [thing])
            yield _prompt("misspelt", "single", plan, text=f"{thing.article} {spoilt}")


_MAKERS: dict[Category, Callable[[Sequence[Thing], Draws], Iterator[Prompt]]] = {
    "single": _single,
    "backgrounds": _backgrounds,
    "colours": _colours,
    "counting": _counting,
    "positions": _positions,
    "conflicting": _conflicting,
    "words": _words,
    "descriptions": _descriptions,
    "rare": _rare,
    "misspelt": _misspelt,
}

__all__ = ["CATEGORIES", "Category", "Prompt", "digest", "make_prompts", "real_plan"]
