"""Say in English what a plan shows, and know which words speak of what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bottega.data.emoji_world.draws import Draws
from bottega.data.emoji_world.mixture import SceneMixture
from bottega.data.emoji_world.plan import PlacedObject, Plan, Relation, Style
from bottega.data.emoji_world.vocabulary import thing_named

SpanKind = Literal["object", "background", "word", "style"]


@dataclass(frozen=True)
class Span:
    """Characters ``start`` to ``end`` of a caption and what they speak of; ``objects`` are places in the plan."""

    start: int
    end: int
    kind: SpanKind
    objects: tuple[int, ...] = ()


Piece = str | tuple[str, SpanKind, tuple[int, ...]]
"""Plain words, or words that speak of something."""

_NUMBERS = ("zero", "one", "two", "three", "four")
_BIG = ("big", "large", "huge")
_SMALL = ("small", "little", "tiny")
_RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
_SHORT_WORDS = {"left of": "left of", "right of": "right of", "above": "above", "below": "below"}
_SIDES = {
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
_STYLE_WORDS: dict[Style, tuple[tuple[str, str], ...]] = {
    "plain": (("a picture of ", ""), ("an image of ", ""), ("", "")),
    "ink": (("an ink drawing of ", ""), ("", " in ink"), ("", ", ink drawing")),
    "pixel art": (("pixel art of ", ""), ("", " in pixel art"), ("", ", pixel art")),
    "neon": (("a neon sign of ", ""), ("", " in neon"), ("", ", neon lights")),
    "watercolour": (
        ("a watercolour of ", ""),
        ("", ", watercolour"),
        ("a watercolor painting of ", ""),
    ),
    "sketch": (("a sketch of ", ""), ("a pencil sketch of ", ""), ("", ", pencil sketch")),
}


class _Writer:
    """Writes one caption; without ``draws`` always the plainest phrasing."""

    def __init__(self, plan: Plan, mixture: SceneMixture, draws: Draws | None) -> None:
        self.plan = plan
        self.mixture = mixture
        self.draws = draws
        self.form = 0
        self._names: dict[int, tuple[str, str]] = {}
        self.short = self.chance(mixture.short_caption)
        self.says_style = self._says_style()

    def _says_style(self) -> bool:
        """Whether a style is named; a caption without draws says everything."""
        share = self.mixture.style_named
        if self.plan.style == "plain" or share == 1 or self.draws is None:
            return True  # without a draw, so that worlds that name all styles keep their captions
        return self.draws.chance(share)

    def chance(self, probability: float) -> bool:
        return self.draws is not None and self.draws.chance(probability)

    def vary(self, options: Sequence[str]) -> str:
        """The first option, or any of them when this caption varies its words."""
        if self.draws is None or not self.draws.chance(self.mixture.varied_phrasing):
            return options[0]
        return self.draws.pick(options)

    def noun(self, index: int, *, article: Literal["a", "the", ""] = "a") -> Piece:
        """What an object is called: "a blue banana", "the cat", "small dog"; always the same in one caption."""
        first, text = self._called(index)
        if article == "the":
            text = f"the {text}"
        elif article == "a" and not self.short:
            text = f"{first} {text}"
        return (text, "object", (index,))

    def _called(self, index: int) -> tuple[str, str]:
        """The article and the words for an object, chosen when it is first spoken of."""
        known = self._names.get(index)
        if known is not None:
            return known
        placed = self.plan.objects[index]
        thing = thing_named(placed.thing)
        text = thing.name
        if thing.synonyms and self.chance(self.mixture.synonym) and self.draws is not None:
            text = self.draws.pick(thing.synonyms)
        if placed.tint is not None:
            text = f"{placed.tint} {text}"
        if placed.size_word is not None:
            text = f"{self.vary(_BIG if placed.size_word == 'big' else _SMALL)} {text}"
        plain = text == thing.name or thing.article == "some"
        self._names[index] = (thing.article if plain else _article(text), text)
        return self._names[index]

    def listed(self, indices: Sequence[int]) -> list[Piece]:
        """Things in a row: "a cat, a dog and a pizza"."""
        pieces: list[Piece] = []
        for place, index in enumerate(indices):
            if place:
                joint = " " if self.short else " and " if place == len(indices) - 1 else ", "
                pieces.append(joint)
            pieces.append(self.noun(index))
        return pieces

    def scene(self) -> list[Piece]:
        plan = self.plan
        if not plan.objects:
            return self.word() if plan.word is not None else ["an empty picture"]
        if plan.is_count and not plan.relations:
            pieces = self.count()
        elif plan.relations:
            pieces = self.related(plan.relations)
        else:
            pieces = self.listed(range(len(plan.objects)))
        if plan.word is not None:
            side = "above" if plan.word.y < plan.objects[0].y else "below"
            it = "them" if len(plan.objects) > 1 else "it"
            pieces = [*pieces, " with ", *self.word(), f" {side} {it}"]
        return pieces

    def count(self) -> list[Piece]:
        objects = self.plan.objects
        thing = thing_named(objects[0].thing)
        plural = thing.plural if thing.countable else thing.name
        tint = f"{objects[0].tint} " if objects[0].tint is not None else ""
        text = f"{_NUMBERS[len(objects)]} {tint}{plural}"
        return [(text, "object", tuple(range(len(objects))))]

    def related(self, relations: Sequence[Relation]) -> list[Piece]:
        first = relations[0]
        if first.name == "between":
            low, high = first.others
            return [self.noun(first.subject), " between ", *self._and(low, high)]
        if first.name == "in the corner":
            return [self.noun(first.subject), f" in the {first.corner} corner"]
        if first.name == "larger than":
            if self.chance(0.4):
                return [self.noun(first.subject), " larger than ", self.noun(first.others[0])]
            return [*self._and(first.subject, first.others[0])]
        if len(relations) == 1:
            return self.beside(first)
        subjects = sorted({r.subject for r in relations})
        others = sorted({i for r in relations for i in r.others})
        return [*self.listed(subjects), f" {first.name} ", *self.listed(others)]

    def _and(self, first: int, second: int) -> list[Piece]:
        return [self.noun(first), " and ", self.noun(second)]

    def beside(self, relation: Relation) -> list[Piece]:
        """One thing left of, right of, above or below another, in one of four phrasings."""
        subject, other = relation.subject, relation.others[0]
        name = relation.name
        if self.short:
            return [self.noun(subject), f" {_SHORT_WORDS[name]} ", self.noun(other)]
        if self.chance(self.mixture.varied_phrasing) and self.draws is not None:
            self.form = self.draws.below(4)
        if self.form == 1 and (self.plan.style == "plain" or not self.says_style):
            words = self.vary(_RELATION_WORDS[name])
            return [f"{words} ", self.noun(other, article="the"), " there is ", self.noun(subject)]
        if self.form == 2:
            here, there = _SIDES[name]
            return [*(self.noun(subject), f" {here} and "), self.noun(other), f" {there}"]
        if self.form == 3:
            side = {"left of": "to its left", "right of": "to its right", "above": "above it"}
            return [
                self.noun(other), " with ", self.noun(subject), f" {side.get(name, 'below it')}",
            ]  # fmt: skip
        return [self.noun(subject), f" {self.vary(_RELATION_WORDS[name])} ", self.noun(other)]

    def word(self) -> list[Piece]:
        word = self.plan.word
        text = "" if word is None else f'"{word.text}"'
        if self.short:
            return [(text, "word", ())]
        if word is not None and word.plate:
            before = self.vary(("a sign that says ", "a sign with the word ", "a sign saying "))
        else:
            before = self.vary(("the word ", "the text ", "the letters "))
        return [(f"{before}{text}", "word", ())]

    def background(self) -> list[Piece]:
        if self.plan.style == "neon" and self.says_style:
            return []  # the dark swallows the ground's colour, but to say so would give the style away
        if self.draws is not None and not self.draws.chance(self.mixture.background_named):
            return []
        colour = self.plan.background
        if self.short:
            return [" on ", (colour, "background", ())]
        article = _article(colour)
        form = self.vary((" on {}", " on {}", " against {}", ", {}"))
        before, _ = form.split("{}")
        text = f"{colour} background" if before == ", " else f"{article} {colour} background"
        return [before, (text, "background", ())]

    def whereabouts(self) -> list[Piece]:
        """A closing clause for long captions: where the one thing stands, or each side of a stated relation.

        It says nothing of how two things stand to each other that the plan does not state, so that a caption never
        gives away a held-out fact.
        """
        objects, relations = self.plan.objects, self.plan.relations
        if len(objects) == 1 and not relations:
            return ["; ", self.noun(0, article="the"), f" is {_position(objects[0])}"]
        if len(relations) == 1 and relations[0].name in _SIDES and self.form in (0, 1):
            subject, other = relations[0].subject, relations[0].others[0]
            here, there = _SIDES[relations[0].name]
            return [
                "; ",
                self.noun(subject, article="the"),
                f" is {here} and ",
                self.noun(other, article="the"),
                f" is {there}",
            ]
        return []

    def caption(self) -> list[Piece]:
        scene = [*self.scene(), *self.background()]
        if not self.says_style:
            return [*scene, *self.closing()]
        style = self.plan.style
        options = _STYLE_WORDS[style]
        if style == "plain":
            options = options if self.chance(0.06) and self.form != 1 else (("", ""),)
        elif self.short:
            options = (("", f" {style}"),)
        before, after = options[0]
        if self.draws is not None and len(options) > 1:
            before, after = self.draws.pick(options)
        return [(before, "style", ()), *scene, (after, "style", ()), *self.closing()]

    def closing(self) -> list[Piece]:
        """What long captions end with."""
        if self.short or not self.chance(self.mixture.long_caption):
            return []
        return self.whereabouts()


def write_caption(
    plan: Plan, mixture: SceneMixture, draws: Draws | None
) -> tuple[str, tuple[Span, ...]]:
    """A caption of a plan with its spans; without ``draws``, the plainest one, which says everything."""
    parts: list[str] = []
    spans: list[Span] = []
    at = 0
    for piece in _Writer(plan, mixture, draws).caption():
        text = piece if isinstance(piece, str) else piece[0]
        if not text:
            continue
        if not isinstance(piece, str):
            lead = len(text) - len(text.lstrip(" ,"))
            spans.append(Span(at + lead, at + len(text.rstrip()), piece[1], piece[2]))
        parts.append(text)
        at += len(text)
    return "".join(parts), tuple(spans)


def _article(words: str) -> str:
    return "an" if words[0] in "aeiouAEIOU" and not words.startswith("uni") else "a"


def _position(placed: PlacedObject) -> str:
    column = "left" if placed.x < 0.4 else "right" if placed.x > 0.6 else ""
    row = "top" if placed.y < 0.4 else "bottom" if placed.y > 0.6 else ""
    if not column and not row:
        return "in the middle"
    if not row:
        return f"on the {column}"
    return f"at the {row}" if not column else f"at the {row} {column}"


__all__ = ["Span", "SpanKind", "write_caption"]
