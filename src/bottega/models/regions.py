"""Paint with words: what ties a phrase to a place, as a bias on the logits of every layer that reads text.

A mask is 1 where its phrase is wanted and 0 elsewhere, as large as the picture that is painted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from bottega.errors import InputError
from bottega.models.attention import (
    AttentionMap,
    Logits,
    Own,
    Reading,
    RowBias,
    Segments,
    pick,
)
from bottega.models.placed_text import PlacedText, Places
from bottega.shapes import Sigmas

Mask = Float[Tensor, "height width"]
"""How much of every pixel belongs to a region, from 0 to 1."""

Real = Bool[Tensor, "#batch 1 1 keys"]
"""Keys that may be looked at."""


@dataclass(frozen=True, kw_only=True)
class LargestLogit:
    """w = w' ln(1 + sigma) max(Q K^T), the maximum over one picture's positions, keys and heads.

    With ``per_head`` every head has a maximum of its own. A maximum below zero counts as zero, since the bias would
    otherwise change its sign.

    Source: eDiff-I (arXiv:2211.01324), section 4.3, which does not say over what the maximum is taken. We take it in
    float32, over the keys that are no padding, and never over a batch.
    """

    per_head: bool = False

    def over_noise(self, sigma: float) -> float:
        """The part of the weight that depends on sigma."""
        return math.log1p(sigma)

    def of(self, logits: Logits, real: Real | None) -> Float[Tensor, "batch #heads 1 1"]:
        """The part of the weight that depends on the logits; ``real`` is None where no key is padding."""
        over = (2, 3) if self.per_head else (1, 2, 3)
        if real is not None:
            logits = logits.amax(dim=2, keepdim=True).masked_fill(~real, float("-inf"))
        return logits.amax(dim=over, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class LogitDeviation:
    """w = w' ln(1 + sigma^2) std(Q K^T), the standard deviation over one picture's positions, keys and heads.

    Source: the authors of paint-with-words-sd found it to behave better than the maximum on Stable Diffusion; the paper
    does not have it. Padding is left out here too.
    """

    def over_noise(self, sigma: float) -> float:
        """The part of the weight that depends on sigma."""
        return math.log1p(sigma * sigma)

    def of(self, logits: Logits, real: Real | None) -> Float[Tensor, "batch 1 1 1"]:
        """The part of the weight that depends on the logits; ``real`` is None where no key is padding."""
        if real is None:
            return logits.std(dim=(1, 2, 3), correction=0, keepdim=True)
        seen = real.to(logits.dtype)
        count = seen.sum(dim=(1, 2, 3), keepdim=True) * logits.shape[1] * logits.shape[2]
        mean = (logits * seen).sum(dim=(1, 2, 3), keepdim=True) / count
        return ((logits - mean).square() * seen).sum(dim=(1, 2, 3), keepdim=True).div(count).sqrt()


RegionWeight = LargestLogit | LogitDeviation
"""How the strength of a region becomes a weight beside the logits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedPhrase:
    """A phrase and its place: tokens by text stream, a mask, and a strength, negative for a place to stay away from."""

    tokens: Mapping[str, tuple[int, ...]]
    mask: Mask
    strength: float = 1.0

    @property
    def is_idle(self) -> bool:
        """Whether it asks for nothing."""
        return self.strength == 0 or not bool(self.mask.any())


@dataclass(frozen=True, kw_only=True, eq=False)
class Attended:
    """What one layer made of the phrases of one picture: their masks there, and the attention their tokens got.

    ``row`` is the picture's place in the batch; attention is a share of 1, summed over tokens, averaged over heads.
    """

    row: int
    layer: int
    masks: Float[Tensor, "phrases height width"]
    attention: Float[Tensor, "phrases height width"]


Watch = Callable[[Attended], None]
"""Somebody who wants to see that."""


class PlacedPhrases:
    """The placed phrases of a batch, with their matrices for every size of layer made once and kept.

    Overlapping places add up, except that of one token: it is wanted where any of its regions wants it.
    """

    def __init__(
        self,
        pictures: Mapping[int, Sequence[PlacedPhrase]],
        weight: RegionWeight,
        *,
        watch: Watch | None = None,
    ) -> None:
        """Take phrases by row of the batch.

        Args:
            pictures: Rows that are left out have no regions, and are painted as if nobody had.
            weight: How strength becomes weight.
            watch: Told what the phrases are attended with, at every call of the network.
        """
        wanted = {row: tuple(phrases) for row, phrases in sorted(pictures.items())}
        self._idle = {r for r, p in wanted.items() if all(phrase.is_idle for phrase in p)}
        self.pictures = {
            row: phrases
            for row, phrases in wanted.items()
            if phrases and (watch is not None or row not in self._idle)
        }
        self.weight = weight
        self.watch = watch
        self._places: dict[tuple[object, ...], Places] = {}
        self._texts: dict[tuple[object, ...], PlacedText] = {}
        self._masks: dict[tuple[object, ...], Float[Tensor, "phrases height width"]] = {}

    def at(self, sigma: Sigmas) -> "RegionBias | None":
        """The bias for a network call at these noise levels, or None where it would be zero for every picture.

        Args:
            sigma: One per picture of the batch, in units of pictures in [-1, 1].
        """
        if not self.pictures:
            return None
        levels = sigma.tolist()
        factors = {row: self.weight.over_noise(levels[row]) for row in self.pictures}
        changed = {
            row: factor for row, factor in factors.items() if factor != 0 and row not in self._idle
        }
        if self.watch is not None and not changed:
            return RegionBias(phrases=self, rows=tuple(factors), origins=tuple(factors))
        if not changed:
            return None
        watched = factors if self.watch is not None else changed
        rows = tuple(watched)
        return RegionBias(
            phrases=self, rows=rows, origins=rows, factors=tuple(watched.values()), changes=True
        )

    def places(
        self, row: int, height: int, width: int, keys: int, segments: Segments, device: torch.device
    ) -> Places:
        """The matrix A of one picture."""
        key = (row, height, width, keys, segments, device)
        if key not in self._places:
            flat = torch.zeros(2, height * width, keys, device=device)
            masks = self.masks(row, height, width, device).flatten(1)
            for phrase, mask in zip(self.pictures[row], masks, strict=True):
                columns = key_columns(phrase, segments)
                side = int(phrase.strength < 0)
                wanted = (mask * abs(phrase.strength))[:, None]
                flat[side][:, columns] = torch.maximum(flat[side][:, columns], wanted)
            self._places[key] = (flat[0] - flat[1])[None, None]
        return self._places[key]

    def text(
        self,
        origins: tuple[int, ...],
        rows: tuple[int, ...],
        layer: int,
        height: int,
        width: int,
        reading: Reading,
    ) -> PlacedText:
        """What a layer reads for these pictures, ``rows`` of the batch at hand; kept until the text changes."""
        source, key = reading.layers[layer], (origins, layer, height, width)
        kept = self._texts.get(key)
        if kept is None or not kept.is_of(source, reading.mask):
            keys, device = source.keys.shape[2], source.keys.device
            places = [
                self.places(row, height, width, keys, reading.segments, device) for row in origins
            ]
            wanted = places[0] if len(places) == 1 else torch.cat(places)
            kept = PlacedText.of(source, reading.mask, rows, wanted)
            self._texts[key] = kept
        return kept

    def masks(
        self, row: int, height: int, width: int, device: torch.device
    ) -> Float[Tensor, "phrases height width"]:
        """The masks of one picture as a layer of this size sees them."""
        key = (row, height, width, device)
        if key not in self._masks:
            reduced = [reduce_mask(p.mask, height, width) for p in self.pictures[row]]
            self._masks[key] = torch.stack(reduced).to(device)
        return self._masks[key]


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionBias(RowBias):
    """softmax((Q K^T + w A) / sqrt(d)): the bias w A at one noise level.

    ``rows`` are pictures of the batch at hand, ``origins`` the same pictures in the batch the phrases were placed for.

    Source: eDiff-I (arXiv:2211.01324), section 4.3.
    """

    phrases: PlacedPhrases
    rows: tuple[int, ...]
    origins: tuple[int, ...]
    factors: tuple[float, ...] = ()
    changes: bool = False

    def add(self, logits: Logits, height: int, width: int, reading: Reading) -> Logits:
        """Undivided float32 logits with w A added."""
        if not self.changes:
            return logits
        keys, device = logits.shape[-1], logits.device
        found = [
            self.phrases.places(row, height, width, keys, reading.segments, device)
            for row in self.origins
        ]
        places = found[0] if len(found) == 1 else torch.cat(found)
        weight = self.phrases.weight.of(logits, self._real(reading)).clamp(min=0)
        if len(self.factors) == 1:
            return torch.addcmul(logits, places, weight, value=self.factors[0])
        factors = torch.tensor(self.factors, device=device)[:, None, None, None]
        return torch.addcmul(logits, places, weight * factors)

    def attended(
        self, query: Own, layer: int, height: int, width: int, reading: Reading
    ) -> Own | None:
        """The same for a layer that reads nothing but text, in a third of the time; not for gradients.

        On a CPU every picture is read by itself, so that it gets the same alone and among others with regions.
        """
        source = reading.layers[layer]
        tensors = (query, source.keys, source.values)
        if not self.changes or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            return None
        count = len(self.rows)
        apart = [(i, i + 1) for i in range(count)] if query.is_cpu else [(0, count)]
        read = [self._read(query, layer, height, width, reading, *ends) for ends in apart]
        if self.phrases.watch is not None:
            weights = torch.cat([all_keys for _, all_keys in read])
            seen = AttentionMap(layer=layer, height=height, width=width, weights=weights)
            self.saw(seen, reading)
        heads = read[0][0] if len(read) == 1 else torch.cat([own for own, _ in read])
        return heads.to(query.dtype)

    def _read(
        self,
        query: Tensor,
        layer: int,
        height: int,
        width: int,
        reading: Reading,
        start: int,
        end: int,
    ) -> tuple[Tensor, Tensor]:
        """What some of the pictures read, and where they looked; without padding where nobody watches."""
        rows, origins = self.rows[start:end], self.origins[start:end]
        text = self.phrases.text(origins, rows, layer, height, width, reading)
        factors = self.factors[start:end]
        heads, weights = text.read(pick(query, rows), self.phrases.weight.of, factors)
        return heads, weights if self.phrases.watch is None else text.over_all_keys(weights)

    def select(self, indices: Sequence[int]) -> "RegionBias | None":
        """The bias for those pictures of the batch."""
        held = {row: place for place, row in enumerate(self.rows)}
        taken = [(new, held[old]) for new, old in enumerate(indices) if old in held]
        if not taken:
            return None
        return replace(
            self,
            rows=tuple(new for new, _ in taken),
            origins=tuple(self.origins[place] for _, place in taken),
            factors=tuple(self.factors[place] for _, place in taken) if self.factors else (),
        )

    def saw(self, weights: AttentionMap, reading: Reading) -> None:
        """Tell whoever watches what every phrase was attended with: summed over its tokens, averaged over heads."""
        watch = self.phrases.watch
        if watch is None:
            return
        height, width = weights.height, weights.width
        for row, seen in zip(self.origins, weights.weights.mean(dim=1), strict=True):
            phrases = self.phrases.pictures[row]
            shares = [seen[:, key_columns(p, reading.segments)].sum(dim=-1) for p in phrases]
            masks = self.phrases.masks(row, height, width, seen.device)
            attention = torch.stack(shares).unflatten(1, (height, width))
            watch(Attended(row=row, layer=weights.layer, masks=masks, attention=attention))

    def _real(self, reading: Reading) -> Real | None:
        return None if reading.mask is None else pick(reading.mask, self.rows)


def key_columns(phrase: PlacedPhrase, segments: Segments) -> list[int]:
    """The keys that belong to a phrase, in every stream that is read here."""
    return [
        start + token
        for name, start, _ in segments
        if name in phrase.tokens
        for token in phrase.tokens[name]
    ]


def reduce_mask(mask: Mask, height: int, width: int) -> Float[Tensor, "_ _"]:
    """A mask at the size of a layer: bilinear, and on the way down every pixel counts by its area.

    Raises:
        InputError: For a mask of no pixels.
    """
    if mask.shape == (height, width):
        return mask
    if not mask.numel():
        raise InputError("a mask needs at least one pixel")
    reduced = F.interpolate(
        mask[None, None].float(), (height, width), mode="bilinear", antialias=True
    )
    return reduced[0, 0].clamp(0, 1)


__all__ = [
    "Attended",
    "LargestLogit",
    "LogitDeviation",
    "Mask",
    "PlacedPhrase",
    "PlacedPhrases",
    "RegionBias",
    "RegionWeight",
    "Watch",
    "key_columns",
    "reduce_mask",
]
