"""What do the layers that read text look at, as noise falls: the words, or the null token?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from bottega.condition import Condition
from bottega.diffusion import DenoiserLike
from bottega.errors import InputError
from bottega.models.attention import AttentionMap, Logits, Reading, RowBias
from bottega.seeding import generator
from bottega.shapes import Images

NULL = "null"
"""The stream of the learned token that says nothing."""


@dataclass(frozen=True, kw_only=True)
class TextShare:
    """At one noise level, the share of attention by stream, over all layers, heads, positions and pictures."""

    sigma: float
    shares: Mapping[str, float]

    @property
    def text(self) -> float:
        """What does not go to the null token."""
        return sum(share for name, share in self.shares.items() if name != NULL)


@dataclass(kw_only=True, eq=False)
class Observer(RowBias):
    """A bias that changes nothing and adds up what it sees.

    ``maps`` are the attention of each row's words at every size of layer, one value per key and position.
    """

    rows: tuple[int, ...]
    changes: bool = False
    totals: dict[str, float] = field(default_factory=dict[str, float])
    maps: dict[tuple[int, int], list[Float[Tensor, "batch positions keys"]]] = field(
        default_factory=dict[tuple[int, int], list[Tensor]]
    )
    segments: tuple[tuple[str, int, int], ...] = ()

    def add(self, logits: Logits, height: int, width: int, reading: Reading) -> Logits:
        """The logits as they are."""
        return logits

    def select(self, indices: Sequence[int]) -> "Observer | None":
        """Itself: pictures that are watched together stand at one noise level, and are not taken apart."""
        return self

    def saw(self, weights: AttentionMap, reading: Reading) -> None:
        """Add up one layer's attention by stream, and keep its maps."""
        mean = weights.weights.detach().float().mean(dim=1).cpu()
        self.segments = reading.segments
        whole = float(mean.sum())
        for name, start, end in reading.segments:
            share = float(mean[..., start:end].sum()) / whole
            self.totals[name] = self.totals.get(name, 0.0) + share
        self.maps.setdefault((weights.height, weights.width), []).append(mean)

    def shares(self) -> dict[str, float]:
        """The share of every stream, summing to 1; each layer counts alike."""
        whole = sum(self.totals.values())
        return {name: total / whole for name, total in self.totals.items()}

    def map_of(
        self, size: tuple[int, int], keys: Sequence[int]
    ) -> Float[Tensor, "batch height width"]:
        """The attention to some keys in layers of one size, averaged over these layers."""
        mean = torch.stack(self.maps[size]).mean(dim=0)
        return mean[..., list(keys)].sum(dim=-1).unflatten(1, size)


def look(
    denoiser: DenoiserLike,
    clean: Images,
    condition: Condition,
    sigmas: Sequence[float],
    *,
    seed: int = 0,
    watch: Callable[[float, Observer], None] | None = None,
) -> list[TextShare]:
    """Denoise pictures at each noise level, and see where every layer that reads text looks.

    Args:
        denoiser: One denoiser or an ensemble; at each level the expert denoiser of that level is asked.
        clean: Pictures in [-1, 1].
        condition: Their words.
        sigmas: Noise levels; the same unit noise is used at all of them.
        seed: Of that noise.
        watch: Given the noise level and the observer after each, for maps.

    Raises:
        InputError: For no or non-positive noise levels, or a network in which no layer reads text.

    Source: eDiff-I (arXiv:2211.01324), Figure 3. We take shares of attention over all layers.
    """
    if not sigmas or min(sigmas) <= 0:
        raise InputError(f"noise levels to look at are above 0, got {list(sigmas)}")
    eps = torch.randn(clean.shape, generator=generator(seed, "probe", "attention")).to(clean)
    context = denoiser.prepare(condition)
    found: list[TextShare] = []
    with torch.no_grad():
        for level in sigmas:
            observer = Observer(rows=tuple(range(len(clean))))
            sigma = torch.full((len(clean),), float(level), device=clean.device)
            denoiser(clean + level * eps, sigma, context.with_bias(observer))
            if not observer.totals:
                raise InputError("no layer of this network reads text")
            found.append(TextShare(sigma=float(level), shares=observer.shares()))
            if watch is not None:
                watch(float(level), observer)
    return found


__all__ = ["NULL", "Observer", "TextShare", "look"]
