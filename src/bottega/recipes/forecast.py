"""What a programme will take, before it is begun: images, operations, time, and what can be done side by side."""

import time
from collections.abc import Mapping
from dataclasses import replace

import torch

from bottega.checkpoint.ensemble import EnsembleManifest, Member, folder_for
from bottega.data import Batch
from bottega.ensemble import parse_part
from bottega.journal import Journal
from bottega.models.counting import Description, describe
from bottega.pipelines.devices import find_device
from bottega.recipes.branch import noise_in_words
from bottega.recipes.programme import (
    Forecast,
    NodeForecast,
    PlannedStage,
    Programme,
    StageLedger,
)
from bottega.recipes.run import DenoiserTask, RunConfig
from bottega.recipes.train import build
from bottega.rundir import RunDir
from bottega.seeding import generator
from bottega.training.precision import dtype_of

_TRIED_AT_ONCE = 4
_TOO_LARGE_TO_TRY = 4 * 10**11
"""Operations of a training step per picture beyond which trying one would take minutes on a CPU."""


def with_forecast(programme: Programme, rates: Mapping[str, float | None]) -> Programme:
    """The programme with what it will take.

    Args:
        programme: What to do.
        rates: Images per second that a machine trains of each stage, by its name; None where it is not known.
    """
    nodes: list[NodeForecast] = []
    ledgers: list[StageLedger] = []
    for stage in programme.stages:
        cost = describe(stage.task.network, stage.run.network_size)
        told = _nodes(stage, cost, rates.get(stage.name))
        nodes += told
        ledgers.append(_ledger(stage, cost, told))
    times = [node.seconds for node in nodes]
    known = [seconds for seconds in times if seconds is not None]
    all_known = len(known) == len(times)
    waves: dict[int, list[NodeForecast]] = {}
    for node in nodes:
        waves.setdefault(node.wave, []).append(node)
    forecast = Forecast(
        nodes=tuple(nodes),
        ledgers=tuple(ledgers),
        flops=sum(node.flops for node in nodes),
        num_machines=max(len(wave) for wave in waves.values()),
        seconds_in_a_row=sum(known) if all_known else None,
        seconds_side_by_side=_longest_path(programme, nodes) if all_known else None,
    )
    return replace(programme, forecast=forecast)


def rate_here(stage: PlannedStage) -> float | None:
    """Images per second of a stage: what its finished root says, or else what this machine's network alone does.

    Returns:
        None for a network that is too large to be tried out here.
    """
    if stage.root_run is not None:
        records = Journal(RunDir(stage.root_run).journal).read()
        rates = [r["images_per_s"] for r in records if isinstance(r.get("images_per_s"), float)]
        if rates:
            return sorted(rates)[len(rates) // 2]
    return try_network(stage.run, stage.task)


def try_network(config: RunConfig, task: DenoiserTask) -> float | None:
    """Images per second of forward and backward passes on this machine, without data and optimiser.

    Returns:
        None for a network too large to be tried.
    """
    if describe(task.network, config.network_size).training_flops > _TOO_LARGE_TO_TRY:
        return None
    device = find_device("auto")
    network, objective = build(config)
    dtype = dtype_of(config.train.precision)
    network.to(device=device, dtype=dtype)
    at_once = min(_TRIED_AT_ONCE, config.train.batch_size)
    pixels = torch.zeros(at_once, 3, config.size, config.size, dtype=torch.uint8)
    batch = Batch(images=pixels.to(device), captions=("",) * at_once, indices=tuple(range(at_once)))
    seconds: list[float] = []
    for number in range(3):  # the first also warms up
        began = time.perf_counter()
        loss = objective(network, batch, generator(0, "try", number))
        loss.total.backward()
        loss.total.item()  # waits for an accelerator
        seconds.append(time.perf_counter() - began)
    return at_once / max(min(seconds[1:]), 1e-9)


def _nodes(stage: PlannedStage, cost: Description, rate: float | None) -> list[NodeForecast]:
    told: dict[str, NodeForecast] = {}
    for part in stage.parts:
        node = stage.node(part)
        images = stage.run.train.total_images if node is None else node.images
        before = 0 if node is None else told[node.parent].path_images
        to_do = 0 if node is None and stage.root_run is not None else images
        told[part] = NodeForecast(
            stage=stage.name,
            part=part,
            sigma=noise_in_words(parse_part(part), stage.task.noise),
            wave=stage.wave(part),
            images=images,
            path_images=before + images,
            flops=to_do * cost.training_flops,
            seconds=None if rate is None else to_do / rate,
        )
    return list(told.values())


def _ledger(stage: PlannedStage, cost: Description, nodes: list[NodeForecast]) -> StageLedger:
    """The books of a stage; every node has the root's network, as `child_config` sees to."""
    painting = EnsembleManifest(
        noise=stage.task.noise,
        members=tuple(
            Member(part=part, folder=folder_for(part), digest="", images_seen=0)
            for part in stage.parts
        ),
    ).painting()
    return StageLedger(
        stage=stage.name,
        parameters=cost.parameters,
        num_experts=len(painting),
        call_flops=2 * cost.macs,
        ensemble_call_flops=2 * cost.macs,  # one expert answers each call
        prompt_flops=2 * cost.prepare_macs,
        ensemble_prompt_flops=2 * cost.prepare_macs * len(painting),
        images=sum(node.images for node in nodes),
        path_images=max(node.path_images for node in nodes),
        flops=sum(node.flops for node in nodes),
    )


def _longest_path(programme: Programme, nodes: list[NodeForecast]) -> float:
    """The time of the slowest chain from a root to a leaf."""
    longest: dict[tuple[str, str], float] = {}
    for node in nodes:
        planned = programme.stage(node.stage).node(node.part)
        before = 0.0 if planned is None else longest[node.stage, planned.parent]
        longest[node.stage, node.part] = before + (0.0 if node.seconds is None else node.seconds)
    return max(longest.values())


__all__ = ["rate_here", "try_network", "with_forecast"]
