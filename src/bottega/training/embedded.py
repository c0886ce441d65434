"""A source whose batches carry their captions' embeddings, looked up in the loader's thread."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from bottega import seeding
from bottega.condition import Condition, Stream
from bottega.conditioning import Encoders
from bottega.data import Batch, Groups, Source, groups_of
from bottega.errors import ConfigError


@runtime_checkable
class TextLookup(Protocol):
    """What gives the streams of texts: an embedding cache, or anything that behaves like one."""

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Stream]:
        """One row per text, for every text encoder."""
        ...


class EmbeddedSource:
    """Fills ``Batch.condition`` with what encoders say about the captions, and about some of the pictures themselves.

    eDiff-I conditions on the CLIP embedding of the very picture that is to be painted, and drops it nine times in
    ten. Only the tenth that is kept is encoded here: which pictures those are is a function of (seed, index) alone,
    and for all others the stream is silent. The objective must then not drop ``clip_image`` again: `picture_share`
    splits a `ConditionDropout` accordingly. In a finite source it is always the same pictures that show themselves.
    """

    def __init__(
        self,
        source: Source,
        cache: TextLookup,
        *,
        encoders: Encoders | None = None,
        picture_share: float = 0.1,
        seed: int = 0,
    ) -> None:
        """Embed the batches of ``source``.

        Args:
            source: Where pictures and captions come from.
            cache: Looks up captions.
            encoders: Needed for pictures; without them, or without an image tower, there is no picture stream.
            picture_share: How many pictures speak for themselves, as a fraction.
            seed: Chooses which.
        """
        if not 0 <= picture_share <= 1:
            raise ConfigError(f"picture_share must be in [0, 1], got {picture_share}")
        self._source, self._cache, self._encoders = source, cache, encoders
        self._share, self._seed = picture_share, seed

    @property
    def num_examples(self) -> int | None:
        """As many as the source beneath has."""
        return self._source.num_examples

    @property
    def groups(self) -> Groups | None:
        """Those of the source beneath."""
        return groups_of(self._source)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The source's batch with its condition."""
        batch = self._source.batch(indices)
        streams = self._cache.encode_texts(list(batch.captions))
        if self._encoders is None or self._encoders.image is None:
            return dataclasses.replace(batch, condition=Condition(streams=streams))
        clean = batch.clean()
        pictures = [
            clean[row] if self.shows_itself(index) else None
            for row, index in enumerate(batch.indices)
        ]
        condition = self._encoders.with_pictures(streams, pictures)
        return dataclasses.replace(batch, condition=condition)

    def shows_itself(self, index: int) -> bool:
        """Whether the picture at ``index`` is told about itself."""
        return seeding.derive(self._seed, "picture", index) < self._share * 2**63


__all__ = ["EmbeddedSource", "TextLookup"]
