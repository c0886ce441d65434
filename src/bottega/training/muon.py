"""Muon: momentum whose matrices are made orthogonal before they are applied; AdamW for everything else."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Matrices = Float[Tensor, "count rows columns"]

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""a, b, c of x -> a x + b x^3 + c x^5, chosen by Jordan to lift small singular values fastest."""

_RMS_OF_ADAM = 0.2
"""How large AdamW's updates are, as a root mean square: Liu et al. 2025, section 2.2."""


class MuonOptimizer(torch.optim.Optimizer):
    """Muon over kernels and matrices, AdamW over the rest, with one state between them.

    Kernels count as matrices of output channels by everything else. Updates are scaled to the root mean square that
    AdamW's have, so that one learning rate and one decay serve both.

    Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), with the scale of Liu et al. 2025
    (arXiv:2502.16982), equation 4. Matrices of one shape go through the iteration together.
    """

    def __init__(
        self,
        matrices: Sequence[Tensor],
        others: Sequence[dict[str, Any]],
        *,
        learning_rate: float,
        momentum: float,
        iterations: int,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """Optimise ``matrices`` by Muon and the groups ``others``, each with its own decay, by AdamW."""
        self.momentum = momentum
        self.iterations = iterations
        super().__init__([{"params": list(matrices)}], {"lr": learning_rate})
        self.param_groups[0]["weight_decay"] = weight_decay
        self._adam: torch.optim.AdamW | None = None
        if others:
            self._adam = torch.optim.AdamW(
                list(others), lr=learning_rate, betas=betas, eps=eps, fused=True
            )
            self._adam.state = self.state
            self.param_groups.extend(self._adam.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every tensor that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]
        alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for tensor in group["params"]:
            if tensor.grad is not None:
                alike[len(tensor), tensor[0].numel()].append(tensor)
        for tensors in alike.values():
            self._move(tensors, group["lr"], group["weight_decay"])
        if self._adam is not None:
            self._adam.step()
        return loss

    def _move(self, tensors: Sequence[Tensor], rate: float, weight_decay: float) -> None:
        ahead = [self._direction(t, t.grad) for t in tensors if t.grad is not None]
        updates = orthogonal(torch.stack(ahead), self.iterations)
        size = _RMS_OF_ADAM * math.sqrt(max(updates.shape[1:]))
        for tensor, update in zip(tensors, updates, strict=True):
            tensor.mul_(1 - rate * weight_decay)
            tensor.add_(update.view_as(tensor), alpha=-rate * size)

    def _direction(self, tensor: Tensor, gradient: Tensor) -> Float[Tensor, "rows columns"]:
        """Nesterov's look ahead along the momentum, as a matrix."""
        state = self.state[tensor]
        if not state:
            state["momentum"] = torch.zeros_like(tensor)
        average = state["momentum"].lerp_(gradient, 1 - self.momentum)
        return torch.lerp(gradient, average, self.momentum).flatten(1)


def orthogonal(matrices: Matrices, iterations: int) -> Matrices:
    """Bring all singular values near 1 and leave the singular vectors as they are.

    In bfloat16 on purpose: the result only has to be a good direction, and the iteration does not drift.
    """
    x = matrices.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    x = x / (torch.linalg.matrix_norm(x.float(), keepdim=True) + 1e-7).bfloat16()
    a, b, c = _QUINTIC
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


__all__ = ["MuonOptimizer", "orthogonal"]
