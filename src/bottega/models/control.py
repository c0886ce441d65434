"""What a control is to a network: additions to what its way down hands to its way up."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from bottega.models.layers import Features
from bottega.shapes import Images

Skips = list[list[Tensor]]
"""What each level of the way down keeps for the way up: its entry, then the output of every block."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Additions:
    """What is added to every skip, in the order of `Skips`, and to the ``deepest`` features."""

    skips: Sequence[Sequence[Tensor]]
    deepest: Features

    def onto(self, h: Features, skips: Skips) -> tuple[Features, Skips]:
        """The sums; nothing that was given is changed."""
        changed = [
            [mine + theirs for mine, theirs in zip(own, added, strict=True)]
            for own, added in zip(skips, self.skips, strict=True)
        ]
        return h + self.deepest, changed


class Control(ABC):
    """Something that looks at the noisy picture too, and steers the network at every call."""

    @abstractmethod
    def __call__(self, x: Images, c_noise: Float[Tensor, "batch"]) -> Additions:
        """What is added, for the very ``x`` and ``c_noise`` that the network is called with."""

    @abstractmethod
    def select(self, indices: Sequence[int]) -> "Control":
        """The control of some of the pictures, in the order asked for."""


__all__ = ["Additions", "Control", "Skips"]
