"""Which facts training never sees: a tenth of all triples and of all dyed things, chosen by hash.

The choice depends on names alone, never on a world's seed or vocabulary, so that every model trained on any world
can be asked about the same unseen facts.
"""

import functools

from bottega.data.emoji_world.plan import Plan
from bottega.seeding import derive

_PARTS = 10
_SALT = 20_221
_MIRRORED = {"right of": "left of", "below": "above"}


@functools.lru_cache(maxsize=1 << 18)
def is_held_out_triple(first: str, relation: str, second: str) -> bool:
    """Whether ``first`` ``relation`` ``second`` is kept from training.

    "A right of B" is the same fact as "B left of A", and "A below B" the same as "B above A": both are held out
    together. "Between" is not a fact of its own; `facts` says what it stands for.
    """
    if relation in _MIRRORED:
        first, relation, second = second, _MIRRORED[relation], first
    return derive(_SALT, "triple", first, relation, second) % _PARTS == 0


@functools.lru_cache(maxsize=1 << 14)
def is_held_out_tint(tint: str, thing: str) -> bool:
    """Whether a thing dyed in this colour is kept from training."""
    return derive(_SALT, "tint", tint, thing) % _PARTS == 0


def facts(plan: Plan) -> list[tuple[str, str, str]]:
    """Every (thing, relation, thing) a plan states; "between" states that its three things stand in a row."""
    stated: list[tuple[str, str, str]] = []
    for relation in plan.relations:
        subject = plan.objects[relation.subject]
        others = [plan.objects[i] for i in relation.others]
        if relation.name == "between":
            name = "left of" if others[0].x < subject.x < others[1].x else "above"
            stated.append((others[0].thing, name, subject.thing))
            stated.append((subject.thing, name, others[1].thing))
        elif relation.name in ("left of", "right of", "above", "below"):
            stated.append((subject.thing, relation.name, others[0].thing))
    return stated


def holds_unseen(plan: Plan) -> bool:
    """Whether a plan states a held-out triple or shows a held-out tint."""
    return any(is_held_out_triple(*fact) for fact in facts(plan)) or any(
        o.tint is not None and is_held_out_tint(o.tint, o.thing) for o in plan.objects
    )


__all__ = ["facts", "holds_unseen", "is_held_out_tint", "is_held_out_triple"]
