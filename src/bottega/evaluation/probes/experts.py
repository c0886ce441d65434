"""Do a network's experts matter? Words and noise levels are sent to other experts, and the error is compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bottega.condition import Condition
from bottega.diffusion import Denoiser, TimestepDenoiser
from bottega.errors import InputError
from bottega.evaluation.intervals import Interval, bootstrap
from bottega.evaluation.routes import network_of, noise_told
from bottega.models import SpaceRoute, TimeRoute
from bottega.models.context import Context
from bottega.models.foreseen import TimeRoutes
from bottega.seeding import generator
from bottega.shapes import Images

Kind = Literal["space", "time"]


@dataclass(frozen=True, kw_only=True)
class Misrouted:
    """How much larger the error becomes when one kind of choice is made by chance: 0.1 is a tenth.

    ``block`` counts the blocks with experts from 0; None stands for all of them at once. ``likely`` is the mean's 95%
    interval over pictures.
    """

    kind: Kind
    block: int | None
    growth: float
    likely: Interval


def misroute(
    denoiser: Denoiser | TimestepDenoiser,
    clean: Images,
    condition: Condition,
    sigmas: Sequence[float],
    *,
    seed: int = 0,
    block_by_block: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Misrouted]:
    """Denoise pictures with their own routes, and with routes that lead to any other expert.

    A token, or a noise level, goes to an expert drawn evenly from those that it was not meant for; how much it weighs
    stays. An error is the mean square difference to the clean picture, compared picture by picture and averaged over
    noise levels; experts that have become alike make it grow by nothing.

    Args:
        denoiser: Its network has experts, see `bottega.evaluation.routes.routed`.
        clean: What the denoiser is to find.
        condition: The pictures' words.
        sigmas: Noise levels, the same unit noise at all of them.
        seed: Of that noise and of the draws.
        block_by_block: Ask of every block, too, and not of all blocks at once alone.
        progress: Told how many of how many comparisons are done.

    Raises:
        InputError: For no or non-positive noise levels, or a network in which there is no choice.
    """
    if not sigmas or min(sigmas) <= 0:
        raise InputError(f"noise levels to denoise at are above 0, got {list(sigmas)}")
    blocks = network_of(denoiser).expert_blocks
    places: list[tuple[Kind, int]] = []
    for place, block in enumerate(blocks):
        if block.space is not None and len(block.space.experts) > 1:
            places.append(("space", place))
        if block.time is not None and len(block.time.experts) > 1:
            places.append(("time", place))
    if not places:
        raise InputError("no block of this network has experts to choose between")
    kinds: dict[Kind, None] = dict.fromkeys(kind for kind, _ in places)
    asked: list[tuple[Kind, int | None]] = [(kind, None) for kind in kinds]
    asked += places if block_by_block else []
    eps = torch.randn(clean.shape, generator=generator(seed, "probe", "experts")).to(clean)
    found: list[Misrouted] = []
    with torch.no_grad():
        context = denoiser.prepare(condition)
        own = _errors(denoiser, clean, eps, sigmas, context, None)
        for done, (kind, block) in enumerate(asked):
            draw = generator(seed, "probe", "misroute", kind, -1 if block is None else block)
            here = range(len(blocks)) if block is None else (block,)
            other = _errors(denoiser, clean, eps, sigmas, context, _Detour(kind, here, draw))
            growth = (other / own - 1).mean(dim=0)
            likely = bootstrap(growth.tolist())
            found.append(
                Misrouted(kind=kind, block=block, growth=float(growth.mean()), likely=likely)
            )
            if progress is not None:
                progress(done + 1, len(asked))
    return found


class _Detour:
    """Changes the routes of some blocks."""

    def __init__(self, kind: Kind, blocks: Sequence[int], draw: torch.Generator) -> None:
        self.kind, self.blocks, self._draw = kind, frozenset(blocks), draw

    def of_words(self, context: Context) -> Context:
        """The context with words on the wrong way."""
        if self.kind != "space":
            return context
        changed = [
            self._misled(route) if route is not None and place in self.blocks else route
            for place, route in enumerate(context.routes)
        ]
        return replace(context, routes=tuple(changed))

    def of_noise(self, routes: TimeRoutes) -> TimeRoutes:
        """Noise levels on the wrong way."""
        if self.kind != "time":
            return routes
        return tuple(
            self._late(route) if route is not None and place in self.blocks else route
            for place, route in enumerate(routes)
        )

    def _misled(self, route: SpaceRoute) -> SpaceRoute:
        experts = route.probabilities.shape[-1]
        wrong = self._other(route.expert, experts)
        heavy = F.one_hot(wrong, experts) * route.weights.sum(dim=-1, keepdim=True)
        used = (heavy > 0).flatten(0, 1).any(dim=0).nonzero()[:, 0].tolist()
        return replace(route, expert=wrong, weights=heavy.to(route.weights), used=tuple(used))

    def _late(self, route: TimeRoute) -> TimeRoute:
        wrong = self._other(route.expert, route.probabilities.shape[-1])
        return replace(route, expert=wrong, used=tuple(sorted(set(wrong.tolist()))))

    def _other(self, expert: Int[Tensor, "*rows"], experts: int) -> Int[Tensor, "*rows"]:
        if experts == 1:
            return expert
        step = torch.randint(1, experts, expert.shape, generator=self._draw).to(expert)
        return (expert + step) % experts


def _errors(
    denoiser: Denoiser | TimestepDenoiser,
    clean: Images,
    eps: Images,
    sigmas: Sequence[float],
    context: Context,
    detour: _Detour | None,
) -> Float[Tensor, "levels batch"]:
    """The mean square error of every picture at every noise level."""
    network = network_of(denoiser)
    told = context if detour is None else detour.of_words(context)
    rows: list[Tensor] = []
    for level in sigmas:
        sigma = torch.full((len(clean),), float(level), device=clean.device)
        times = network.time_routes(noise_told(denoiser, sigma))
        led = times if detour is None else detour.of_noise(times)
        given = denoiser(clean + level * eps, sigma, told.with_times(led))
        rows.append((given.float() - clean).square().flatten(1).mean(dim=1))
    return torch.stack(rows)


__all__ = ["Misrouted", "misroute"]
