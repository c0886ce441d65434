"""Edge supervision in a run: heads beside the network, and pages that show what they draw."""

from functools import partial
from pathlib import Path

import torch

from bottega import seeding
from bottega.conditioning import Encoders
from bottega.data import Batch, Source
from bottega.errors import InputError
from bottega.evaluation.edge_page import EdgeLook, look_at_edges
from bottega.models import UNet
from bottega.models.edge_head import EdgeSupervised
from bottega.pipelines import save_picture
from bottega.recipes.branch import denoiser_task, read_config
from bottega.recipes.compare import averaged
from bottega.recipes.denoisers import denoiser_of
from bottega.recipes.encoders import average_to_ship
from bottega.recipes.latents import open_space
from bottega.recipes.run import DenoiserTask, RunConfig
from bottega.recipes.sources import preview_batch
from bottega.rundir import RunDir
from bottega.training import Objective, TrainState, load_ema
from bottega.training.edge_objective import EdgeObjective, EdgeSupervision
from bottega.training.edge_targets import EdgedSource, edge_finder

_NUM_PICTURES = 4
_SHARE = 0.25
"""Previews are looked at with this share of the largest noise at which edges are learned."""


def with_edge_heads(
    network: UNet, objective: Objective, task: DenoiserTask, seed: int
) -> tuple[UNet | EdgeSupervised, Objective]:
    """The network with heads and the objective with their loss, where the task has edges; else as they are."""
    if task.edges is None:
        return network, objective
    return (
        edge_supervised(network, task.edges, seed),
        EdgeObjective(objective=objective, settings=task.edges),
    )


def edge_supervised(network: UNet, edges: EdgeSupervision, seed: int) -> EdgeSupervised:
    """The network beside heads that have learned nothing; the same heads for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeding.derive(seed, "edge heads"))
        return EdgeSupervised(network, edges.head)


def with_edges(source: Source, task: DenoiserTask) -> Source:
    """The source with its pictures' edges, where the task has some to learn.

    Raises:
        CheckpointError: For weights of an edge detector that cannot be used.
    """
    return source if task.edges is None else EdgedSource(source, task.edges.targets)


def look(
    config: RunConfig, network: EdgeSupervised, encoders: Encoders, sigma: float, batch: Batch
) -> EdgeLook:
    """What a run's heads draw of some pictures with so much noise on them."""
    task = denoiser_task(config)
    edges = _edges(task)
    device = next(network.parameters()).device
    space = open_space(task)
    pictures = batch.clean().to(device)
    return look_at_edges(
        network,
        partial(denoiser_of, task),
        pictures if space is None else space.encode(pictures),
        encoders.condition(list(batch.captions)).to(device=device),
        edge_finder(edges.targets)(batch).to(device),
        sigma,
        pictures=pictures,
        seed=config.train.seed,
    )


def look_at_run(
    folder: Path | str, encoders: Encoders, sigma: float, num_pictures: int = _NUM_PICTURES
) -> EdgeLook:
    """The same for the newest checkpoint of a run, with its averaged weights and pictures it has not seen.

    Raises:
        InputError: For a folder that is no run, or a run without edge supervision.
        CheckpointError: If it has no checkpoint yet.
    """
    config = read_config(folder)
    task = denoiser_task(config)
    network = edge_supervised(UNet(task.network), _edges(task), config.train.seed)
    load_ema(network, RunDir(folder), std=average_to_ship(config.train))
    batch = preview_batch(config, num_pictures)
    return look(config, network.eval(), encoders, sigma, batch)


class EdgePreview:
    """Lays a page of edges beside a run's other previews, always of the same pictures."""

    def __init__(self, config: RunConfig, encoders: Encoders) -> None:
        """Show the run of ``config``, prompted through ``encoders``."""
        self._config, self._encoders = config, encoders
        self._sigma = _SHARE * _edges(denoiser_task(config)).below_sigma

    def __call__(self, state: TrainState, target: Path) -> None:
        """Write ``edges-...png`` beside ``target``."""
        assert isinstance(
            state.network, EdgeSupervised
        )  # this run has edges, see `with_edge_heads`
        batch = preview_batch(self._config, _NUM_PICTURES)
        with averaged(state):
            seen = look(self._config, state.network, self._encoders, self._sigma, batch)
        save_picture(seen.page, target.with_name(f"edges-{target.name}"))


def _edges(task: DenoiserTask) -> EdgeSupervision:
    if task.edges is None:
        raise InputError(
            "this run learned no edges: its task.edges is none, so there is nothing to show"
        )
    return task.edges


__all__ = [
    "EdgePreview",
    "edge_supervised",
    "look",
    "look_at_run",
    "with_edge_heads",
    "with_edges",
]
