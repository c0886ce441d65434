"""An expert denoiser that waits on disk: its weights are read where they lie, a tensor at a time."""

import json
import math
import mmap
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor, nn

from bottega.diffusion.denoiser import DenoiserLike
from bottega.errors import CheckpointError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CHUNK = 2**22
_LARGEST_HEADER = 10**8  # the format's own limit


class _Entry(NamedTuple):
    """Where one tensor lies in the file; ``start`` and ``end`` are bytes from its beginning."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def tensor(self, source: UInt8[Tensor, "bytes"]) -> Shaped[Tensor, "*shape"]:
        """The tensor as it lies in ``source``, copied only where its bytes are not aligned to its type."""
        piece = source[self.start : self.end]
        if self.start % self.dtype.itemsize:
            piece = piece.clone()
        return piece.view(self.dtype).view(self.shape)


class StoredDenoiser:
    """A loader that knows its file, so that the weights can also be put into a denoiser that is there already.

    Called, it gives a denoiser of its own. As one of the experts of a `Mixture` that keeps a single one resident, it
    never costs a second set of weights: the file is mapped, each tensor is copied into the resident network, and
    its pages are given back before the next one is touched.
    """

    def __init__(self, file: Path | str, config: Any, build: Callable[[Any], DenoiserLike]) -> None:
        """Open the safetensors file of a denoiser's network; whoever has digests compares them before.

        Args:
            file: Holds ``network.state_dict()`` of what ``build`` gives.
            config: Handed to ``build``. Experts with the same config and the same ``build`` share one network.
            build: Makes a denoiser, whose weights are then overwritten.

        Raises:
            CheckpointError: When the file is missing or is not in the safetensors format.
        """
        self.file = Path(file)
        self.config = config
        self.build = build
        self._changes: list[Callable[[nn.Module], None]] = []
        try:
            with self.file.open("rb") as stream:
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
            self._entries = _read_header(self._bytes)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.file} cannot be read as safetensors: {error}") from None

    def __call__(self) -> DenoiserLike:
        """Build the denoiser and fill it.

        Raises:
            CheckpointError: When the file does not hold exactly the network's tensors.
        """
        denoiser = self.build(self.config)
        self.fill(denoiser)
        return denoiser

    def then(self, change: Callable[[nn.Module], None]) -> None:
        """Let ``change`` work on the network whenever its weights have been put in from now on."""
        self._changes.append(change)

    def fits(self, other: object) -> bool:
        """Whether both make the same network, so that one can be filled with the weights of either."""
        return (
            isinstance(other, StoredDenoiser)
            and self.build == other.build
            and self.config == other.config
        )

    def fetch(self, device: torch.device) -> UInt8[Tensor, "bytes"] | None:
        """Have the bytes ready for `fill`: in pinned memory for a GPU, in the system's file cache otherwise."""
        if device.type == "cuda":
            waiting = torch.empty(len(self._bytes), dtype=torch.uint8, pin_memory=True)
            with self.file.open("rb") as stream:
                stream.readinto(cast(Any, waiting.numpy()))
            return waiting
        scratch = bytearray(_CHUNK)
        with self.file.open("rb", buffering=0) as stream:
            while stream.readinto(scratch):
                pass
        return None

    @torch.no_grad()
    def fill(self, denoiser: DenoiserLike, fetched: UInt8[Tensor, "bytes"] | None = None) -> None:
        """Overwrite a denoiser's weights, cast to the types that it has, where it is.

        Args:
            denoiser: What ``build`` gives, perhaps moved and cast since.
            fetched: What `fetch` gave, if it was called.

        Raises:
            CheckpointError: When the names or shapes differ. Nothing has been overwritten then.
        """
        network = cast(nn.Module, cast(Any, denoiser).network)
        slots = network.state_dict(keep_vars=True)
        self._check(slots)
        source = torch.frombuffer(self._bytes, dtype=torch.uint8) if fetched is None else fetched
        for entry in self._entries:
            # From pinned memory nothing waits: PyTorch keeps it until the device has read it.
            slots[entry.name].copy_(entry.tensor(source), non_blocking=fetched is not None)
            if fetched is None:
                _give_back(self._bytes, entry)
        for change in self._changes:
            change(network)

    def _check(self, slots: Mapping[str, Tensor]) -> None:
        here = {entry.name: list(entry.shape) for entry in self._entries}
        own = {name: list(tensor.shape) for name, tensor in slots.items()}
        wrong = sorted(name for name in own.keys() | here.keys() if own.get(name) != here.get(name))
        if wrong:
            name = wrong[0]
            raise CheckpointError(
                f"{self.file} does not fit: {name} is {here.get(name, 'missing')} in the file and "
                f"{own.get(name, 'missing')} in the network (tensors that differ: {len(wrong)}); "
                "it was made for another configuration"
            )


def _read_header(data: mmap.mmap) -> list[_Entry]:
    """The tensors of a safetensors file, in the order of their bytes."""
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= min(len(data) - 8, _LARGEST_HEADER):
        raise CheckpointError(f"its header cannot be {size} bytes long")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    entries: list[_Entry] = []
    for name, fact in header.items():
        if name == "__metadata__":
            continue
        if fact["dtype"] not in _DTYPES:
            raise CheckpointError(f"{name} is of type {fact['dtype']}")
        start, end = (8 + size + int(offset) for offset in fact["data_offsets"])
        entry = _Entry(name, _DTYPES[fact["dtype"]], tuple(fact["shape"]), start, end)
        if not 8 + size <= start <= end <= len(data) or end - start != entry.num_bytes:
            raise CheckpointError(f"{name} does not lie where its header says")
        entries.append(entry)
    return sorted(entries, key=lambda entry: entry.start)


def _give_back(data: mmap.mmap, entry: _Entry) -> None:
    """Let go of the pages that have been read, but for the last one, which the next tensor may share."""
    if sys.platform != "win32":
        first = entry.start // mmap.PAGESIZE * mmap.PAGESIZE
        last = entry.end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            data.madvise(mmap.MADV_DONTNEED, first, last - first)


__all__ = ["StoredDenoiser"]
