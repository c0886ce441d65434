"""Everything a run is at one moment, and its way to the disk and back."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bottega import config as configs
from bottega.checkpoint import Manifest, load_tensors, name_for, save_checkpoint, verify
from bottega.checkpoint.store import check_names
from bottega.errors import CheckpointError
from bottega.rundir import RunDir
from bottega.training.config import TrainConfig
from bottega.training.ema import Ema
from bottega.training.engine import Engine
from bottega.training.optim import build_optimizer, fill_optimizer, optimizer_tensors
from bottega.training.precision import Masters

CHECKPOINT_KIND = "train"


@dataclass(frozen=True, kw_only=True, eq=False)
class StepReport:
    """What one step did. Tensors stay where they are, so that reporting never makes a device wait."""

    images_seen: int
    loss: Float[Tensor, ""]
    grad_norm: Float[Tensor, ""]
    learning_rate: float
    per_image: Float[Tensor, "batch"] | None
    sigma: Float[Tensor, "batch"] | None
    metrics: Mapping[str, Float[Tensor, "..."]]
    captions: tuple[str, ...]
    indices: tuple[int, ...]


@dataclass(kw_only=True, eq=False)
class TrainState:
    """A run at one moment: weights, optimiser, averages and how many images it has seen.

    ``about`` is plain JSON that goes into every checkpoint, for example the resolved recipe. ``stopped_by`` names the
    signal that ended the run early. ``remark`` is what a hook wants said beside the progress.
    """

    network: nn.Module
    masters: Masters
    optimizer: torch.optim.Optimizer
    ema: Ema
    config: TrainConfig
    run: RunDir
    engine: Engine
    about: Any = None
    images_seen: int = 0
    parent: str | None = None
    stopped_by: str | None = None
    remark: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether every image the run was to see has been seen."""
        return self.images_seen >= self.config.total_images

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Every tensor the future depends on, by file and name."""
        masters = self.masters.by_name()
        groups = {
            "network": {**masters, **_untrained(self.network)},
            "optimizer": optimizer_tensors(self.optimizer, self.keyed()),
        }
        for name, average in self.ema.averages.items():
            groups[f"ema-{name}"] = dict(zip(self.masters.names, average, strict=True))
        return groups

    def digest(self) -> str:
        """One SHA-256 over everything the future depends on; equal states have equal digests."""
        total = hashlib.sha256(f"{self.images_seen} {self.ema.updated_at}".encode())
        for group, tensors in sorted(self.tensors().items()):
            for name, tensor in sorted(tensors.items()):
                total.update(f"{group} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                total.update(plain.numpy().data)
        return total.hexdigest()

    def keyed(self) -> dict[str, Tensor]:
        """The very tensors the optimiser moves, by name."""
        return dict(zip(self.masters.names, self.masters.tensors, strict=True))


def new_state(
    network: nn.Module, config: TrainConfig, run: RunDir, engine: Engine, about: Any
) -> TrainState:
    """The state before the first image."""
    engine.prepare(network)
    masters = Masters(network, config.precision)
    return TrainState(
        network=network,
        masters=masters,
        optimizer=build_optimizer(
            config.optimizer, masters.tensors, learning_rate=config.learning_rate
        ),
        ema=Ema(config.ema, masters.tensors),
        config=config,
        run=run,
        engine=engine,
        about=about,
    )


def save_state(state: TrainState) -> Manifest:
    """Write the state as a checkpoint of its run."""
    manifest = save_checkpoint(
        state.run.checkpoints / name_for(state.images_seen),
        state.tensors(),
        kind=CHECKPOINT_KIND,
        config={"train": configs.to_json(state.config), "about": state.about},
        images_seen=state.images_seen,
        parent=state.parent,
        extra={"ema_updated_at": state.ema.updated_at, "tied": _tied(state.network)},
    )
    state.parent = manifest.digest
    return manifest


def restore_state(state: TrainState, folder: Path) -> None:
    """Set a state to what a checkpoint holds.

    Raises:
        CheckpointError: If it is damaged, or was made for another network, optimiser or set of averages.
    """
    manifest = verify(folder)
    if manifest.kind != CHECKPOINT_KIND:
        raise CheckpointError(f"{folder} holds a {manifest.kind}, not the state of a training run")
    averages = [
        n.removeprefix("ema-").removesuffix(".safetensors")
        for n in manifest.digests
        if n.startswith("ema-")
    ]
    read = {n: load_tensors(folder, n, manifest=manifest) for n in ("network", "optimizer")}
    own = {**state.masters.by_name(), **_untrained(state.network)}
    check_names(own, read["network"], where=f"{folder}/network")
    names = state.masters.names
    with torch.no_grad():
        for name, tensor in _untrained(state.network).items():
            tensor.copy_(read["network"][name])
    state.masters.fill([read["network"][name] for name in names])
    fill_optimizer(state.optimizer, state.keyed(), read["optimizer"])
    saved_averages: dict[str, list[Tensor]] = {}
    for average in averages:
        tensors = load_tensors(folder, f"ema-{average}", manifest=manifest)
        check_names(state.masters.by_name(), tensors, where=f"{folder}/ema-{average}")
        saved_averages[average] = [tensors[name] for name in names]
    state.ema.fill(saved_averages, int(manifest.extra["ema_updated_at"]))
    state.images_seen = manifest.images_seen
    state.parent = manifest.digest


def _tied(network: nn.Module) -> dict[str, str]:
    """Further names of trained weights that are known by several, each with the name they are saved under."""
    owners = {id(p): name for name, p in network.named_parameters() if p.requires_grad}
    every = network.named_parameters(remove_duplicate=False)
    return {
        alias: owners[id(p)] for alias, p in every if id(p) in owners and owners[id(p)] != alias
    }


def _untrained(network: nn.Module) -> dict[str, Tensor]:
    """Buffers and frozen parameters: what is saved but never stepped."""
    trained = {id(p) for p in network.parameters() if p.requires_grad}
    parameters = dict(network.named_parameters(remove_duplicate=False))
    return {
        key: tensor
        for key, tensor in network.state_dict().items()
        if key not in parameters or id(parameters[key]) not in trained
    }


def join(parts: Iterable[Tensor | None]) -> Tensor | None:
    """Tensors of several microbatches as one; None when any of them is."""
    tensors = list(parts)
    given = [t for t in tensors if t is not None]
    if not given or len(given) != len(tensors):
        return None
    return torch.cat(given)


def about_json(about: Any) -> Any:
    """Plain JSON of what a caller says about the run, be it a configuration or JSON already."""
    return configs.to_json(about) if dataclasses.is_dataclass(about) else about


__all__ = [
    "CHECKPOINT_KIND",
    "StepReport",
    "TrainState",
    "about_json",
    "join",
    "new_state",
    "restore_state",
    "save_state",
]
