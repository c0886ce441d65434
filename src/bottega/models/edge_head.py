"""Edge heads: small networks that draw a picture's edges from where the text is looked at. They are for training only.

Whoever paints never builds one: the network inside `EdgeSupervised` is the very network that is exported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bottega.condition import Condition
from bottega.errors import ConfigError, InputError
from bottega.models.attention import AttentionMap, TextReader
from bottega.models.attention_config import require
from bottega.models.context import Context
from bottega.models.layers import Changed, Features, conv
from bottega.models.moe_gates import Exploring
from bottega.models.unet import UNet

NUM_CONVS = 5
"""How many convolutions lie between an attention map and its edges (RAPHAEL's N)."""

_HEADS, _NETWORK = "edge_heads.", "network."

Plane = Float[Tensor, "batch 1 height width"]
"""One number per position of a layer."""


@dataclass(frozen=True, kw_only=True)
class EdgeHeadConfig:
    """Edge heads at every layer that reads text.

    ``stream`` is the text whose last real token is watched: the end-of-text token, which in CLIP stands for the whole.
    ``width`` is the channels between the convolutions.
    """

    stream: str = "clip_text"
    width: int = 32

    def __post_init__(self) -> None:
        require(self.width > 0, f"head.width must be positive, got {self.width}")


class WatchedToken(NamedTuple):
    """For each picture the key of its watched token, and whether it has one (a dropped text has none)."""

    key: Int[Tensor, "batch"]
    present: Bool[Tensor, "batch"]


def last_token(context: Context, stream: str, batch: int) -> WatchedToken:
    """The last real token of a stream, for each of ``batch`` pictures.

    Raises:
        InputError: When the network has read no text at all, of which to choose a token.
    """
    if not context.layers:
        raise InputError("edges are drawn from where text is looked at; this network reads none")
    keys = context.layers[0].keys
    real = torch.ones(1, keys.shape[2], dtype=torch.bool, device=keys.device)
    if context.mask is not None:
        real = context.mask[:, 0, 0]
    places = torch.arange(1, keys.shape[2] + 1, device=keys.device)
    inside = torch.zeros_like(places, dtype=torch.bool)
    for name, start, end in context.segments:
        if name == stream:
            inside[start:end] = True
    last = (places * (real & inside)).amax(dim=1).expand(batch)
    return WatchedToken(key=(last - 1).clamp(min=0), present=last > 0)


def map_of(seen: AttentionMap, key: Int[Tensor, "batch"]) -> Plane:
    """How much each position looks at one token: the mean over heads, as a share of the largest.

    Source: RAPHAEL (arXiv:2305.18295) does not say how heads are joined, nor how maps are scaled; its masks, too, are
    relative to the largest value. A softmax over many tokens gives numbers of which a convolution sees little.
    """
    columns = key[:, None, None, None].expand(-1, *seen.weights.shape[1:3], 1)
    values = seen.weights.gather(3, columns)[..., 0].mean(dim=1)
    largest = values.amax(dim=1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    return (values / largest).unflatten(1, (seen.height, seen.width))[:, None]


class EdgeHead(nn.Module):
    """Five convolutions with GELU between them, from one attention map to the logit of an edge."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [1, *[width] * (NUM_CONVS - 1), 1]
        self.convs = nn.ModuleList(conv(before, after) for before, after in pairwise(widths))

    def forward(self, x: Features) -> Changed:
        """Logits at the map's own resolution."""
        for number, layer in enumerate(self.convs):
            x = layer(x if number == 0 else nn.functional.gelu(x))
        return x


class EdgeSupervised(nn.Module):
    """A network beside its edge heads, one for every layer that reads text.

    It is prepared and called as the network is, so that objectives, previews and probes need not know.

    Source: RAPHAEL (arXiv:2305.18295), section 3.3, a head in every block. Which map it sees is not said but in Figure
    7, which shows the end-of-text token's.
    """

    def __init__(self, network: UNet, config: EdgeHeadConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config
        names = [stream.name for stream in network.config.streams]
        if config.stream not in names:
            raise ConfigError(
                f"head.stream is {config.stream}, but this network reads {sorted(names)}"
            )
        layers = sum(isinstance(module, TextReader) for module in network.modules())
        self.edge_heads = nn.ModuleList(EdgeHead(config.width) for _ in range(layers))

    def prepare(self, condition: Condition, exploring: Exploring | None = None) -> Context:
        """As the network does."""
        return self.network.prepare(condition, exploring)

    def forward(
        self,
        x: Features,
        c_noise: Float[Tensor, "batch"],
        context: Context,
        *,
        maps: list[AttentionMap] | None = None,
    ) -> Changed:
        """What the network says; ``maps``, when given, collects where it looked."""
        return self.network(x, c_noise, context, maps=maps)

    def draw(
        self, maps: Sequence[AttentionMap], token: WatchedToken, rows: Int[Tensor, "picked"]
    ) -> list[tuple[Plane, Plane]]:
        """For each layer the maps that its head saw and the logits it gave, of the pictures in ``rows``."""
        drawn: list[tuple[Plane, Plane]] = []
        for seen in maps:
            part = AttentionMap(
                layer=seen.layer,
                height=seen.height,
                width=seen.width,
                weights=seen.weights.index_select(0, rows),
            )
            head = self.edge_heads[seen.layer]
            plane = map_of(part, token.key.index_select(0, rows))
            drawn.append((plane, head(plane.to(next(head.parameters()).dtype)).to(plane.dtype)))
        return drawn


def without_heads(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of an `EdgeSupervised` network's weights those of the network alone, by its own names; others as they are."""
    if not any(name.startswith(_HEADS) for name in weights):
        return dict(weights)
    return {
        name.removeprefix(_NETWORK): tensor
        for name, tensor in weights.items()
        if not name.startswith(_HEADS)
    }


class Watching(nn.Module):
    """A network for the length of one call: it keeps the context it was prepared with and where it looked."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.context: Context | None = None
        self.maps: list[AttentionMap] = []

    def prepare(self, condition: Condition, *told: Any) -> Context:
        """As the network does."""
        prepared = cast(Any, self.network).prepare(condition, *told)
        self.context = prepared
        return prepared

    def forward(self, x: Features, c_noise: Float[Tensor, "batch"], context: Context) -> Changed:
        """What the network says, with maps."""
        self.maps = []
        return self.network(x, c_noise, context, maps=self.maps)


__all__ = [
    "NUM_CONVS",
    "EdgeHead",
    "EdgeHeadConfig",
    "EdgeSupervised",
    "Plane",
    "WatchedToken",
    "Watching",
    "last_token",
    "map_of",
    "without_heads",
]
