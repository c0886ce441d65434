"""The world as the judge sees it: every fact, and more of what is hard to tell than painters are shown."""

from bottega.data.emoji_world.layout import WORDS
from bottega.data.emoji_world.mixture import EmojiWorldConfig, SceneMixture
from bottega.data.emoji_world.plan import BACKGROUNDS, STYLES, TINTS
from bottega.data.emoji_world.vocabulary import VocabularyName, vocabulary
from bottega.evaluation.judge_network import JudgeConfig

MIXTURE = SceneMixture(
    single=0.22,
    pair=0.22,
    together=0.08,
    count=0.14,
    between=0.04,
    corner=0.04,
    sizes=0.08,
    several=0.08,
    words=0.10,
    tint=0.30,
    style=0.25,
)
"""What the judge learns from. A painter's own mixture would leave it weak on dyed things, styles and words."""


def judge_world(
    vocabulary: VocabularyName = "core", num_things: int | None = None, *, seed: int = 0
) -> EmojiWorldConfig:
    """The world a judge is trained on.

    It holds held-out facts too: they test whether a painter can put together what it never saw together, and a judge
    that had not seen them either would be unfair to those that can.
    """
    return EmojiWorldConfig(
        seed=seed, vocabulary=vocabulary, num_things=num_things, split="all", mixture=MIXTURE
    )


def judge_config(world: EmojiWorldConfig) -> JudgeConfig:
    """A judge that can name all that this world shows."""
    return JudgeConfig(
        things=tuple(thing.name for thing in vocabulary(world.vocabulary, world.num_things)),
        backgrounds=tuple(BACKGROUNDS),
        styles=STYLES,
        tints=TINTS,
        signs=WORDS,
    )


__all__ = ["MIXTURE", "judge_config", "judge_world"]
