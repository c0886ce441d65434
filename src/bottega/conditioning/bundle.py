"""All encoders of a model together: words, and pictures for style, become one condition."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from bottega.condition import Condition, Stream
from bottega.conditioning.encoders import (
    EncodedText,
    ImageEncoder,
    TextEncoder,
    load_clip_image,
    load_clip_text,
    load_t5,
)
from bottega.errors import ConfigError, InputError, nearest

Picture = Float[Tensor, "3 _ _"]
"""One picture in [-1, 1]; those of a batch may differ in size."""


class TruncationWarning(UserWarning):
    """A text was longer than an encoder reads."""


class Encoders:
    """The frozen encoders a network is conditioned on; any of the three may be absent."""

    def __init__(self, texts: Sequence[TextEncoder], image: ImageEncoder | None = None) -> None:
        """Bundle text encoders, and at most one for pictures."""
        self.texts: Mapping[str, TextEncoder] = {encoder.name: encoder for encoder in texts}
        self.image = image
        if len(self.texts) != len(texts):
            raise ConfigError(f"two encoders share a name: {[e.name for e in texts]}")

    @classmethod
    def load(
        cls,
        *,
        folder_t5: Path | str | None = None,
        folder_clip: Path | str | None = None,
        max_tokens: Mapping[str, int] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> "Encoders":
        """Read encoders from Hugging Face folders.

        Args:
            folder_t5: A T5; none is loaded without it.
            folder_clip: A CLIP with both towers; none is loaded without it.
            max_tokens: Fixed lengths by stream name, where the tokenizers' own limits are not wanted.
            dtype: Of the weights in memory.
        """
        lengths = {} if max_tokens is None else max_tokens
        texts: list[TextEncoder] = []
        image = None
        if folder_t5 is not None:
            texts.append(load_t5(folder_t5, max_tokens=lengths.get("t5"), dtype=dtype))
        if folder_clip is not None:
            length = lengths.get("clip_text")
            texts.append(load_clip_text(folder_clip, max_tokens=length, dtype=dtype))
            image = load_clip_image(folder_clip, dtype=dtype)
        return cls(texts, image)

    @property
    def names(self) -> tuple[str, ...]:
        """The streams this bundle speaks in."""
        image = () if self.image is None else (self.image.name,)
        return (*self.texts, *image)

    @property
    def widths(self) -> dict[str, int]:
        """Features per token of each stream."""
        image = {} if self.image is None else {self.image.name: self.image.width}
        return {name: encoder.width for name, encoder in self.texts.items()} | image

    @property
    def pooled_widths(self) -> dict[str, int]:
        """Features of each stream's pooled vector; streams without one are left out."""
        image = {} if self.image is None else {self.image.name: self.image.width}
        pooled = {name: e.pooled_width for name, e in self.texts.items() if e.pooled_width}
        return pooled | image

    @property
    def digests(self) -> dict[str, str]:
        """Each encoder's fingerprint."""
        image = {} if self.image is None else {self.image.name: self.image.digest}
        return {name: encoder.digest for name, encoder in self.texts.items()} | image

    def encode_texts(self, texts: Sequence[str], *, rows: int = 1) -> dict[str, EncodedText]:
        """Every text encoder's view of ``texts``, with offsets and truncation."""
        return {name: encoder.encode(texts, rows=rows) for name, encoder in self.texts.items()}

    def condition(
        self,
        texts: Sequence[str],
        *,
        pictures: Sequence[Picture | None] | None = None,
        use: Sequence[str] | None = None,
    ) -> Condition:
        """What a network is told for these texts; a blank text says nothing, as in unconditional painting.

        Args:
            texts: One per picture to paint.
            pictures: A reference picture for each, or None where there is none.
            use: The streams to hear; the others stay in place and are silenced. All by default.

        Returns:
            A condition in which row i depends on text i and picture i alone, to the last bit.

        Raises:
            InputError: For a stream that is not here, or pictures that do not match the texts in number.
        """
        heard = self._heard(use)
        encoded = self.encode_texts(texts)
        _warn_of_truncation(texts, {n: e for n, e in encoded.items() if n in heard}, self)
        streams = {name: result.stream for name, result in encoded.items()}
        return self._complete(streams, len(texts), pictures, heard)

    def with_pictures(
        self,
        streams: Mapping[str, Stream],
        pictures: Sequence[Picture | None],
        *,
        rows: int = 64,
    ) -> Condition:
        """Text streams from a cache, and reference pictures, as one condition.

        Absent pictures cost nothing, so training encodes only those that condition dropout would keep.

        Args:
            streams: What `EmbeddingCache.encode_texts` gave.
            pictures: One per text, or None where there is none.
            rows: Pictures per call of the image tower.
        """
        everything = frozenset(self.names)
        return self._complete(streams, len(pictures), pictures, everything, rows=rows)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Encoders":
        """Move every encoder, and return the bundle."""
        for encoder in self.texts.values():
            encoder.to(device, dtype)
        if self.image is not None:
            self.image.to(device, dtype)
        return self

    def _heard(self, use: Sequence[str] | None) -> frozenset[str]:
        if use is None:
            return frozenset(self.names)
        for name in use:
            if name not in self.names:
                raise InputError(f"there is no stream {name!r} here{nearest(name, self.names)}")
        return frozenset(use)

    def _complete(
        self,
        streams: Mapping[str, Stream],
        count: int,
        pictures: Sequence[Picture | None] | None,
        heard: frozenset[str],
        *,
        rows: int = 1,
    ) -> Condition:
        streams = dict(streams)
        if pictures is not None and len(pictures) != count:
            raise InputError(
                f"expected {count} pictures, one or None per text, got {len(pictures)}"
            )
        if self.image is not None:
            absent = self.image.absent(count)
            streams[self.image.name] = (
                absent if pictures is None else _with_pictures(self.image, absent, pictures, rows)
            )
        elif pictures is not None and any(picture is not None for picture in pictures):
            raise InputError("these encoders have no image tower, so no picture can be given")
        condition = Condition(streams=streams)
        silence = {
            name: torch.ones(count, dtype=torch.bool, device=stream.tokens.device)
            for name, stream in streams.items()
            if name not in heard
        }
        return condition.dropped(silence)


def _with_pictures(
    encoder: ImageEncoder, absent: Stream, pictures: Sequence[Picture | None], rows: int
) -> Stream:
    tokens, mask = absent.tokens.clone(), absent.mask.clone()
    given = [(row, picture) for row, picture in enumerate(pictures) if picture is not None]
    sizes = {tuple(picture.shape) for _, picture in given}
    for size in sorted(sizes):
        places = [row for row, picture in given if tuple(picture.shape) == size]
        stack = torch.stack([picture for _, picture in given if tuple(picture.shape) == size])
        tokens[places] = encoder.encode(stack, rows=rows).tokens
        mask[places] = True
    return Stream(tokens=tokens, mask=mask, pooled=tokens[:, 0])


def _warn_of_truncation(
    texts: Sequence[str], encoded: Mapping[str, EncodedText], encoders: Encoders
) -> None:
    for name, result in encoded.items():
        for text, cut in zip(texts, result.truncated, strict=True):
            if cut:
                start = " ".join(text.split()[:6])[:60]
                warnings.warn(
                    f"the text {start!r}... is too long for {name}, which reads "
                    f"{encoders.texts[name].max_tokens} tokens: the last {cut:,} are not seen",
                    TruncationWarning,
                    stacklevel=4,
                )


__all__ = ["Encoders", "Picture", "TruncationWarning"]
