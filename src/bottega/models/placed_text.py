"""The text of pictures with regions, made ready once: real keys and values, and which key belongs where.

Masks and words do not change while a picture is painted. What does, the largest logit and the noise, is a number per
call, so that a layer is left with two small products, a maximum, a sum and a softmax.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from bottega.models.attention import AttendMask, KeysValues, pick

Places = Float[Tensor, "_ 1 positions keys"]
"""The matrix A: how much of every position belongs to the region of every key, times the region's strength."""

Weigh = Callable[[Tensor, Tensor | None], Tensor]
"""The weight beside some logits, given the keys that each picture may look at; None where all may be looked at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedText:
    """What one layer reads for some pictures with regions; keys that are padding for all of them are left out.

    Attributes:
        source: The keys and values that it was made of.
        mask: The mask that it was made of.
        columns: The keys that are left; None where all are.
        keys: They, turned round, over sqrt(head width), in float32.
        values: Theirs, in float32.
        places: The matrix A for them.
        real: Which of them each picture may look at; None where it may look at all of them.
    """

    source: KeysValues
    mask: AttendMask | None
    columns: Int[Tensor, "left"] | None
    keys: Float[Tensor, "pictures heads head_width left"]
    values: Float[Tensor, "pictures heads left head_width"]
    places: Float[Tensor, "pictures 1 positions left"]
    real: Bool[Tensor, "pictures 1 1 left"] | None

    @staticmethod
    def of(
        source: KeysValues, mask: AttendMask | None, rows: tuple[int, ...], places: Places
    ) -> "PlacedText":
        """Make the text of these rows of the batch ready."""
        keys, values = pick(source.keys, rows).float(), pick(source.values, rows).float()
        columns, real = None, None
        if mask is not None:
            real = pick(mask, rows)
            columns = real.flatten(0, 2).any(dim=0).nonzero()[:, 0]
            keys, values = keys.index_select(2, columns), values.index_select(2, columns)
            places = places.index_select(3, columns)
            real = None if len(real) == 1 else real.index_select(3, columns)
        return PlacedText(
            source=source,
            mask=mask,
            columns=columns,
            keys=(keys * keys.shape[3] ** -0.5).transpose(2, 3).expand(len(rows), -1, -1, -1),
            values=values.expand(len(rows), -1, -1, -1),
            places=places,
            real=real,
        )

    def is_of(self, source: KeysValues, mask: AttendMask | None) -> bool:
        """Whether it was made of these very tensors."""
        return self.source is source and self.mask is mask

    def read(
        self,
        query: Float[Tensor, "pictures heads positions head_width"],
        weigh: Weigh,
        factors: tuple[float, ...],
    ) -> tuple[
        Float[Tensor, "pictures heads positions head_width"],
        Float[Tensor, "pictures heads positions left"],
    ]:
        """softmax((Q K^T + w A) / sqrt(d)) V and the softmax, in float32.

        Args:
            query: Of these pictures.
            weigh: The part of w that depends on the logits. It is asked of divided ones: w is in proportion to them.
            factors: The part of w that depends on the noise, picture by picture.
        """
        logits = query.float() @ self.keys
        weight = weigh(logits, self.real)
        if weight.numel() == 1 and weight.is_cpu:  # small tensors cost more than numbers
            logits.add_(self.places, alpha=max(weight.item(), 0.0) * factors[0])
        else:
            own = weight.new_tensor(factors)[:, None, None, None]
            logits.addcmul_(self.places, weight.clamp(min=0) * own)
        if self.real is not None:
            logits.masked_fill_(~self.real, float("-inf"))
        weights = logits.softmax(dim=-1)
        return weights @ self.values, weights

    def over_all_keys(
        self, weights: Float[Tensor, "pictures heads positions left"]
    ) -> Float[Tensor, "pictures heads positions keys"]:
        """The softmax with the zeros of padding."""
        if self.columns is None:
            return weights
        every = weights.new_zeros(*weights.shape[:3], self.source.keys.shape[2])
        return every.index_copy_(3, self.columns, weights)


__all__ = ["PlacedText", "Places"]
