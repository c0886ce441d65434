"""The seam between the loop and the machine: which device, how many processes, how they agree."""

import atexit
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

_BUCKET_NUMBERS = 8 * 2**20
"""How many gradient values travel together between processes."""


@runtime_checkable
class Engine(Protocol):
    """What the loop asks of the machine."""

    rank: int
    world_size: int
    device: torch.device

    def prepare(self, network: nn.Module) -> None:
        """Move the network to the device, with the same weights in every process."""
        ...

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over processes."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        ...

    def wait(self) -> None:
        """Wait until every process is here."""
        ...


class LocalEngine:
    """One process, one device."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Train on ``device``."""
        self.rank = 0
        self.world_size = 1
        self.device = torch.device(device)

    def prepare(self, network: nn.Module) -> None:
        """Move the network to the device."""
        network.to(self.device)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Leave them: one process is its own mean."""

    def any(self, flag: bool) -> bool:
        """The flag itself."""
        return flag

    def wait(self) -> None:
        """Return at once."""


def _leave() -> None:
    """Part from the other processes; threads that still listen to them would abort an interpreter that ends."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class AccelerateEngine:
    """As many processes as ``accelerate launch`` or ``torchrun`` started, each with a share of every batch.

    Gradients are averaged once per step, after the microbatches were added up, in float32 buckets. That is data
    parallelism without a wrapper around the network, so a network may be called in parts (`prepare`, then `forward`).
    The price is that communication does not overlap with the backward pass.
    """

    def __init__(self, **options: Any) -> None:
        """Join the processes; ``options`` go to ``accelerate.Accelerator``."""
        from accelerate import Accelerator

        self._accelerator = Accelerator(**options)
        self.rank: int = self._accelerator.process_index
        self.world_size: int = self._accelerator.num_processes
        self.device: torch.device = self._accelerator.device
        if self.world_size > 1:
            atexit.register(_leave)

    def prepare(self, network: nn.Module) -> None:
        """Move the network to the device and give every process the first one's weights."""
        from accelerate.utils import broadcast

        network.to(self.device)
        if self.world_size > 1:
            for tensor in network.state_dict().values():
                tensor.copy_(broadcast(tensor.contiguous(), from_process=0))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over processes, many at a time."""
        if self.world_size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([t.reshape(-1) for t in bucket])
            mean: Any = self._accelerator.reduce(flat, reduction="mean")
            parts = mean.split([t.numel() for t in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        if self.world_size == 1:
            return flag
        total: Any = self._accelerator.reduce(torch.tensor(float(flag), device=self.device))
        return bool(total.item() > 0)

    def wait(self) -> None:
        """Wait until every process is here."""
        self._accelerator.wait_for_everyone()


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if filled + tensor.numel() > _BUCKET_NUMBERS and buckets[-1]:
            buckets.append([])
            filled = 0
        buckets[-1].append(tensor)
        filled += tensor.numel()
    return [bucket for bucket in buckets if bucket]


__all__ = ["AccelerateEngine", "Engine", "LocalEngine"]
