"""The experts of a whole walk's noise levels, worked out before its first step."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from bottega.models.moe_gates import TimeRoute

TimeRoutes = tuple[TimeRoute | None, ...]
"""The expert that a noise level goes to in every block that has experts, None in one that has none for noise."""

_SAME = 1e-5
"""How far two noise levels may be apart and still be one, as the rounding of c_noise leaves them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ForeseenTimes:
    """Time routes by noise level.

    Asking gates is many small products and, on a GPU, a wait per block, at every step; asked for all steps at once
    they cost what one step did.
    """

    levels: tuple[float, ...]
    routes: tuple[TimeRoutes, ...]

    @staticmethod
    def of(c_noise: Float[Tensor, "levels"], routes: TimeRoutes) -> "ForeseenTimes":
        """Take apart what gates said of all ``c_noise`` at once."""
        apart = [_apart(route, len(c_noise)) for route in routes]
        return ForeseenTimes(
            levels=tuple(c_noise.tolist()), routes=tuple(zip(*apart, strict=True)) if apart else ()
        )

    def at(self, c_noise: Float[Tensor, "batch"]) -> TimeRoutes | None:
        """The routes of a call whose pictures all have one of the levels; None for any other call."""
        first, *others = c_noise.tolist()
        if not self.routes or any(other != first for other in others):
            return None
        place = min(range(len(self.levels)), key=lambda i: abs(self.levels[i] - first))
        if abs(self.levels[place] - first) > _SAME * max(1.0, abs(first)):
            return None
        return self.routes[place]


def _apart(route: TimeRoute | None, count: int) -> list[TimeRoute | None]:
    """One route per level, each of which serves a whole batch; views of what was there."""
    if route is None:
        return [None] * count
    chosen: list[int] = route.expert.tolist()
    return [
        TimeRoute(
            expert=route.expert[i : i + 1],
            probabilities=route.probabilities[i : i + 1],
            factor=route.factor[i : i + 1],
            used=(chosen[i],),
        )
        for i in range(count)
    ]


__all__ = ["ForeseenTimes", "TimeRoutes"]
