"""Which scenes a world shows, and how often."""

import dataclasses
import functools
import itertools
import math
from dataclasses import dataclass
from typing import Literal

from bottega.data.emoji_world.vocabulary import VocabularyName, vocabulary
from bottega.errors import ConfigError

Split = Literal["train", "held_out", "all"]


@dataclass(frozen=True, kw_only=True)
class SceneMixture:
    """Weights of the kinds of scene (in any unit), and probabilities of what may be added to one.

    Kinds: ``single`` one thing; ``pair`` two things and where one stands to the other; ``together`` two things
    without saying where; ``count`` two to four of one thing; ``between``; ``corner``; ``sizes`` a big thing and a
    small one, or one small thing; ``several`` three or four things; ``words`` a written word, alone or with a thing.
    """

    single: float = 0.40
    pair: float = 0.35
    together: float = 0.02
    count: float = 0.08
    between: float = 0.02
    corner: float = 0.03
    sizes: float = 0.03
    several: float = 0.02
    words: float = 0.05

    tint: float = 0.08
    """Probability that a thing is dyed."""
    style: float = 0.12
    """Probability of a style other than plain."""
    style_named: float = 1.0
    """Probability that the caption names such a style. Where it does not, only a picture can say which: a network that
    is to borrow styles from pictures needs captions that are silent."""
    synonym: float = 0.06
    """Probability that a thing with synonyms is called by one of them."""
    background_named: float = 0.80
    """Probability that the caption names the background's colour."""
    short_caption: float = 0.08
    """Probability of a caption of bare nouns ("pizza left of cat")."""
    long_caption: float = 0.05
    """Probability of a caption that also says where each thing stands."""
    varied_phrasing: float = 0.35
    """Probability of a phrasing other than the plainest."""
    shade_jitter: int = 10
    """Largest change of each background level, of 255."""
    grid: int = 32
    """Things stand on a lattice of this many steps, so that a small picture is the large one made smaller."""
    freedom: float = 1.0
    """How much of the room for places and sizes is used: 1 all of it, 0 only its middle. A small network learns what
    things look like from far fewer pictures when they hardly move; the room can be widened later."""

    def __post_init__(self) -> None:
        """Refuse weights and probabilities that mean nothing."""
        if any(not (math.isfinite(w) and w >= 0) for w in self.weights) or sum(self.weights) <= 0:
            raise ConfigError(
                f"the weights of scenes must be 0 or more and not all 0, got {self.weights}"
            )
        for name in (
            "tint", "style", "style_named", "synonym", "background_named",
            "short_caption", "long_caption", "varied_phrasing", "freedom",
        ):  # fmt: skip
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} must lie between 0 and 1, got {value}")
        if not 0 <= self.shade_jitter <= 60:
            raise ConfigError(f"shade_jitter must lie between 0 and 60, got {self.shade_jitter}")
        if not 16 <= self.grid <= 1024:
            raise ConfigError(f"grid must lie between 16 and 1024, got {self.grid}")

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights in the order of `KINDS`."""
        return tuple(getattr(self, kind) for kind in KINDS)

    @functools.cached_property
    def cumulative(self) -> tuple[float, ...]:
        """Running sums of the weights."""
        return tuple(itertools.accumulate(self.weights))


KINDS = (
    "single",
    "pair",
    "together",
    "count",
    "between",
    "corner",
    "sizes",
    "several",
    "words",
)
"""The kinds of scene, in the order of `SceneMixture.weights`."""


@dataclass(frozen=True, kw_only=True)
class EmojiWorldConfig:
    """Which world: its seed, what it knows, which facts it shows, and its mixture of scenes.

    ``split`` "train" never shows a held-out fact, "held_out" shows one in every picture, "all" does not care.
    """

    seed: int = 0
    vocabulary: VocabularyName = "core"
    num_things: int | None = None
    split: Split = "train"
    mixture: SceneMixture = dataclasses.field(default_factory=SceneMixture)

    def __post_init__(self) -> None:
        """Refuse a vocabulary of fewer than two things, or of more than there are."""
        vocabulary(self.vocabulary, self.num_things)


__all__ = ["KINDS", "EmojiWorldConfig", "SceneMixture", "Split"]
