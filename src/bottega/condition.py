"""What a network may be told about the picture it paints: streams of tokens, and a picture to enlarge.

This is plain data. `conditioning` makes it from texts and pictures, `models` read it, and neither knows the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bottega.errors import InputError
from bottega.shapes import Images, Pooled, Sigmas, TokenMask, Tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """What one encoder says: a feature per token, which tokens are real, and one vector for the whole."""

    tokens: Tokens
    mask: TokenMask
    pooled: Pooled | None = None

    def dropped(self, drop: Bool[Tensor, "batch"]) -> "Stream":
        """Silence the stream where ``drop`` is True: features and pooled vector zero, every token masked.

        Masked as well as zeroed, so that a dropped prompt does not betray its length.
        """
        keep = ~drop
        factor = keep.to(self.tokens.dtype)
        return Stream(
            tokens=self.tokens * factor[:, None, None],
            mask=self.mask & keep[:, None],
            pooled=None if self.pooled is None else self.pooled * factor[:, None],
        )

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Stream":
        """Move the stream; ``dtype`` applies to the features, never to the mask."""
        return Stream(
            tokens=self.tokens.to(device=device, dtype=dtype),
            mask=self.mask.to(device=device),
            pooled=None if self.pooled is None else self.pooled.to(device=device, dtype=dtype),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """Everything a batch of pictures is conditioned on.

    ``streams`` maps an encoder's name (``t5``, ``clip_text``, ``clip_image``) to what it says. ``low_res`` is the
    picture to enlarge, already noise-augmented, at its own small size; ``low_res_sigma`` is how strong that noise was.
    ``numbers`` are plain numbers about the picture that some networks are told (SDXL: original height and width, top
    and left of the crop, height and width aimed at). ``control`` is a picture that a control reads, edges for example,
    in [0, 1]; networks themselves do not look at it.
    """

    streams: Mapping[str, Stream] = field(default_factory=dict)
    low_res: Images | None = None
    low_res_sigma: Sigmas | None = None
    numbers: Float[Tensor, "batch numbers"] | None = None
    control: Float[Tensor, "batch control_channels control_height control_width"] | None = None

    def __post_init__(self) -> None:
        if (self.low_res is None) != (self.low_res_sigma is None):
            raise InputError("low_res and low_res_sigma go together: give both, or neither")
        sizes = {len(stream.tokens) for stream in self.streams.values()}
        if self.low_res is not None and self.low_res_sigma is not None:
            sizes |= {len(self.low_res), len(self.low_res_sigma)}
        if self.numbers is not None:
            sizes |= {len(self.numbers)}
        if self.control is not None:
            sizes |= {len(self.control)}
        if len(sizes) > 1:
            raise InputError(f"every part of a condition needs one batch size, got {sorted(sizes)}")

    @property
    def batch_size(self) -> int:
        """How many pictures this speaks of (0 when it says nothing at all)."""
        if self.low_res is not None:
            return len(self.low_res)
        if self.numbers is not None:
            return len(self.numbers)
        return next((len(stream.tokens) for stream in self.streams.values()), 0)

    def dropped(self, drop: Mapping[str, Bool[Tensor, "batch"]]) -> "Condition":
        """Silence the named streams for the pictures where their entry is True."""
        unknown = set(drop) - set(self.streams)
        if unknown:
            raise InputError(
                f"cannot drop {sorted(unknown)}: the streams are {sorted(self.streams)}"
            )
        streams = {
            name: stream.dropped(drop[name]) if name in drop else stream
            for name, stream in self.streams.items()
        }
        return replace(self, streams=streams)

    def null(self) -> "Condition":
        """The same condition with every stream silenced; a low-resolution picture stays."""
        return self.dropped(
            {
                name: torch.ones(len(stream.tokens), dtype=torch.bool, device=stream.tokens.device)
                for name, stream in self.streams.items()
            }
        )

    def with_low_res(self, low_res: Images, low_res_sigma: Sigmas) -> "Condition":
        """The same words, with this picture to enlarge."""
        return replace(self, low_res=low_res, low_res_sigma=low_res_sigma)

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Condition":
        """Move everything; ``dtype`` applies to stream features only (low_res, sigma and numbers keep theirs)."""
        return Condition(
            streams={n: s.to(device=device, dtype=dtype) for n, s in self.streams.items()},
            low_res=None if self.low_res is None else self.low_res.to(device=device),
            low_res_sigma=None
            if self.low_res_sigma is None
            else self.low_res_sigma.to(device=device),
            numbers=None if self.numbers is None else self.numbers.to(device=device),
            control=None if self.control is None else self.control.to(device=device),
        )

    @staticmethod
    def cat(parts: Sequence["Condition"]) -> "Condition":
        """Join conditions along the batch; all must have the same streams and token lengths."""
        if not parts:
            raise InputError("Condition.cat needs at least one condition")
        first = parts[0]
        if any(set(p.streams) != set(first.streams) for p in parts):
            raise InputError(
                f"conditions to join need the same streams, got {[sorted(p.streams) for p in parts]}"
            )
        return Condition(
            streams={n: _cat_streams([p.streams[n] for p in parts]) for n in first.streams},
            low_res=_cat_optional([p.low_res for p in parts], "low_res"),
            low_res_sigma=_cat_optional([p.low_res_sigma for p in parts], "low_res_sigma"),
            numbers=_cat_optional([p.numbers for p in parts], "numbers"),
            control=_cat_optional([p.control for p in parts], "control"),
        )


def _cat_streams(streams: Sequence[Stream]) -> Stream:
    return Stream(
        tokens=torch.cat([s.tokens for s in streams]),
        mask=torch.cat([s.mask for s in streams]),
        pooled=_cat_optional([s.pooled for s in streams], "pooled"),
    )


def _cat_optional(tensors: Sequence[Tensor | None], name: str) -> Tensor | None:
    given = [t for t in tensors if t is not None]
    if not given:
        return None
    if len(given) != len(tensors):
        raise InputError(
            f"conditions to join need {name} all or none, got {len(given)} of {len(tensors)}"
        )
    return torch.cat(given)


__all__ = ["Condition", "Stream"]
