"""Expert denoisers that share the noise among them, called like one denoiser."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bottega.condition import Condition
from bottega.diffusion.denoiser import Denoise, DenoiserLike
from bottega.diffusion.timesteps import TrainingNoise
from bottega.ensemble.residency import ActiveResident, AllResident, Loader, Residency
from bottega.ensemble.tree import Part, find_tile, tiles
from bottega.errors import ConfigError, InputError, nearest
from bottega.shapes import Images, Sigmas


@dataclass(frozen=True, kw_only=True, eq=False)
class Expert:
    """An expert denoiser: its name, the noise it is for, and the denoiser or what loads it."""

    name: str
    part: Part
    denoiser: DenoiserLike | Loader


class MixtureContext:
    """What a prompt becomes for each expert denoiser; made when one is first called, and kept."""

    def __init__(self, prepare: Callable[[int], Any], names: Sequence[str] = ()) -> None:
        """``prepare`` gives the context for the expert denoiser of that index, and is called once for each.

        Args:
            prepare: Called when an expert denoiser is first called.
            names: What the expert denoisers are called, in the order of their indices.
        """
        self._prepare = prepare
        self._names = tuple(names)
        self._prepared: dict[int, Any] = {}

    def of(self, index: int) -> Any:
        """The context of one expert denoiser, in its own network's form."""
        if index not in self._prepared:
            self._prepared[index] = self._prepare(index)
        return self._prepared[index]

    def select(self, indices: Sequence[int] | Int[Tensor, "picked"]) -> "MixtureContext":
        """The context of some of the pictures, in the order asked for."""
        return MixtureContext(lambda i: _changed(self.of(i), "select", indices), self._names)

    def with_bias(self, bias: Any) -> "MixtureContext":
        """The same context with its text logits changed by ``bias``, whichever expert denoiser works."""
        return MixtureContext(lambda i: _changed(self.of(i), "with_bias", bias), self._names)

    def with_spread(self, spread: Any) -> "MixtureContext":
        """The same context with where to keep a learned variance, whichever expert denoiser works."""
        return MixtureContext(lambda i: _changed(self.of(i), "with_spread", spread), self._names)

    def with_control(self, control: Any, parts: Sequence[str] = ()) -> "MixtureContext":
        """The same context with one control more, for the expert denoisers of these names, or for all."""

        def steered(index: int) -> Any:
            if parts and self._names[index] not in parts:
                return self.of(index)
            return _changed(self.of(index), "with_control", control)

        return MixtureContext(steered, self._names)


class Mixture(nn.Module):
    """Several expert denoisers as one: every call goes to the one whose noise it is, by the call's own sigma.

    So a sampler's stages inside a step, and levels above and below its grid, find their expert denoisers too. Images at
    different noise levels may stand in one batch: it is split, and joined in the order it had.

    Source: eDiff-I (arXiv:2211.01324), section 4.1. We differ in that a part may also be given by two sigmas.
    """

    def __init__(
        self, experts: Sequence[Expert], noise: TrainingNoise, *, residency: str = "all"
    ) -> None:
        """Take the expert denoisers in any order.

        Args:
            experts: Their parts lie side by side from sigma 0 to infinity.
            noise: What their parent was trained with; nodes are cut from it.
            residency: ``all`` keeps every one in memory, ``active`` the one at work, with the next on its way.

        Raises:
            ConfigError: When a sigma belongs to none or to two, a name is used twice, or ``residency`` is not known.
        """
        super().__init__()
        if residency not in get_args(Residency):
            raise ConfigError(
                f"residency {residency!r} is not known{nearest(residency, get_args(Residency))}"
            )
        self.experts = tuple(experts)
        names = [expert.name for expert in self.experts]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two expert denoisers are called {name}")
        self.noise = noise
        self.tiling = tiles([expert.part for expert in self.experts], noise)
        self._lows = [tile.low for tile in self.tiling]
        sources = [expert.denoiser for expert in self.experts]
        self.holder = (
            AllResident(sources)
            if residency == "all"
            else ActiveResident(sources, first=self.tiling[-1].part)
        )

    @property
    def parts(self) -> dict[str, Part]:
        """The noise of each expert denoiser, by name."""
        return {expert.name: expert.part for expert in self.experts}

    def expert_for(self, sigma: float) -> Expert:
        """The expert denoiser that is called at this noise level."""
        return self.experts[find_tile(self.tiling, sigma).part]

    def change(self, name: str, change: Callable[[nn.Module], None]) -> None:
        """Let ``change`` work on the network of one expert denoiser, now and whenever it has been read anew.

        Raises:
            InputError: For a name that none has, with the nearest.
        """
        names = [expert.name for expert in self.experts]
        if name not in names:
            raise InputError(f"there is no expert denoiser {name!r}{nearest(name, names)}")
        self.holder.change(names.index(name), change)

    def prepare(self, condition: Condition) -> MixtureContext:
        """What depends on neither x nor sigma is done once per prompt and expert denoiser, when it is first called."""
        names = [expert.name for expert in self.experts]
        return MixtureContext(lambda index: self._resident(index).prepare(condition), names)

    def forward(self, x: Images, sigma: Sigmas, context: MixtureContext | None = None) -> Images:
        """Denoise every image by the expert denoiser of its own noise level.

        Under ``active``, a batch of mixed noise levels loads expert denoisers in turn at every call.
        """
        places = self._places(sigma)
        owners = [self.tiling[place].part for place in places]
        if len(set(owners)) == 1:
            return self._call(places[0], x, sigma, context)
        rows: list[int] = []
        denoised: list[Tensor] = []
        for place in sorted(dict(zip(owners, places, strict=True)).values(), reverse=True):
            here = [row for row, owner in enumerate(owners) if owner == self.tiling[place].part]
            index = torch.tensor(here, device=x.device)
            picked = None if context is None else context.select(here)
            denoised.append(self._call(place, x[index], sigma[index], picked))
            rows += here
        back = torch.tensor(rows, device=x.device).argsort()
        return torch.cat(denoised)[back]

    def bind(self, context: MixtureContext | None) -> Denoise:
        """The ``Denoise`` that paints what ``context`` says."""

        def denoise(x: Images, sigma: Sigmas) -> Images:
            return self(x, sigma, context)

        return denoise

    def _places(self, sigma: Sigmas) -> list[int]:
        """The tile of each image, from sigma as float32; no number at all goes where infinity does."""
        levels: list[float] = sigma.detach().float().tolist()
        place_of = {level: max(bisect_right(self._lows, level) - 1, 0) for level in set(levels)}
        return [place_of[level] for level in levels]

    def _call(self, place: int, x: Images, sigma: Sigmas, context: MixtureContext | None) -> Images:
        index = self.tiling[place].part
        # Noise falls in a walk, and after the last step the next picture begins at the top.
        upcoming = self.tiling[place - 1].part
        denoiser = self.holder.get(index, upcoming)
        return denoiser(x, sigma, None if context is None else context.of(index))

    def _resident(self, index: int) -> DenoiserLike:
        return self.holder.get(index, upcoming=index)


def _changed(context: Any, method: str, value: Any) -> Any:
    """What a network's context gives when asked; a network without one has nothing to change."""
    if context is None:
        return None
    change = getattr(context, method, None)
    if change is None:
        raise InputError(
            f"the context of this network is a {type(context).__name__}, which offers no {method}"
        )
    return change(value)


__all__ = ["Expert", "Mixture", "MixtureContext"]
