"""How far the judge can be trusted: its readings of real pictures it has never seen."""

from collections import Counter, defaultdict

from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig, Plan, WorldSource
from bottega.evaluation.expectation import COLOURLESS
from bottega.evaluation.judge import Reader, Reading
from bottega.evaluation.report import Share

_BATCH = 128


def judge_accuracy(
    judge: Reader, world: EmojiWorldConfig, *, num_pictures: int = 1000, size: int = 64
) -> dict[str, Share]:
    """Read pictures of a world and count what is right; give a world with a seed that training did not use.

    Returns:
        ``things`` and ``tinted things`` (found, of all that are there), ``tints`` (of dyed things found), ``all
        things`` (pictures whose things are named and counted exactly), ``background``, ``style`` and ``word``. A
        tint or background that the style hides is not asked for, and what never occurs has no entry.
    """
    source = WorldSource(EmojiWorld(world), size)
    counted: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, num_pictures, _BATCH):
        batch = source.batch(range(start, min(start + _BATCH, num_pictures)))
        readings = judge.read(batch.clean())
        for example, reading in zip(batch.examples, readings, strict=True):
            _count(example.plan, reading, counted)
    return {name: Share.of(sum(held), len(held)) for name, held in counted.items()}


def _count(plan: Plan, reading: Reading, counted: dict[str, list[bool]]) -> None:
    found = reading.counts()
    for placed in plan.objects:
        shows_tint = placed.tint is not None and plan.style not in COLOURLESS
        counted["tinted things" if shows_tint else "things"].append(found[placed.thing] > 0)
        if shows_tint and found[placed.thing]:
            tints = {d.tint for d in reading.detections if d.thing == placed.thing}
            counted["tints"].append(placed.tint in tints)
    counted["all things"].append(found == Counter(placed.thing for placed in plan.objects))
    if plan.style != "neon":
        counted["background"].append(reading.background == plan.background)
    counted["style"].append(reading.style == plan.style)
    if plan.word is not None:
        counted["word"].append(reading.word == plan.word.text)


__all__ = ["judge_accuracy"]
