"""One operation over many tensors at once. PyTorch offers these under names that begin with an underscore."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def copy_each(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its target, casting on the way."""
    torch._foreach_copy_(list(targets), list(sources))  # pyright: ignore[reportPrivateUsage]


def add_each(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Add each value to its target."""
    torch._foreach_add_(list(targets), list(values))  # pyright: ignore[reportPrivateUsage]


def lerp_each(targets: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """Move each target towards its end by a share of the way."""
    torch._foreach_lerp_(list(targets), list(ends), weight)  # pyright: ignore[reportPrivateUsage]


def scale_each(targets: Sequence[Tensor], factor: Float[Tensor, ""]) -> None:
    """Multiply every target by one number."""
    torch._foreach_mul_(list(targets), factor)  # pyright: ignore[reportPrivateUsage]


def joint_norm(tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The Euclidean length of all tensors together."""
    norms = torch._foreach_norm(list(tensors))  # pyright: ignore[reportPrivateUsage]
    return torch.linalg.vector_norm(torch.stack(list(norms)))


__all__ = ["add_each", "copy_each", "joint_norm", "lerp_each", "scale_each"]
