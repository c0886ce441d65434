"""The network's weights in the precision it runs in, and the float32 masters that the optimiser moves.

With "bf16" the parameters themselves are bfloat16, so no step casts them again and again as autocast does. Gradients
are added into float32, the optimiser and the averages work on float32 masters, and one pass rounds the masters back.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from bottega.errors import ConfigError
from bottega.training.foreach import add_each, copy_each, joint_norm, scale_each

Precision = Literal["bf16", "fp32"]


def dtype_of(precision: Precision) -> torch.dtype:
    """What a network of that precision computes in."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


class Masters:
    """The trainable weights of a network as the optimiser sees them, by name.

    With "fp32" the masters are the parameters themselves and nothing is copied.
    """

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        """Put the network into its running precision and memory layout, in place.

        Raises:
            ConfigError: If the network has nothing to train.
        """
        trainable = {n: p for n, p in network.named_parameters() if p.requires_grad}
        if not trainable:
            raise ConfigError("the network has no parameter that requires a gradient")
        for parameter in network.parameters():
            if parameter.ndim == 4:  # what convolutions want, on CPUs and tensor cores alike
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        exact = {n: p.detach().float().clone() for n, p in trainable.items()}
        dtype = dtype_of(precision)
        for parameter in network.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        self.names: list[str] = list(trainable)
        self.parameters: list[nn.Parameter] = list(trainable.values())
        self.separate: bool = precision == "bf16"
        self.tensors: list[Tensor] = (
            list(exact.values()) if self.separate else list(self.parameters)
        )
        self._sums = [torch.empty_like(t) for t in self.tensors] if self.separate else []

    def by_name(self) -> dict[str, Tensor]:
        """Every master by its parameter's name."""
        return {n: t.detach() for n, t in zip(self.names, self.tensors, strict=True)}

    def clear_gradients(self) -> None:
        """Forget all gradients."""
        for parameter, master in zip(self.parameters, self.tensors, strict=True):
            parameter.grad = None
            master.grad = None

    def collect_gradients(self) -> None:
        """Add what the last backward left on the parameters to the masters' gradients, in float32."""
        if not self.separate:
            return
        fresh: tuple[list[Tensor], list[Tensor]] = ([], [])
        more: tuple[list[Tensor], list[Tensor]] = ([], [])
        for parameter, master, total in zip(self.parameters, self.tensors, self._sums, strict=True):
            if parameter.grad is None:
                continue
            targets, values = fresh if master.grad is None else more
            targets.append(total)
            values.append(parameter.grad)
            master.grad = total
            parameter.grad = None
        if fresh[0]:
            copy_each(fresh[0], fresh[1])
        if more[0]:
            add_each(more[0], more[1])

    def gradients(self, *, of_all: bool = False) -> list[Tensor]:
        """The gradients collected so far; a parameter that took no part has none, or zeros where ``of_all`` asks."""
        if of_all:
            for master in self.tensors:
                if master.grad is None:
                    master.grad = torch.zeros_like(master, requires_grad=False)
        return [t.grad for t in self.tensors if t.grad is not None]

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the network's parameters."""
        if self.separate:
            copy_each(self.parameters, self.tensors)

    @torch.no_grad()
    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Set the masters, in the order of ``names``, and the network with them."""
        for master, tensor in zip(self.tensors, tensors, strict=True):
            master.copy_(tensor)
        self.publish()


def clip_gradients(gradients: Sequence[Tensor], max_norm: float | None) -> Tensor:
    """Scale gradients in place so that their joint length is at most ``max_norm``; the length before, as a tensor.

    Nothing is read back from an accelerator. On a CPU, where reading is free, the pass over the gradients is spared
    when they are short enough.
    """
    if not gradients:
        return torch.zeros(())
    norm = joint_norm(gradients)
    if max_norm is None:
        return norm
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if norm.device.type != "cpu" or scale.item() < 1:
        scale_each(gradients, scale)
    return norm


__all__ = ["Masters", "Precision", "clip_gradients", "dtype_of"]
