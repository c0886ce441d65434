"""The world itself: ``world[i]`` is a picture with its caption, the same for the same seed and i, for ever."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from bottega.data.batch import Batch
from bottega.data.buckets import Bucket, Buckets, Groups, grouped, one_bucket
from bottega.data.emoji_world.captions import Span, SpanKind, write_caption
from bottega.data.emoji_world.draws import Draws
from bottega.data.emoji_world.layout import Scenes
from bottega.data.emoji_world.mixture import EmojiWorldConfig, SceneMixture
from bottega.data.emoji_world.plan import Plan, Style
from bottega.data.emoji_world.render import Picture, Size, edges, labels, render, sides
from bottega.data.emoji_world.sprites import store
from bottega.errors import InputError
from bottega.seeding import derive


class Phrase:
    """Words of a caption and the part of the picture they speak of.

    ``start`` and ``end`` are characters of the caption; ``objects`` are places in ``plan.objects``.
    """

    def __init__(self, caption: str, plan: Plan, span: Span) -> None:
        """Bind a span to its caption and plan."""
        self.start, self.end, self.kind, self.objects = (
            span.start,
            span.end,
            span.kind,
            span.objects,
        )
        self.text = caption[span.start : span.end]
        self._plan = plan

    start: int
    end: int
    kind: SpanKind
    objects: tuple[int, ...]

    def mask(self, size: Size) -> Bool[ndarray, "height width"]:
        """The pixels that belong to what the words say, as far as they are seen; for a style, all of them."""
        if self.kind == "style":
            return np.ones(sides(size), bool)
        owners = labels(self._plan, size)
        if self.kind == "background":
            return owners == 0
        if self.kind == "word":
            return owners == len(self._plan.objects) + 1
        return np.isin(owners, [index + 1 for index in self.objects])

    def box(self, size: Size) -> tuple[int, int, int, int]:
        """Left, top, right and bottom (exclusive) pixels around the mask; zeros when nothing is seen."""
        mask = self.mask(size)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size == 0:
            return (0, 0, 0, 0)
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class Example:
    """One scene of the world; pictures, masks and edges are drawn when asked for, at any size."""

    def __init__(self, index: int, plan: Plan, caption: str, spans: tuple[Span, ...]) -> None:
        """Put together what the world invented."""
        self.index = index
        self.plan = plan
        self.caption = caption
        self._spans = spans

    @property
    def style(self) -> Style:
        """How it is drawn."""
        return self.plan.style

    @functools.cached_property
    def phrases(self) -> tuple[Phrase, ...]:
        """The parts of the caption that speak of something to be seen."""
        return tuple(Phrase(self.caption, self.plan, span) for span in self._spans)

    def image(self, size: Size) -> Picture:
        """The picture, uint8."""
        return render(self.plan, size)

    def edges(self, size: Size) -> Bool[ndarray, "height width"]:
        """The exact outlines of what is seen."""
        return edges(self.plan, size)


class EmojiWorld:
    """An endless sequence of examples; each is a pure function of (seed, index), in any order and process."""

    def __init__(self, config: EmojiWorldConfig | None = None) -> None:
        """Open a world; the default is the training world of the core vocabulary.

        Raises:
            DataError: When the emoji font is missing.
        """
        self.config = EmojiWorldConfig() if config is None else config
        self._scenes = Scenes(self.config)
        store()

    @property
    def things(self) -> tuple[str, ...]:
        """The names of all things that this world shows."""
        return tuple(thing.name for thing in self._scenes.things)

    def plan(self, index: int) -> Plan:
        """Only the plan of example ``index``."""
        if index < 0:
            raise InputError(f"examples are counted from 0, got {index}")
        return self._scenes.plan(Draws(self.config.seed, "scene", self.config.split, index))

    def __getitem__(self, index: int) -> Example:
        """Example ``index``, from 0 and without end."""
        plan = self.plan(index)
        draws = Draws(self.config.seed, "caption", self.config.split, index)
        caption, spans = write_caption(plan, self.config.mixture, draws)
        return Example(index, plan, caption, spans)


_PLAIN = SceneMixture()


def describe(plan: Plan, seed: int | None = None, mixture: SceneMixture = _PLAIN) -> str:
    """A caption of a plan: without a seed the plainest one; with one, a phrasing that the seed chooses."""
    draws = None if seed is None else Draws(seed, "describe")
    return write_caption(plan, mixture, draws)[0]


class WorldSource:
    """The world as a source of training batches: squares without end, or its first examples in buckets.

    Which bucket a scene is drawn in is a function of its index alone, each as often as any other.
    """

    def __init__(
        self,
        world: EmojiWorld,
        size: int,
        *,
        buckets: Buckets | None = None,
        num_examples: int | None = None,
    ) -> None:
        """Draw ``world``.

        Args:
            world: What to draw.
            size: Pixels of a square's side, to which buckets are scaled.
            buckets: Which shapes pictures have, beside squares.
            num_examples: How many examples there are; they never end when it is not given.

        Raises:
            InputError: For buckets without an end, since nobody could say then which examples share a batch.
        """
        if buckets is not None and num_examples is None:
            raise InputError("a world in buckets needs num_examples, for example 100000")
        self.world = world
        self.size = size
        self.num_examples = num_examples
        self._shapes = (Bucket(size, size),) if buckets is None else buckets.at(size)

    def bucket(self, index: int) -> Bucket:
        """The size that example ``index`` is drawn at."""
        return self._shapes[derive(self.world.config.seed, "bucket", index) % len(self._shapes)]

    @functools.cached_property
    def groups(self) -> Groups | None:
        """The examples of every bucket; None where all have one size."""
        if len(self._shapes) == 1 or self.num_examples is None:
            return None
        return tuple(grouped({i: self.bucket(i) for i in range(self.num_examples)}).values())

    def batch(self, indices: Sequence[int]) -> Batch:
        """The examples at ``indices``, in that order; ``Batch.examples`` holds them.

        Raises:
            InputError: For examples of several buckets.
        """
        examples = tuple(self.world[i] for i in indices)
        bucket = one_bucket({self.bucket(i) for i in indices}, self._shapes[0])
        pictures = np.empty((len(examples), 3, *bucket), np.uint8)
        for place, example in enumerate(examples):
            pictures[place] = example.image(bucket).transpose(2, 0, 1)
        return Batch(
            images=torch.from_numpy(pictures),
            captions=tuple(example.caption for example in examples),
            indices=tuple(indices),
            examples=examples,
        )


__all__ = ["EmojiWorld", "Example", "Phrase", "WorldSource", "describe"]
