"""Which expert denoiser works in which step, and grids that give each as many steps as asked for."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from bottega.diffusion.grids import checked
from bottega.diffusion.samplers import find_sampler
from bottega.diffusion.timesteps import TrainingNoise
from bottega.ensemble.tree import Part, Tile, find_tile, tiles
from bottega.errors import InputError, nearest
from bottega.shapes import Images, Sigmas


class NetworkCall(NamedTuple):
    """One call of the network on a walk: in which step (from 1), at which noise level, and who answers."""

    step: int
    sigma: float
    expert: str


def steps_table(
    parts: Mapping[str, Part],
    noise: TrainingNoise,
    sigmas: Sequence[float],
    sampler: str = "dpmpp_2m",
) -> tuple[NetworkCall, ...]:
    """Every call that a sampler will make, found by letting it walk without a network.

    Args:
        parts: The noise of each expert denoiser by its name, as `Mixture.parts` gives them.
        noise: What their parent was trained with.
        sigmas: The grid.
        sampler: Its name; with two or three calls per step, each is a row of its own.

    Raises:
        ConfigError: When the parts do not tile all noise, or the sampler is not known.
        InputError: When ``sigmas`` cannot be walked.
    """
    tiling, names = tiles(list(parts.values()), noise), list(parts)
    calls: list[NetworkCall] = []
    step = 1

    def listen(x: Images, sigma: Sigmas) -> Images:
        level = float(sigma[0])
        calls.append(NetworkCall(step, level, names[find_tile(tiling, level).part]))
        return x

    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    walk = find_sampler(sampler)(listen, x, sigmas, noise=lambda: torch.zeros_like(x))
    for _ in walk:
        step += 1
    return tuple(calls)


def steps_per_expert(calls: Sequence[NetworkCall]) -> dict[str, int]:
    """How many steps each expert denoiser begins, from the strongest noise to the lowest."""
    first_calls = {call.step: call for call in reversed(calls)}
    counts: dict[str, int] = {}
    for step in sorted(first_calls):
        name = first_calls[step].expert
        counts[name] = counts.get(name, 0) + 1
    return counts


def grid_with_steps_per_expert(
    parts: Mapping[str, Part],
    noise: TrainingNoise,
    steps: Mapping[str, int],
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> list[float]:
    """Noise levels with as many steps for each expert denoiser as asked for, and 0 after the last.

    A step is that of the expert denoiser at its start. Inside each interval the levels are evenly spaced in
    sigma^(1/rho), as on a Karras grid; the first is the interval's strongest noise, so each change of hands is at the
    bound. With 0 steps an interval is leapt over. Who owns several intervals has its steps shared among them by their
    length there.

    Args:
        parts: The noise of each expert denoiser by its name.
        noise: What their parent was trained with.
        steps: How many for each name; one for whoever owns ``sigma_max`` at least.
        sigma_min: The last level before 0.
        sigma_max: The first level.
        rho: Bends the levels towards the low ones, as in `karras`.

    Raises:
        ConfigError: When the parts do not tile all noise.
        InputError: When a name is unknown or missing, a number of steps makes no sense, or the noise of an expert
            denoiser lies outside ``sigma_min`` to ``sigma_max`` and it shall have steps.
    """
    if not (0 < sigma_min < sigma_max < math.inf and 0 < rho < math.inf):
        raise InputError(
            f"a grid needs 0 < sigma_min < sigma_max and rho above 0, got {sigma_min}, {sigma_max} and {rho}"
        )
    _check_names(parts, steps)
    tiling = tiles(list(parts.values()), noise)
    spans = [_Span.of(tile, sigma_min, sigma_max, rho) for tile in tiling]
    visited = [span for span in spans if span is not None]
    counts = [0] * len(visited)
    for index, name in enumerate(parts):
        own = [place for place, span in enumerate(visited) if span.part == index]
        if not own and steps[name]:
            raise InputError(
                f"{name} has no noise between {sigma_min} and {sigma_max}, so it can have no steps"
            )
        lengths = [visited[place].length for place in own]
        for place, share in zip(own, _shared(steps[name], lengths), strict=True):
            counts[place] = share
    if counts[-1] == 0:
        raise InputError(
            f"{list(parts)[visited[-1].part]} owns sigma_max = {sigma_max}, where the walk begins: "
            "it needs at least one step"
        )
    levels = [
        level
        for place in reversed(range(len(visited)))
        for level in visited[place].levels(counts[place], rho, is_last=place == 0)
    ]
    sigmas = [sigma_max, *levels[1:], 0.0]
    checked(torch.tensor(sigmas).tolist())  # a network is called with float32
    return checked(sigmas)


class _Span(NamedTuple):
    """The part of a tile that a grid visits; ``low`` and ``high`` are sigma^(1/rho)."""

    part: int
    low: float
    high: float

    @classmethod
    def of(cls, tile: Tile, sigma_min: float, sigma_max: float, rho: float) -> "_Span | None":
        if tile.low > sigma_max or tile.high <= sigma_min:
            return None
        low = max(tile.low, sigma_min)
        # A tile's upper bound belongs to the one above: take the next float32 below it.
        high = sigma_max if tile.high > sigma_max else _below(tile.high)
        return cls(tile.part, low ** (1 / rho), high ** (1 / rho)) if low <= high else None

    @property
    def length(self) -> float:
        return self.high - self.low

    def levels(self, count: int, rho: float, *, is_last: bool) -> list[float]:
        """Where the steps of this interval begin; the last interval of a walk also visits its lower end."""
        gaps = max(count - 1, 1) if is_last else count
        return [(self.high - k / gaps * self.length) ** rho for k in range(count)]


def _shared(total: int, lengths: Sequence[float]) -> list[int]:
    """Whole shares of ``total`` in proportion to ``lengths``, by the largest remainders."""
    whole = sum(lengths)
    exact = [total * (length / whole if whole else 1 / len(lengths)) for length in lengths]
    shares = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: shares[place] - exact[place])
    for place in by_remainder[: total - sum(shares)]:
        shares[place] += 1
    return shares


def _check_names(parts: Mapping[str, Part], steps: Mapping[str, int]) -> None:
    for name, count in steps.items():
        if name not in parts:
            raise InputError(f"there is no expert denoiser {name}{nearest(name, parts)}")
        if count < 0:
            raise InputError(f"{name}: a number of steps is 0 or more, got {count}")
    missing = [name for name in parts if name not in steps]
    if missing:
        raise InputError(
            f"the number of steps is missing for {', '.join(missing)}; 0 leaves it out"
        )


def _below(sigma: float) -> float:
    return float(torch.nextafter(torch.tensor(sigma), torch.tensor(0.0)))


__all__ = ["NetworkCall", "grid_with_steps_per_expert", "steps_per_expert", "steps_table"]
