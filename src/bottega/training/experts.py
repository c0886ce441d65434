"""Training a network that has experts: its gates explore, their loads are evened out, and a collapse is noticed."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bottega.condition import Condition
from bottega.data import Batch
from bottega.errors import ConfigError, InputError
from bottega.journal import Journal
from bottega.models import Context, UNet
from bottega.models.attention import AttentionMap
from bottega.models.layers import Changed, Features
from bottega.models.moe_gates import Exploring, SpaceRoute, TimeRoute
from bottega.models.moe_load import CollapseWarning, ExpertLoad, Route, balance_loss
from bottega.models.moe_load import warn_of_collapse as warn_of
from bottega.training.hooks import Hook
from bottega.training.objective import Loss, Objective
from bottega.training.state import StepReport, TrainState

Kind = Literal["space", "time"]
"""Experts chosen by words, or by noise levels."""

KINDS: tuple[Kind, ...] = ("space", "time")


@dataclass(kw_only=True)
class Progress:
    """How far a run is; its hook tells its objective."""

    images_seen: int = 0


class Explored(nn.Module):
    """A network for the length of one call: its gates explore, and where they sent words and noise is kept.

    It is prepared and called as the network is, which may be wrapped itself, so that objectives need not know.
    """

    def __init__(self, network: nn.Module, exploring: Exploring) -> None:
        super().__init__()
        self.network = network
        self.exploring = exploring
        self.routes: dict[Kind, list[Route]] = {kind: [] for kind in KINDS}
        self._unet = (unet_in(network),)  # not a second home for its parameters

    def prepare(self, condition: Condition) -> Context:
        """As the network does, with noise on the gates."""
        context: Context = cast(Any, self.network).prepare(condition, self.exploring)
        self.routes["space"] += _present(context.routes)
        return context

    def forward(
        self,
        x: Features,
        c_noise: Float[Tensor, "batch"],
        context: Context,
        *,
        maps: list[AttentionMap] | None = None,
    ) -> Changed:
        """What the network says, with noise on the gates."""
        times = self._unet[0].time_routes(c_noise, self.exploring)
        self.routes["time"] += _present(times)
        collect = {} if maps is None else {"maps": maps}
        return self.network(x, c_noise, context.with_times(times), **collect)


@dataclass(frozen=True, kw_only=True)
class ExpertsObjective:
    """Another objective's loss, and ``balance`` times that of uneven loads, averaged over layers of both kinds.

    The metrics hold the first objective's own ``denoising_loss``, and a table per kind, ``space_load`` and
    ``time_load``: how many choices fell on each expert (columns) of each layer (rows). ``space_sure`` and ``time_sure``
    are how sure each layer's gate was of them, see `sureness`.

    Source: RAPHAEL (arXiv:2305.18295) names no loss that evens out loads; ours is the Switch Transformer's, see
    `bottega.models.moe_load.balance_loss`.
    """

    objective: Objective
    balance: float = 0.01
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        if not 0 <= self.balance < float("inf"):
            raise ConfigError(f"balance must be finite and not negative, got {self.balance}")

    def __call__(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        """The sum of both losses; ``per_image`` is the first one's alone."""
        exploring = Exploring(images_seen=self.progress.images_seen, generator=generator)
        explored = Explored(network, exploring)
        found = self.objective(explored, batch, generator)
        metrics: dict[str, Tensor] = {}
        total = found.total
        for kind, routes in explored.routes.items():
            if not routes:
                continue
            uneven = balance_loss(routes)
            total = total + self.balance * uneven.to(total.dtype)
            metrics |= {
                f"{kind}_balance": uneven,
                f"{kind}_load": load_table(routes),
                f"{kind}_sure": sureness(routes),
            }
        metrics = {"denoising_loss": found.total, **found.metrics, **metrics}
        return replace(found, total=total, metrics=metrics)


def load_table(routes: Sequence[Route]) -> Float[Tensor, "layers experts"]:
    """How many tokens, padding left out, or pictures went to each expert of each layer; nothing waits for a device.

    A layer of fewer experts than another has NaN in their place.
    """
    if not routes:
        raise InputError("a table of loads needs at least one route, got none")
    most = max(route.probabilities.shape[-1] for route in routes)
    rows: list[Tensor] = []
    for route in routes:
        num_experts = route.probabilities.shape[-1]
        chosen = F.one_hot(route.expert, num_experts)
        if isinstance(route, SpaceRoute):
            chosen = chosen * route.real[..., None]
        counts = chosen.flatten(0, -2).sum(dim=0).float()
        rows.append(F.pad(counts, (0, most - num_experts), value=float("nan")))
    return torch.stack(rows)


def sureness(routes: Sequence[Route]) -> Float[Tensor, "layers"]:
    """The mean probability that each layer's gate gave to what it chose, padding left out.

    With k experts, 1/k is a gate that cannot tell them apart: noise chooses, and a load as even as can be says nothing.
    """
    rows: list[Tensor] = []
    for route in routes:
        chosen = route.probabilities.gather(-1, route.expert[..., None])[..., 0]
        if isinstance(route, SpaceRoute):
            real = route.real.to(chosen.dtype)
            rows.append((chosen * real).sum() / real.sum().clamp(min=1))
        else:
            rows.append(chosen.mean())
    return torch.stack(rows).detach().float()


def unet_in(network: nn.Module) -> UNet:
    """The U-Net itself, in whatever it is wrapped.

    Raises:
        InputError: If there is none.
    """
    for module in network.modules():
        if isinstance(module, UNet):
            return module
    raise InputError(f"experts are those of a U-Net, got a {type(network).__name__}")


class ExpertsHook(Hook):
    """Keeps the objective's progress, and writes the load of every expert into the journal from the first step on."""

    def __init__(self, progress: Progress, *, every_images: int) -> None:
        """Write each time this many images have been seen, and after the first step."""
        super().__init__(every_images=every_images)
        self._progress = progress
        self._sums: dict[Kind, Tensor] = {}
        self._sure: dict[Kind, list[Tensor]] = {}
        self._is_first = True

    def begin(self, state: TrainState) -> None:
        """Go on where the run is."""
        self._progress.images_seen = state.images_seen

    def observe(self, state: TrainState, report: StepReport) -> None:
        """Add up one step's loads."""
        self._progress.images_seen = report.images_seen
        for kind in KINDS:
            load = report.metrics.get(f"{kind}_load")
            if load is not None:
                before = self._sums.get(kind)
                self._sums[kind] = load.detach() if before is None else before + load.detach()
                self._sure.setdefault(kind, []).append(report.metrics[f"{kind}_sure"])
        if self._is_first:
            self._is_first = False
            self._write(state)

    def fire(self, state: TrainState) -> None:
        """Write what was added up since the last time, and begin anew."""
        self._write(state)
        self._sums, self._sure = {}, {}

    def _write(self, state: TrainState) -> None:
        if not self._sums:
            return
        sums = {kind: table.clone() for kind, table in self._sums.items()}
        sure = {kind: torch.stack(rows).mean(dim=0) for kind, rows in self._sure.items()}
        state.engine.average([*sums.values(), *sure.values()])
        if state.engine.rank != 0:
            return
        tables = {kind: expert_loads(table) for kind, table in sums.items()}
        record: dict[str, Any] = {"event": "experts", "images_seen": state.images_seen}
        said: list[str] = []
        for kind, loads in tables.items():
            record[kind] = {
                "load": [[round(share, 4) for share in load.shares] for load in loads],
                "entropy": [round(load.entropy, 4) for load in loads],
                "sure": [round(value, 4) for value in sure[kind].tolist()],
                "dead": [list(load.dead) for load in loads],
            }
            named = {f"{kind}-MoE of block {n}": load for n, load in enumerate(loads, start=1)}
            said += _warned(named)
        if said:
            record["warnings"] = said
        Journal(state.run.journal).append(record)


def expert_loads(table: Float[Tensor, "layers experts"]) -> list[ExpertLoad]:
    """A table of loads, layer by layer."""
    present = [[count for count in row if not math.isnan(count)] for row in table.tolist()]
    return [ExpertLoad(counts=tuple(round(count) for count in row)) for row in present]


def _warned(loads: Mapping[str, ExpertLoad]) -> list[str]:
    """Warn of layers that have collapsed, and say what was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of(loads)
    said = [str(item.message) for item in caught]
    if said:
        more = f" (and {len(said) - 1} more layers)" if len(said) > 1 else ""
        warnings.warn(f"{said[0]}{more}", CollapseWarning, stacklevel=2)
    return said


def _present(routes: Sequence[SpaceRoute | None] | Sequence[TimeRoute | None]) -> list[Route]:
    return [route for route in routes if route is not None]


__all__ = [
    "KINDS",
    "ExpertsHook",
    "ExpertsObjective",
    "Explored",
    "Kind",
    "Progress",
    "expert_loads",
    "load_table",
    "sureness",
    "unet_in",
]
