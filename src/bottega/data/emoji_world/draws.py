"""Quick random choices for one example, all from one block of numbers drawn at once."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from bottega.seeding import derive

T = TypeVar("T")
_BLOCK = 48


class Draws:
    """Choices that are a pure function of a seed and its purpose; many times faster than ``Generator.choice``."""

    def __init__(self, seed: int, *purpose: str | int) -> None:
        """Start the stream of choices for one purpose."""
        self._generator = np.random.Generator(np.random.SFC64(derive(seed, *purpose)))
        self._numbers: list[float] = []

    def unit(self) -> float:
        """A number from [0, 1)."""
        if not self._numbers:
            self._numbers = self._generator.random(_BLOCK).tolist()
        return self._numbers.pop()

    def chance(self, probability: float) -> bool:
        """True as often as ``probability`` says."""
        return self.unit() < probability

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        return int(self.unit() * n)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, each as likely."""
        return options[int(self.unit() * len(options))]

    def between(self, low: float, high: float) -> float:
        """A number from [low, high)."""
        return low + (high - low) * self.unit()

    def weighted(self, cumulative: Sequence[float]) -> int:
        """An index by cumulative weights, of which the last is their sum."""
        level = self.unit() * cumulative[-1]
        index = 0
        while index < len(cumulative) - 1 and level >= cumulative[index]:
            index += 1
        return index


__all__ = ["Draws"]
