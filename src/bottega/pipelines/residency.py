"""Which parts of a model stay in memory: all of them, or only the one at work."""

import weakref
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar, cast, get_args

import torch

from bottega.condition import Condition
from bottega.diffusion import Denoise, DenoiserLike
from bottega.errors import InputError, nearest
from bottega.shapes import Images, Sigmas

T = TypeVar("T")

Policy = Literal["all", "active"]
"""``all`` keeps what was loaded; ``active`` lets every other part go when one is needed."""

POLICIES: tuple[str, ...] = get_args(Policy)


class Residency:
    """The parts of one model, each loaded when it is first needed."""

    def __init__(self, policy: str = "all") -> None:
        """Follow ``policy``.

        Raises:
            InputError: For an unknown one, naming the nearest.
        """
        if policy not in POLICIES:
            raise InputError(f"residency {policy!r} is not known{nearest(policy, POLICIES)}")
        self.policy: Policy = cast(Policy, policy)
        self._parts: list[Part[Any]] = []

    def part(self, load: Callable[[], T]) -> "Part[T]":
        """A part that ``load`` fetches."""
        part = Part(self, load)
        self._parts.append(part)
        return part

    def make_room(self, wanted: "Part[Any]") -> None:
        """Let go of whatever the policy does not keep beside ``wanted``."""
        if self.policy == "all":
            return
        for part in self._parts:
            if part is not wanted:
                part.release()

    @property
    def resident(self) -> int:
        """How many parts are in memory."""
        return sum(part.is_resident for part in self._parts)


class Part(Generic[T]):
    """Something large that is there when it is called for."""

    def __init__(self, residency: Residency, load: Callable[[], T]) -> None:
        self._residency = residency
        self._load = load
        self._held: T | None = None
        self._changes: list[Callable[[T], None]] = []

    def __call__(self) -> T:
        """The part, fetched if need be."""
        if self._held is None:
            self._residency.make_room(self)
            loaded = self._load()
            for change in self._changes:
                change(loaded)
            self._held = loaded
        return self._held

    def then(self, change: Callable[[T], None]) -> None:
        """Let ``change`` work on the part, now if it is in memory, and whenever it is fetched from now on."""
        self._changes.append(change)
        if self._held is not None:
            change(self._held)

    @property
    def is_resident(self) -> bool:
        """Whether it is in memory."""
        return self._held is not None

    def release(self) -> None:
        """Forget it; it is fetched again when it is next needed."""
        self._held = None


class LazyDenoiser:
    """A denoiser that is fetched when it is first asked something, and moved to where it is to compute."""

    def __init__(self, part: Part[DenoiserLike]) -> None:
        """Stand for what ``part`` fetches."""
        self._part = part
        self._device: torch.device | str = "cpu"
        self._dtype: torch.dtype | None = None
        self._placed: Callable[[], Any] = lambda: None

    def to(self, *, device: torch.device | str, dtype: torch.dtype) -> "LazyDenoiser":
        """Compute there and so from now on."""
        self._device, self._dtype = device, dtype
        self._placed = lambda: None
        return self

    def then(self, change: Callable[[DenoiserLike], None]) -> None:
        """Let ``change`` work on the denoiser whenever it has been fetched, and now if it is in memory."""
        self._part.then(change)

    def open(self) -> DenoiserLike:
        """The denoiser itself, where it is to compute."""
        denoiser = self._part()
        if self._placed() is not denoiser:
            if self._dtype is not None:  # None until somebody has said where
                denoiser.to(device=self._device, dtype=self._dtype)
            self._placed = weakref.ref(denoiser)  # a strong one would keep it from leaving
        return denoiser

    def prepare(self, condition: Condition) -> Any:
        """Do everything that depends on neither x nor sigma, once per prompt."""
        return self.open().prepare(condition)

    def forward(self, x: Images, sigma: Sigmas, context: Any = None) -> Images:
        """Denoise ``x`` as ``context`` says."""
        return self.open()(x, sigma, context)

    def __call__(self, x: Images, sigma: Sigmas, context: Any = None) -> Images:
        """What `forward` does."""
        return self.forward(x, sigma, context)

    def bind(self, context: Any) -> Denoise:
        """The ``Denoise`` that paints what ``context`` says."""

        def denoise(x: Images, sigma: Sigmas) -> Images:
            return self.forward(x, sigma, context)

        return denoise


__all__ = ["POLICIES", "LazyDenoiser", "Part", "Policy", "Residency"]
