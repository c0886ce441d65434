"""Optimisers over float32 masters: AdamW, fused, Adafactor with the switches of its published form, and Muon."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bottega.errors import CheckpointError, ConfigError
from bottega.training.muon import MuonOptimizer


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay.

    ``weight_decay`` acts on tensors of two or more dimensions; biases and gains are left alone.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must be at least 0 and below 1, got {self.betas}")
        _check_not_negative("eps", self.eps)
        _check_not_negative("weight_decay", self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Adafactor:
    """Adam's second moment kept as row and column sums, so that its memory is a small share of the weights'.

    ``scale_by_parameter`` multiplies each update by the root mean square of the tensor it moves; ``clip_rms`` bounds
    the root mean square of an update; tensors with two dimensions of at least ``min_dim_to_factor`` are factored.

    Source: Shazeer and Stern 2018 (arXiv:1804.04235), Algorithms 4 and 5, with the defaults of optax and the learning
    rate given from outside; weight decay is times that rate, as in AdamW. Imagen's base trains with it.
    """

    decay_rate: float = 0.8
    clip_rms: float | None = 1.0
    scale_by_parameter: bool = True
    min_dim_to_factor: int = 128
    momentum: float | None = None
    eps: float = 1e-30
    min_scale: float = 1e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.decay_rate <= 1:
            raise ConfigError(f"decay_rate must be above 0 and at most 1, got {self.decay_rate}")
        if self.clip_rms is not None and not self.clip_rms > 0:
            raise ConfigError(f"clip_rms must be positive or none, got {self.clip_rms}")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must be at least 0 and below 1, got {self.momentum}")
        if self.min_dim_to_factor < 1:
            raise ConfigError(f"min_dim_to_factor must be positive, got {self.min_dim_to_factor}")
        for name in ("eps", "min_scale", "weight_decay"):
            _check_not_negative(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Orthogonalised momentum for matrices and kernels whose sides are all at least ``min_dim``, AdamW for the rest.

    One learning rate serves both. ``iterations`` of the orthogonalisation are run a step; their cost is a fixed one,
    which larger batches make small. ``betas`` and ``eps`` are AdamW's.

    Source: see `MuonOptimizer`.
    """

    momentum: float = 0.95
    iterations: int = 5
    min_dim: int = 64
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in (self.momentum, *self.betas)):
            raise ConfigError(
                f"momentum and betas must be at least 0 and below 1, got {self.momentum} and {self.betas}"
            )
        for name in ("iterations", "min_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        _check_not_negative("eps", self.eps)
        _check_not_negative("weight_decay", self.weight_decay)


OptimizerConfig = AdamW | Adafactor | Muon


def build_optimizer(
    config: OptimizerConfig, tensors: Sequence[Tensor], *, learning_rate: float
) -> torch.optim.Optimizer:
    """An optimiser over the masters; matrices and kernels decay, vectors do not."""
    for tensor in tensors:
        tensor.requires_grad_()
    matrices = [t for t in tensors if t.ndim >= 2]
    vectors = [t for t in tensors if t.ndim < 2]
    if isinstance(config, Muon):
        large = [t for t in matrices if min(len(t), t[0].numel()) >= config.min_dim]
        if large:
            small = [t for t in matrices if min(len(t), t[0].numel()) < config.min_dim]
            return MuonOptimizer(
                large,
                _groups(small, vectors, config.weight_decay),
                learning_rate=learning_rate,
                momentum=config.momentum,
                iterations=config.iterations,
                weight_decay=config.weight_decay,
                betas=config.betas,
                eps=config.eps,
            )
    groups = _groups(matrices, vectors, config.weight_decay)
    if not isinstance(config, Adafactor):
        return torch.optim.AdamW(
            groups, lr=learning_rate, betas=config.betas, eps=config.eps, fused=True
        )
    return FactoredOptimizer(groups, learning_rate=learning_rate, config=config)


def _groups(
    matrices: Sequence[Tensor], vectors: Sequence[Tensor], weight_decay: float
) -> list[dict[str, Any]]:
    """What decays and what does not, without empty groups."""
    return [
        {"params": list(group), "weight_decay": decay}
        for group, decay in ((matrices, weight_decay), (vectors, 0.0))
        if group
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every group this rate."""
    for group in optimizer.param_groups:
        group["lr"] = value


class FactoredOptimizer(torch.optim.Optimizer):
    """`Adafactor` at work."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, learning_rate: float, config: Adafactor
    ) -> None:
        """Optimise ``groups``, each with its own ``weight_decay``."""
        self.config = config
        super().__init__(groups, {"lr": learning_rate, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every tensor that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for tensor in group["params"]:
                if tensor.grad is not None:
                    self._move(tensor, tensor.grad, group["lr"], group["weight_decay"])
        return loss

    def _move(self, tensor: Tensor, gradient: Tensor, rate: float, weight_decay: float) -> None:
        config, state = self.config, self.state[tensor]
        if not state:
            state["step"] = torch.zeros((), device=tensor.device)
        state["step"] += 1
        decay = 1 - state["step"] ** -config.decay_rate  # 0 on the first step: no bias to correct
        update = gradient * self._inverse_root(state, gradient.square() + config.eps, decay)
        if config.clip_rms is not None:
            update /= (_rms(update) / config.clip_rms).clamp(min=1.0)
        update *= rate
        if config.scale_by_parameter:
            update *= _rms(tensor).clamp(min=config.min_scale)
        if config.momentum is not None:
            average = state.setdefault("momentum", torch.zeros_like(tensor))
            update = average.lerp_(update, 1 - config.momentum)
        if weight_decay > 0:
            tensor.mul_(1 - rate * weight_decay)
        tensor.sub_(update)

    def _inverse_root(self, state: dict[str, Tensor], square: Tensor, decay: Tensor) -> Tensor:
        """One over the root of the second moment, after it has taken in ``square``."""
        axes = _factored_axes(square.shape, self.config.min_dim_to_factor)
        if axes is None:
            moment = state.setdefault("square", torch.zeros_like(square))
            return moment.lerp_(square, 1 - decay).rsqrt()
        small, large = axes
        rows = square.mean(dim=large, keepdim=True)
        columns = square.mean(dim=small, keepdim=True)
        row = state.setdefault("row", torch.zeros_like(rows)).lerp_(rows, 1 - decay)
        column = state.setdefault("column", torch.zeros_like(columns)).lerp_(columns, 1 - decay)
        row_factor = (row / row.mean(dim=small, keepdim=True)).rsqrt()
        return row_factor * column.rsqrt()


def _factored_axes(shape: torch.Size, least: int) -> tuple[int, int] | None:
    """The two largest dimensions, when both are large enough to be worth factoring."""
    if len(shape) < 2:
        return None
    order = sorted(range(len(shape)), key=lambda axis: shape[axis])
    if shape[order[-2]] < least:
        return None
    return order[-2], order[-1]


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The optimiser's state as named tensors, ``SLOT:PARAMETER``."""
    return {
        f"{slot}:{name}": value
        for name, tensor in tensors.items()
        for slot, value in optimizer.state.get(tensor, {}).items()
    }


def fill_optimizer(
    optimizer: torch.optim.Optimizer, masters: Mapping[str, Tensor], saved: Mapping[str, Tensor]
) -> None:
    """Set the optimiser's state from named tensors.

    Raises:
        CheckpointError: If a name belongs to no parameter.
    """
    optimizer.state.clear()
    for key, value in saved.items():
        slot, _, name = key.partition(":")
        if name not in masters:
            raise CheckpointError(f"the optimiser's state names {name}, which the network lacks")
        master = masters[name]
        # The fused kernels walk memory, so a moment must lie as its weight lies.
        kept = (
            torch.empty_like(master, requires_grad=False) if value.shape == master.shape else None
        )
        kept = value.to(master.device, copy=True) if kept is None else kept.copy_(value)
        optimizer.state[master][slot] = kept


def _check_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise ConfigError(f"{name} must not be negative, got {value}")


__all__ = [
    "Adafactor",
    "AdamW",
    "FactoredOptimizer",
    "Muon",
    "OptimizerConfig",
    "build_optimizer",
    "fill_optimizer",
    "optimizer_tensors",
    "set_learning_rate",
]
