"""A network whose space experts wait on disk: only those that a prompt's words go to are ever in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bottega.checkpoint import Manifest, load_manifest
from bottega.checkpoint.store import check_names, verify
from bottega.condition import Condition
from bottega.diffusion import Denoiser, DenoiserLike, TimestepDenoiser
from bottega.errors import CheckpointError
from bottega.models import Context, UNet
from bottega.models.attention import AttentionMap
from bottega.models.layers import Changed
from bottega.models.moe import Expert
from bottega.models.moe_gates import Exploring, SpaceRoute
from bottega.models.transformer import ExpertBlock
from bottega.pipelines.residency import LazyDenoiser, Part
from bottega.pipelines.stored import DenoiserConfig, denoiser_config
from bottega.shapes import Images

WEIGHTS = "denoiser.safetensors"

Wanted = tuple[frozenset[int], ...]
"""Of every block with experts the space experts that are needed."""


@dataclass(frozen=True, kw_only=True)
class ShelfCount:
    """How many space experts there are, how many of them were in memory at most, and what that saved.

    Bytes are those of the precision that the network computes in.
    """

    experts: int
    most_resident: int
    bytes_each: tuple[int, ...]
    most_bytes: int

    @property
    def spared_bytes(self) -> int:
        """What was never in memory."""
        return sum(self.bytes_each) - self.most_bytes


@dataclass(kw_only=True)
class ShelfTally:
    """What has been needed of a shelf so far, kept apart from the network, which may have to leave the memory too."""

    bytes_each: tuple[int, ...] = ()
    most_resident: int = 0
    most_bytes: int = 0

    def add(self, bytes_each: tuple[int, ...], resident: int, held_bytes: int) -> None:
        """Take note of what is in memory now."""
        self.bytes_each = bytes_each
        self.most_resident = max(self.most_resident, resident)
        self.most_bytes = max(self.most_bytes, held_bytes)

    @property
    def count(self) -> ShelfCount:
        """The same in numbers that stay."""
        return ShelfCount(
            experts=len(self.bytes_each),
            most_resident=self.most_resident,
            bytes_each=self.bytes_each,
            most_bytes=self.most_bytes,
        )


class OnShelf(nn.Module):
    """The place of an expert that is not in memory."""


class ShelvedUNet(UNet):
    """A `UNet` to paint with that fetches the space experts a prompt needs when it is prepared.

    What was prepared can be called in any order and at any time: experts that have gone are fetched again. The result
    is that of the whole network, to the last bit.
    """

    def open_shelf(self, file: Path, names: Sequence[str], tally: ShelfTally) -> None:
        """Fetch experts from ``file``; ``names`` are the paths of the blocks' space-MoEs in it."""
        self._file = file
        self._names = tuple(names)
        self._tally = tally
        self._changes: list[Callable[[str, nn.Module], None]] = []
        for block in self.expert_blocks:
            for k in range(len(_experts(block))):
                _experts(block)[k] = OnShelf()

    def waits(self, layer: str) -> bool:
        """Whether a layer, by its name in the whole network, is of an expert that waits on disk."""
        return any(layer.startswith(f"{name}.experts.") for name in self._names)

    def then(self, change: Callable[[str, nn.Module], None]) -> None:
        """Let ``change`` work on every expert, with its name in the whole network, when it is fetched from now on."""
        self._changes.append(change)

    def prepare(self, condition: Condition, exploring: Exploring | None = None) -> Context:
        """As a `UNet` does; experts that no token goes to leave the memory."""
        context = super().prepare(condition, exploring)
        self._bring(_wanted(context.routes), keep_others=False)
        return context

    def forward(
        self,
        x: Images,
        c_noise: Float[Tensor, "batch"],
        context: Context,
        *,
        maps: list[AttentionMap] | None = None,
    ) -> Changed:
        """As a `UNet` does."""
        self._bring(_wanted(context.routes), keep_others=True)
        return super().forward(x, c_noise, context, maps=maps)

    @property
    def count(self) -> ShelfCount:
        """What has been needed so far."""
        return replace(self._tally, bytes_each=tuple(self._sizes())).count

    @property
    def resident(self) -> Wanted:
        """The experts in memory now."""
        return tuple(
            frozenset(k for k, e in enumerate(_experts(block)) if not isinstance(e, OnShelf))
            for block in self.expert_blocks
        )

    def _sizes(self) -> Iterator[int]:
        for block in self.expert_blocks:
            for _ in _experts(block):
                yield sum(p.numel() for p in self._empty(block).parameters()) * self.dtype.itemsize

    def _bring(self, wanted: Wanted, *, keep_others: bool) -> None:
        resident = self.resident
        if all(need <= here for need, here in zip(wanted, resident, strict=True)) and keep_others:
            return
        if not keep_others:
            for block, need, here in zip(self.expert_blocks, wanted, resident, strict=True):
                for k in here - need:
                    _experts(block)[k] = OnShelf()
        with torch.inference_mode(False), torch.no_grad(), _opened(self._file) as stored:
            for block, name, need in zip(self.expert_blocks, self._names, wanted, strict=True):
                for k in sorted(need):
                    if isinstance(_experts(block)[k], OnShelf):
                        _experts(block)[k] = self._fetched(block, f"{name}.experts.{k}", stored)
        inside = [e for block in self.expert_blocks for e in _experts(block)]
        inside = [expert for expert in inside if not isinstance(expert, OnShelf)]
        held = sum(p.numel() * p.element_size() for e in inside for p in e.parameters())
        self._tally.add(tuple(self._sizes()), len(inside), held)

    def _fetched(self, block: ExpertBlock, name: str, stored: safe_open) -> nn.Module:
        expert = self._empty(block)
        like = self.stem.weight
        tensors = {
            key: stored.get_tensor(f"{name}.{key}").to(device=like.device, dtype=like.dtype)
            for key in expert.state_dict()
        }
        expert.load_state_dict(tensors, strict=True, assign=True)
        for change in self._changes:
            change(name, expert)
        return expert.requires_grad_(False).eval()

    def _empty(self, block: ExpertBlock) -> Expert:
        assert block.space is not None  # only such blocks are on a shelf
        config = block.space.config
        with torch.device("meta"):
            return Expert(block.norm_space.normalized_shape[0], config.ratio, bias=config.bias)


def has_shelf(config: DenoiserConfig) -> bool:
    """Whether a denoiser has space experts in all of its blocks that have any, which may then wait on disk."""
    if not config.network.has_experts:
        return False
    with torch.device("meta"):
        blocks = UNet(config.network).expert_blocks
    return all(block.space is not None for block in blocks)


class LazyShelf(LazyDenoiser):
    """A denoiser with a shelf that may leave the memory as a whole; what was needed of it is remembered."""

    def __init__(self, part: Part[DenoiserLike], tally: ShelfTally) -> None:
        """Stand for what ``part`` fetches, which counts in ``tally``."""
        super().__init__(part)
        self.tally = tally


def load_shelved(
    folder: Path | str, tally: ShelfTally | None = None
) -> tuple[Denoiser | TimestepDenoiser, Manifest]:
    """A denoiser like that of `load_denoiser`, without its space experts, which come when they are needed.

    Args:
        folder: The checkpoint.
        tally: Where to count what is needed; a new one by default.

    Raises:
        CheckpointError: When it is missing, damaged, or of another kind.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    config = denoiser_config(folder, manifest)
    verify(folder)
    with torch.device("meta"):
        network = ShelvedUNet(config.network)
    expected = network.state_dict()
    paths = {id(module): name for name, module in network.named_modules()}
    places = [f"{paths[id(block)]}.space" for block in network.expert_blocks]
    with _opened(folder / WEIGHTS) as stored:
        names = list(stored.keys())
        shapes = {
            name: torch.empty(stored.get_slice(name).get_shape(), device="meta") for name in names
        }
        check_names(expected, shapes, where=str(folder))
        network.open_shelf(folder / WEIGHTS, places, ShelfTally() if tally is None else tally)
        own = network.state_dict()
        network.load_state_dict(
            {name: _laid_out(stored.get_tensor(name)) for name in own}, strict=True, assign=True
        )
    network.requires_grad_(False).eval()
    if config.timestep_plan is not None:
        return config.timestep_plan.denoiser(network), manifest
    return Denoiser(network.float(), config.precond), manifest


def shelf_of(denoiser: object) -> ShelfCount | None:
    """What a denoiser's shelf has spared so far; None where there is none, or none was opened."""
    if isinstance(denoiser, LazyShelf):
        return denoiser.tally.count if denoiser.tally.bytes_each else None
    network = getattr(denoiser, "network", None)
    return network.count if isinstance(network, ShelvedUNet) else None


def _wanted(routes: tuple[SpaceRoute | None, ...]) -> Wanted:
    return tuple(frozenset(() if route is None else route.used) for route in routes)


def _experts(block: ExpertBlock) -> nn.ModuleList:
    return cast(nn.ModuleList, cast(nn.Module, block.space).experts)


def _laid_out(tensor: Tensor) -> Tensor:
    """A copy, so that no page of the file stays mapped; convolutions channels-last."""
    if tensor.ndim == 4:
        return tensor.clone(memory_format=torch.channels_last)
    return tensor.clone()


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None


__all__ = [
    "LazyShelf",
    "OnShelf",
    "ShelfCount",
    "ShelfTally",
    "ShelvedUNet",
    "has_shelf",
    "load_shelved",
    "shelf_of",
]
