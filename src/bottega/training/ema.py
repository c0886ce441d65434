"""Averages of the weights over the run, several lengths at once, in float32.

Source: Karras et al. 2024 (arXiv:2312.02696), section 3 and Algorithm 2. We update every few steps instead of each;
the decay below takes the distance between two updates into account.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bottega.errors import CheckpointError
from bottega.training.config import EmaConfig
from bottega.training.foreach import lerp_each


def gamma_from_std(std: float) -> float:
    """The exponent of the power-function average whose relative length is ``std`` (eq. 126 solved for gamma)."""
    inverse = std**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(roots.real.max())


def power_decay(std: float, *, images_seen: int, since: int, head_start: int = 0) -> float:
    """How much of the old average stays when it moves from ``since`` to ``images_seen``.

    Without a head start nothing stays the first time. ``head_start`` images count as averaged before the run began, so
    that a run which starts from an average does not forget it at the first update.
    """
    return ((since + head_start) / (images_seen + head_start)) ** (gamma_from_std(std) + 1)


class Ema:
    """Averages of the masters, by the name of their length: ``0.05``, ``0.1``, ``halflife``."""

    def __init__(self, config: EmaConfig, tensors: Sequence[Tensor]) -> None:
        """Start every average at the weights as they are."""
        self.config = config
        names = [f"{std:g}" for std in config.stds]
        if config.halflife_images is not None:
            names.append("halflife")
        self.averages: dict[str, list[Tensor]] = {
            name: [t.detach().clone() for t in tensors] for name in names
        }
        self.updated_at = 0

    @torch.no_grad()
    def update(self, tensors: Sequence[Tensor], images_seen: int) -> None:
        """Let the averages move towards the weights, when ``every_images`` have passed since the last time."""
        every = self.config.every_images
        if images_seen // every == self.updated_at // every:
            return
        weights = [t.detach() for t in tensors]
        for name, average in self.averages.items():
            lerp_each(average, weights, 1 - self._decay(name, images_seen))
        self.updated_at = images_seen

    def _decay(self, name: str, images_seen: int) -> float:
        if name == "halflife":
            halflife = self.config.halflife_images
            assert halflife is not None
            return 0.5 ** ((images_seen - self.updated_at) / halflife)
        return power_decay(
            float(name),
            images_seen=images_seen,
            since=self.updated_at,
            head_start=self.config.head_start_images,
        )

    def fill(self, saved: Mapping[str, Sequence[Tensor]], updated_at: int) -> None:
        """Set the averages from a checkpoint.

        Raises:
            CheckpointError: If it kept other lengths than this run keeps.
        """
        if set(saved) != set(self.averages):
            raise CheckpointError(
                f"the checkpoint keeps the averages {sorted(saved)}, this run wants {sorted(self.averages)}"
            )
        for name, tensors in saved.items():
            for average, tensor in zip(self.averages[name], tensors, strict=True):
                average.copy_(tensor)
        self.updated_at = updated_at


__all__ = ["Ema", "gamma_from_std", "power_decay"]
