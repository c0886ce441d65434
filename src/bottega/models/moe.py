"""Feed-forwards made of experts: one chosen by every word for its place, one chosen by the noise level.

The space-MoE is printed as a sum over tokens, each with an expert of its own run over the whole picture. Masks are 0
or 1, so that the same numbers come from counting: how much weight the tokens sent to expert k put on position j. Each
expert then runs once, and only at positions with a weight.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bottega.errors import InputError
from bottega.models.fast_cpu import Linear, product, product_gelu
from bottega.models.layers import Rows
from bottega.models.moe_config import SpaceMoEConfig, TimeMoEConfig
from bottega.models.moe_gates import (
    Exploring,
    Gate,
    SpaceRoute,
    TimeRoute,
    Vectors,
    route_times,
    route_tokens,
)
from bottega.models.require import inner_width
from bottega.shapes import TokenMask, Tokens

TokenMap = Float[Tensor, "batch positions tokens"]
"""How much each position looks at each token: a cross-attention map, averaged over heads."""

Cover = Float[Tensor, "batch positions experts"]
"""How much weight each expert has at each position."""

Single = Float[Tensor, "rows features"]
"""Rows of one group, whichever picture they come from."""


SMALL = 2**20
"""Positions x width x inner width of an expert up to which painting computes all pairs at once, active or not."""


NEARLY_ALL = 32
"""One part in so many of the positions may be without a weight, and an expert still runs over all of them."""


class Expert(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, ratio: float, *, bias: bool = True) -> None:
        super().__init__()
        inner = inner_width(width, ratio)
        self.up = Linear(width, inner, bias=bias)
        self.down = Linear(inner, width, bias=bias)

    def forward(self, rows: Single, *, last_bias: bool = True) -> Single:
        """Transform every row by itself, without the last bias where somebody adds it for all experts at once."""
        hidden = self._hidden(rows)
        return self.down(hidden) if last_bias else product(hidden, self.down.weight)

    def of_zeros(self) -> Single:
        """What it makes of a row of zeros, without the last bias."""
        if type(self.up) is Linear:
            return product(F.gelu(self.up.bias)[None], self.down.weight)
        width = self.down.out_features
        return self(self.down.weight.new_zeros(1, width), last_bias=False)

    def _hidden(self, rows: Single) -> Float[Tensor, "rows hidden"]:
        if type(self.up) is Linear:
            return product_gelu(rows, self.up.weight, self.up.bias)
        return F.gelu(self.up(rows))  # an adapter stands in its place


class SpaceMoE(nn.Module):
    """A feed-forward in which every word's expert works where the word is looked at.

    Without norm and residual; the caller has them. Nothing is kept on the module from call to call.

    Source: RAPHAEL (arXiv:2305.18295), section 3.1:
    (1/n) sum_i e_route(y_i)(h * mask_i), with mask_i(j) = 1 where M(j, i) >= alpha max_j M(j, i). Computed as
    sum_k [w(j, k) e_k(h_j) + (W_k - w(j, k)) e_k(0)], with w(j, k) the summed weight 1/n of tokens sent to k whose mask
    covers j and W_k that of all tokens sent to k.
    """

    def __init__(self, width: int, text_width: int, config: SpaceMoEConfig) -> None:
        super().__init__()
        self.config = config
        self.gate = Gate(text_width, config.gate_width, config.experts, config.noise)
        self.experts = nn.ModuleList(
            Expert(width, config.ratio, bias=config.bias) for _ in range(config.experts)
        )

    def route(
        self, tokens: Tokens, mask: TokenMask, exploring: Exploring | None = None
    ) -> SpaceRoute:
        """Where the tokens of a prompt go: once per prompt, see `bottega.models.context.Context`."""
        return route_tokens(
            self.gate,
            tokens,
            mask,
            average=self.config.average,
            path=self.config.gate_path,
            exploring=exploring,
        )

    def cover(self, attention_map: TokenMap, route: SpaceRoute) -> Cover:
        """The weight of every expert at every position; pairs of weight 0 are never computed.

        The mask passes no gradient to the map. A token that nobody may look at has a map of zeros, all of which reach
        alpha times the largest: it covers everything, as printed (``real_tokens`` leaves it out).
        """
        if attention_map.shape[-1] != route.weights.shape[1]:
            raise InputError(
                f"the attention map has {attention_map.shape[-1]} tokens, the route was made for "
                f"{route.weights.shape[1]}; route the tokens that the map's layer reads"
            )
        seen = attention_map.detach()
        # Numbers from the first, and turned round: each halves the time.
        mask = torch.empty_like(seen, dtype=route.weights.dtype)
        torch.ge(seen, self.config.alpha * seen.amax(dim=1, keepdim=True), out=mask)
        with _unrounded(seen):
            return (route.weights.transpose(1, 2) @ mask.transpose(1, 2)).transpose(1, 2)

    def forward(self, x: Rows, attention_map: TokenMap, route: SpaceRoute) -> Rows:
        """Each position through the experts of the words it looks at; a route of one serves the whole batch."""
        if len(route.expert) not in (1, len(x)):
            raise InputError(
                f"the route is for {len(route.expert)} prompts, the batch has {len(x)} pictures"
            )
        weights = self.cover(attention_map, route)
        if not route.used:
            return torch.zeros_like(x)
        if self._is_small(x, route.used):
            return self._at_once(x, weights, route)
        return self._by_expert(x, weights, route)

    def _by_expert(self, x: Rows, weights: Cover, route: SpaceRoute) -> Rows:
        """One expert after the other, where it has a weight.

        An expert that has one everywhere is a dense pass, of which nothing is gathered. The last biases are the same at
        every position, W_k c_k over k, and are added once.
        """
        experts = {k: cast(Expert, self.experts[k]) for k in route.used}
        is_apart = self.config.bias and all(type(e.down) is Linear for e in experts.values())
        shares = weights.permute(2, 0, 1).flatten(1)
        flat = x.flatten(0, 1)
        mixed = x.new_zeros(x.shape, dtype=shares.dtype)  # wider than bf16
        if is_apart:
            mixed = mixed + self._biases(route).to(mixed.dtype)
        mixed = mixed.flatten(0, 1)
        active = _active(shares, route.used)
        padded = flat
        if self.config.bias and (not is_apart or any(rows is not None for rows in active.values())):
            # A row of zeros, so that e_k(0) comes with an expert's other rows, which are rounded up anyway.
            padded = torch.cat([flat, flat.new_zeros(1, flat.shape[1])])
        silent: dict[int, Tensor] = {}
        for k, rows in active.items():
            expert = experts[k]
            if rows is None:
                given = expert(flat if is_apart else padded, last_bias=not is_apart)
                zeros = expert.of_zeros() if is_apart else given[-1:]
                mixed.addcmul_(given[: len(flat)].to(mixed.dtype), shares[k, :, None])
            elif len(rows) > 0 or self.config.bias:
                given = expert(_gathered(padded, rows), last_bias=not is_apart)
                zeros = given[-1:]
                share = shares[k].index_select(0, rows)
                mixed.index_add_(0, rows, given[: len(rows)] * share[:, None])
            else:
                continue
            if self.config.bias:
                silent[k] = zeros[0].to(mixed.dtype)
        mixed = mixed.view_as(x)
        if silent:
            _add_elsewhere(mixed, weights, route, silent)
        return mixed.to(x.dtype)

    def _biases(self, route: SpaceRoute) -> Float[Tensor, "#batch 1 features"]:
        """The last biases of the experts, weighed by all that their tokens weigh."""
        used = torch.tensor(route.used, device=route.weights.device)
        total = route.weights.sum(dim=1).index_select(-1, used)
        experts = [cast(Expert, self.experts[k]) for k in route.used]
        said = torch.stack([e.down.bias for e in experts]).to(total.dtype)
        return (total[..., None] * said).sum(dim=1, keepdim=True)

    def _is_small(self, x: Rows, used: tuple[int, ...]) -> bool:
        """Whether starting products takes longer than doing them, as when a small picture is painted.

        It hangs on the size of a picture, never on their number, so that a picture is the same alone and in a batch.
        """
        inner = inner_width(x.shape[2], self.config.ratio)
        if torch.is_grad_enabled() or x.is_meta or x.shape[1] * x.shape[2] * inner > SMALL:
            return False
        experts = [cast(Expert, self.experts[k]) for k in used]
        return all(type(part) is Linear for e in experts for part in (e.up, e.down))

    def _at_once(self, x: Rows, weights: Cover, route: SpaceRoute) -> Rows:
        """All experts side by side in two products; the weights go in between.

        With V, c the second layer and g the GELU of the first, the sum is that of V_k [w(j, k) g_k(h_j) +
        (W_k - w(j, k)) g_k(0)] + W_k c_k over k. It is taken expert by expert, so that one which another picture of the
        batch needs adds nothing, not even by rounding.
        """
        experts = [cast(Expert, self.experts[k]) for k in route.used]
        used = torch.tensor(route.used, device=x.device)
        shares = weights.index_select(-1, used).flatten(0, 1)[..., None]
        bias = torch.cat([e.up.bias for e in experts]) if self.config.bias else None
        hidden = product_gelu(x.flatten(0, 1), torch.cat([e.up.weight for e in experts]), bias)
        hidden = hidden.unflatten(-1, (len(experts), -1)) * shares.to(x.dtype)
        total = route.weights.sum(dim=1).index_select(-1, used)
        if bias is not None:
            rest = total[:, None] - weights.index_select(-1, used)
            silent = F.gelu(bias).unflatten(0, (len(experts), -1))
            hidden = hidden.addcmul(rest.flatten(0, 1)[..., None].to(x.dtype), silent)
        down = torch.stack([e.down.weight for e in experts])
        mixed = torch.bmm(hidden.transpose(0, 1), down.transpose(1, 2)).sum(dim=0).view_as(x)
        if bias is not None:
            mixed = mixed + self._biases(route).to(x.dtype)
        return mixed.to(x.dtype)


class TimeMoE(nn.Module):
    """A feed-forward whose expert is chosen by the picture's noise level.

    Without norm and residual; the caller has them.

    Source: RAPHAEL (arXiv:2305.18295), section 3.2. The gate looks at the embedding of c_noise in place of t's.
    """

    def __init__(self, width: int, time_width: int, config: TimeMoEConfig) -> None:
        super().__init__()
        self.config = config
        self.gate = Gate(time_width, config.gate_width, config.experts, config.noise)
        self.experts = nn.ModuleList(
            Expert(width, config.ratio, bias=config.bias) for _ in range(config.experts)
        )

    def route(self, features: Vectors, exploring: Exploring | None = None) -> TimeRoute:
        """Which expert each noise level's embedding goes to."""
        return route_times(self.gate, features, path=self.config.gate_path, exploring=exploring)

    def forward(self, x: Rows, route: TimeRoute) -> Rows:
        """Each picture through its expert; a route of one serves the whole batch."""
        if len(route.expert) not in (1, len(x)):
            raise InputError(
                f"the route is for {len(route.expert)} pictures, the batch has {len(x)}"
            )
        factor = route.factor[:, None, None].to(x.dtype)
        if len(route.used) == 1 or x.is_meta:
            given = self.experts[route.used[0]](x.flatten(0, 1)).view_as(x)
            return given.to(x.dtype) * factor
        mixed = torch.empty_like(x)
        for k in route.used:
            images = (route.expert == k).nonzero()[:, 0]
            given = self.experts[k](x.index_select(0, images).flatten(0, 1))
            given = given.view(len(images), *x.shape[1:]).to(x.dtype)
            mixed.index_copy_(0, images, given * factor.index_select(0, images))
        return mixed


def _unrounded(tensor: Tensor) -> AbstractContextManager[object]:
    """Products of counts, which autocast would round to bf16, are left as they are."""
    kind = tensor.device.type
    if tensor.is_meta or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def _active(
    shares: Float[Tensor, "experts positions"], used: tuple[int, ...]
) -> dict[int, Tensor | None]:
    """The positions at which each used expert has a weight; None where it is to run over all of them.

    That is also where it has one at nearly all: to gather the rows and to add them back would take longer.
    """
    if shares.is_meta:
        return dict.fromkeys(used)
    active = shares.detach() > 0
    counts = active.sum(dim=1).tolist()
    enough = shares.shape[1] - shares.shape[1] // NEARLY_ALL
    if all(counts[k] >= enough for k in used):
        return dict.fromkeys(used)
    rows = active.nonzero()[:, 1].split(counts)
    return {k: None if counts[k] >= enough else rows[k] for k in used}


def _gathered(flat: Single, rows: Int[Tensor, "picked"]) -> Float[Tensor, "rounded features"]:
    """Those rows, then the last one once or more often.

    Every new number of rows costs oneDNN a kernel made for it, about a millisecond: rounded up, there are few.
    """
    granule = max(16, 1 << (len(flat) // 128).bit_length())
    size = -(-(len(rows) + 1) // granule) * granule
    padded = rows.new_full((size,), len(flat) - 1)
    padded[: len(rows)] = rows
    return flat.index_select(0, padded)


def _add_elsewhere(
    mixed: Rows, weights: Cover, route: SpaceRoute, silent: dict[int, Tensor]
) -> None:
    """Add what experts with biases say where a token of theirs does not look: e_k(0), as the printed sum has it."""
    used = torch.tensor(list(silent), device=weights.device)
    rest = (route.weights.sum(dim=1, keepdim=True) - weights).index_select(-1, used)
    said = torch.stack(list(silent.values())).expand(len(rest), -1, -1)
    with _unrounded(weights):
        mixed.baddbmm_(rest, said)


__all__ = ["Cover", "Expert", "SpaceMoE", "TimeMoE", "TokenMap"]
