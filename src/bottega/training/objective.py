"""What training minimises: the seam where a new method plugs in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bottega.data import Batch
from bottega.shapes import Sigmas


@dataclass(frozen=True, kw_only=True, eq=False)
class Loss:
    """The loss of one batch: the number to minimise, and what to know about it.

    ``total`` is the mean over the batch. ``per_image`` and ``sigma`` let the journal chart loss by noise level.
    ``metrics`` are further numbers worth a curve, or tables of them.
    """

    total: Float[Tensor, ""]
    per_image: Float[Tensor, "batch"] | None = None
    sigma: Sigmas | None = None
    metrics: Mapping[str, Float[Tensor, "..."]] = field(default_factory=dict)


Objective = Callable[[nn.Module, Batch, torch.Generator], Loss]
"""The loss of one batch; every random draw comes from the generator, so that a resumed run repeats itself."""

__all__ = ["Loss", "Objective"]
