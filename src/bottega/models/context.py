"""What a prompt becomes before the first step: text rows, keys and values, one vector, the picture to enlarge."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bottega.condition import Condition, Stream
from bottega.errors import InputError
from bottega.models.attention import AttendMask, KeysValues, LogitBias, RowBias, Segments
from bottega.models.control import Control
from bottega.models.foreseen import ForeseenTimes, TimeRoutes
from bottega.models.layers import Changed, Embedding, Features
from bottega.models.moe_gates import SpaceRoute
from bottega.models.pools import pool_for, pooled_vector
from bottega.models.unet_config import PooledVector, StreamPlan, UNetConfig
from bottega.shapes import Tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """Everything of a condition that does not depend on the noisy picture, computed once per prompt.

    A context prepared for one picture serves a whole batch. ``segments`` says which keys belong to which stream;
    key 0 is the learned null token, where there is one. ``low_res`` has been through the first convolution already.
    ``controls`` add to what the way down hands to the way up, at every call. ``routes`` say which expert every token
    goes to, per block that has experts and None where these are chosen by noise alone. ``times`` say which expert a
    noise level goes to, where that was worked out beforehand for the very noise levels of the call; ``foreseen`` has
    the same for all noise levels of a walk. ``spread`` is not
    read by a network, but by a denoiser that finds a learned variance in what the network gives.
    """

    layers: tuple[KeysValues, ...] = ()
    mask: AttendMask | None = None
    vector: Embedding | None = None
    low_res: Features | None = None
    enlarged: Changed | None = None
    segments: Segments = ()
    bias: LogitBias | None = None
    controls: tuple[Control, ...] = ()
    routes: tuple[SpaceRoute | None, ...] = ()
    times: TimeRoutes | None = None
    foreseen: ForeseenTimes | None = None
    spread: Any = None

    def select(self, indices: Sequence[int] | Int[Tensor, "picked"]) -> "Context":
        """The context of some of the pictures, in the order asked for."""
        picked = torch.as_tensor(indices, dtype=torch.long)

        def pick(tensor: Tensor) -> Tensor:
            return tensor if len(tensor) == 1 else tensor[picked.to(tensor.device)]

        return replace(
            self,
            layers=tuple(KeysValues(pick(k), pick(v)) for k, v in self.layers),
            mask=None if self.mask is None else pick(self.mask),
            vector=None if self.vector is None else pick(self.vector),
            low_res=None if self.low_res is None else pick(self.low_res),
            enlarged=None if self.enlarged is None else pick(self.enlarged),
            bias=self.bias.select(picked.tolist()) if isinstance(self.bias, RowBias) else self.bias,
            controls=tuple(control.select(picked.tolist()) for control in self.controls),
            routes=tuple(None if r is None else r.select(picked) for r in self.routes),
            times=None
            if self.times is None
            else tuple(None if t is None else t.select(picked) for t in self.times),
        )

    def with_bias(self, bias: LogitBias | None) -> "Context":
        """The same context with its text logits changed by ``bias`` in every layer that reads text."""
        return replace(self, bias=bias)

    def with_spread(self, spread: Any) -> "Context":
        """The same context with where to keep what the network says of a variance that it learned."""
        return replace(self, spread=spread)

    def with_control(self, control: Control) -> "Context":
        """The same context with one control more."""
        return replace(self, controls=(*self.controls, control))

    def with_times(self, times: TimeRoutes) -> "Context":
        """The same context for a call whose noise levels go to these experts."""
        return replace(self, times=times)

    def times_at(self, c_noise: Float[Tensor, "levels"]) -> TimeRoutes | None:
        """The experts that these noise levels go to, if that is known already."""
        if self.times is not None or self.foreseen is None:
            return self.times
        return self.foreseen.at(c_noise)


class StreamReader(nn.Module):
    """One stream's way in: its tokens to the common width, and its vector to the time embedding."""

    def __init__(self, plan: StreamPlan, context_width: int, time_width: int) -> None:
        super().__init__()
        self.plan = plan
        self.norm = nn.LayerNorm(plan.width) if plan.norm else None
        self.project = nn.Linear(plan.width, context_width) if plan.project else None
        self.pool = pool_for(plan, time_width)

    def tokens(self, stream: Stream, dtype: torch.dtype) -> Tokens:
        """The stream's tokens at the common width."""
        tokens = stream.tokens.to(dtype)
        if tokens.shape[-1] != self.plan.width:
            raise InputError(
                f"stream {self.plan.name} is {tokens.shape[-1]} wide, "
                f"this network was built for {self.plan.width}"
            )
        if self.norm is not None:
            tokens = self.norm(tokens)
        return tokens if self.project is None else self.project(tokens)

    def vector(
        self, stream: Stream, numbers: Float[Tensor, "batch numbers"] | None, dtype: torch.dtype
    ) -> Embedding | None:
        """What is added to the time embedding, if anything."""
        if self.pool is None:
            return None
        return pooled_vector(self.pool, self.plan.name, stream, numbers, dtype)


class ContextReader(nn.Module):
    """All streams, and the learned null token that can always be looked at, where the network has one."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.null: nn.Parameter | None = None
        if config.null_token:
            self.null = nn.Parameter(torch.randn(1, 1, config.context_width) * 0.02)
        self.streams = nn.ModuleDict(
            {
                plan.name: StreamReader(plan, config.context_width, config.time_width)
                for plan in config.streams
            }
        )

    def forward(
        self, condition: Condition, like: Tensor
    ) -> tuple[Tokens, Bool[Tensor, "batch keys"], Embedding | None, Segments]:
        """Rows to make keys and values of, which of them are real, the pooled vector, and whose each row is.

        A stream the condition lacks says nothing, which is what a dropped stream says too. Everything is made in the
        type and on the device of ``like``.
        """
        known = [name for name in self.streams if name in condition.streams]
        if condition.streams and not known:
            raise InputError(
                f"this network reads {sorted(self.streams)}, the condition has "
                f"{sorted(condition.streams)}"
            )
        batch = max(condition.batch_size, 1)
        rows: list[Tensor] = []
        masks: list[Tensor] = []
        vectors: list[Tensor] = []
        segments: list[tuple[str, int, int]] = []
        end = 0
        if self.null is not None:
            rows.append(self.null.expand(batch, -1, -1))
            masks.append(torch.ones(batch, 1, dtype=torch.bool, device=like.device))
            segments.append(("null", 0, 1))
            end = 1
        for name, reader in self.streams.items():
            assert isinstance(reader, StreamReader)
            stream = condition.streams.get(name)
            if stream is None:
                stream = _silent(reader.plan, batch, like)
            else:
                rows.append(reader.tokens(stream, like.dtype))
                masks.append(stream.mask)
                segments.append((name, end, end + stream.tokens.shape[1]))
                end += stream.tokens.shape[1]
            vector = reader.vector(stream, condition.numbers, like.dtype)
            if vector is not None:
                vectors.append(vector)
        if not rows:
            raise InputError(f"this network must be given a text: a stream {sorted(self.streams)}")
        pooled = torch.stack(vectors).sum(dim=0) if vectors else None
        return torch.cat(rows, dim=1), torch.cat(masks, dim=1), pooled, tuple(segments)


def _silent(plan: StreamPlan, batch: int, like: Tensor) -> Stream:
    """A stream that was not given: one masked token of zeros."""
    pooled = None
    if isinstance(plan.pool, PooledVector):
        pooled = like.new_zeros(batch, plan.pool.width)
    return Stream(
        tokens=like.new_zeros(batch, 1, plan.width),
        mask=torch.zeros(batch, 1, dtype=torch.bool, device=like.device),
        pooled=pooled,
    )
