"""A whole training programme as data: which expert denoisers a model is to have, from whom each grows, for how long.

A programme has a stage for each denoiser of the cascade; a stage is the run at its root and the nodes below it. All of
it is plain JSON, to be read, changed and executed by ``bottega train --plan``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bottega.checkpoint.ensemble import folder_for
from bottega.checkpoint.standing import check_nested, is_within
from bottega.config import from_json, to_json
from bottega.ensemble import Between, Complement, Node, Part, parse_part, sigma_bounds
from bottega.errors import ConfigError, InputError, nearest
from bottega.recipes.branch import child_config, denoiser_task
from bottega.recipes.run import DenoiserTask, RunConfig

FORMAT_VERSION = 1
"""The newest plan this version reads, and the one it writes."""

KIND = "plan"
ROOT = "0/0"
SHAPES = ("ediffi", "levels", "two", "custom")


@dataclass(frozen=True, kw_only=True)
class PlannedNode:
    """An expert denoiser to be trained: its noise, from whom it grows, and how many images it sees.

    ``settings`` are further ones by dotted path, as ``--set`` takes them.
    """

    part: str
    parent: str
    images: int
    settings: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        object.__setattr__(self, "part", str(parse_part(self.part)))
        object.__setattr__(self, "parent", str(parse_part(self.parent)))
        if self.images < 1:
            raise ConfigError(f"node {self.part} sees at least 1 image, got {self.images}")
        if "train.total_images" in self.settings:
            raise ConfigError(f"node {self.part}: say how long it trains with images, not settings")

    def all_settings(self) -> dict[str, str]:
        """The settings with the node's length among them."""
        return {**self.settings, "train.total_images": str(self.images)}


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """One denoiser of a cascade and the experts that it becomes.

    ``run`` are the settings of the root, which learns all noise; ``root_run`` is the folder of a finished run that is
    the root already. ``nodes`` come after their parents.
    """

    name: str
    run: RunConfig
    nodes: tuple[PlannedNode, ...] = ()
    root_run: str | None = None

    def __post_init__(self) -> None:
        task = self.task
        if task.part != Node(0, 0):
            raise ConfigError(f"stage {self.name}: the root learns all noise, not {task.part}")
        known = {ROOT: parse_part(ROOT)}
        for node in self.nodes:
            if node.part in known:
                raise ConfigError(f"stage {self.name} has the node {node.part} twice")
            if node.parent not in known:
                raise ConfigError(
                    f"stage {self.name}: {node.part} grows from {node.parent}, which comes nowhere before it"
                    f"{nearest(node.parent, known)}"
                )
            part = parse_part(node.part)
            if not is_within(part, known[node.parent], task.noise):
                raise ConfigError(f"stage {self.name}: {node.part} is not below {node.parent}")
            known[node.part] = part
            child_config(self.run, part, node.all_settings(), seen=0)  # refuses what cannot be set
        check_nested(list(known.values()), task.noise)

    @property
    def task(self) -> DenoiserTask:
        """What the stage's denoisers are."""
        return denoiser_task(self.run)

    def wave(self, part: str) -> int:
        """How many others must be trained before this one: 0 for the root, 1 for its children."""
        node = self.node(part)
        return 0 if node is None else 1 + self.wave(node.parent)

    def node(self, part: str) -> PlannedNode | None:
        """The node for a part; None for the root."""
        return next((node for node in self.nodes if node.part == part), None)

    @property
    def parts(self) -> tuple[str, ...]:
        """The root and all nodes, in the order of the plan."""
        return (ROOT, *(node.part for node in self.nodes))


@dataclass(frozen=True, kw_only=True)
class NodeForecast:
    """What one node will take. ``path_images`` are its own and its ancestors'; ``sigma`` says its noise in words.

    ``wave`` counts from 0; nodes of one wave need nothing of each other and can train side by side on different
    machines. ``flops`` are of training, ``seconds`` None where no speed is known.
    """

    stage: str
    part: str
    sigma: str
    wave: int
    images: int
    path_images: int
    flops: int
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class StageLedger:
    """Equal compute, stage by stage: what one network call costs, and what all training together comes to.

    Every call goes to one expert denoiser, so a picture takes ``ensemble_call_flops`` per call, which is the single
    model's ``call_flops``. What is done once per prompt is done by each expert that paints. A single model trained for
    ``images`` has seen as much as all nodes together, while the weights of the longest path have seen ``path_images``.
    """

    stage: str
    parameters: int
    num_experts: int
    call_flops: int
    ensemble_call_flops: int
    prompt_flops: int
    ensemble_prompt_flops: int
    images: int
    path_images: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a programme will take: node by node, stage by stage, and in all.

    ``seconds_in_a_row`` is on one machine, ``seconds_side_by_side`` on ``num_machines`` of its kind.
    """

    nodes: tuple[NodeForecast, ...]
    ledgers: tuple[StageLedger, ...]
    flops: int
    num_machines: int
    seconds_in_a_row: float | None = None
    seconds_side_by_side: float | None = None


@dataclass(frozen=True, kw_only=True)
class Programme:
    """All of it. ``forecast`` is what it will take, worked out when the plan was made."""

    name: str
    shape: str
    stages: tuple[PlannedStage, ...]
    forecast: Forecast | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("a plan needs at least one stage")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ConfigError(f"two stages are called alike: {', '.join(names)}")
        if not self.name or folder_for(self.name) != self.name:
            raise ConfigError(
                f"a plan's name is a folder's name (letters, digits, - and .), got {self.name!r}"
            )

    def stage(self, name: str) -> PlannedStage:
        """The stage of that name.

        Raises:
            InputError: If there is none; the message suggests the nearest.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = [stage.name for stage in self.stages]
        raise InputError(f"the plan has no stage {name!r}{nearest(name, known)}")


def plan_stage(
    name: str,
    run: RunConfig,
    shape: str,
    *,
    images: int | None = None,
    depth: int = 2,
    sigma: float | None = None,
    nodes: Sequence[str] = (),
    root_run: str | None = None,
) -> PlannedStage:
    """A stage in one of the shapes that are known.

    Args:
        name: What the stage is called, and its folders begin with.
        run: The settings of its root.
        shape: ``ediffi`` is the published system: for a base the leaves E^9_511 and E^3_0 and a complement for all
            between, for a super-resolution net two halves. ``levels`` halves every node, level by level. ``two`` are
            two experts on both sides of a ``sigma``. ``custom`` are the ``nodes`` given.
        images: How many each node sees; by default a tenth of the root's.
        depth: How many levels, for ``levels``.
        sigma: Where to split, for ``two``.
        nodes: Parts of the noise, for ``custom``; each grows from the narrowest of the others around it.
        root_run: The folder of a finished run to grow from.

    Raises:
        InputError: For an unknown shape, or one that lacks what it needs.
        ConfigError: For nodes that do not fit together.

    Source: eDiff-I (arXiv:2211.01324), section 4.1, Table 1 (Config D) and Figure 7. Which inner levels were trained on
    the way to the leaves is not published; here they are left out, and can be had as ``custom``.
    """
    task = denoiser_task(run)
    parts = _parts(task, shape, depth, sigma, nodes)
    seen = images
    if seen is None:
        seen = child_config(run, Node(1, 0), {}, seen=0).train.total_images
    planned = tuple(
        PlannedNode(part=str(part), parent=_narrowest_around(part, parts, task), images=seen)
        for part in parts
    )
    return PlannedStage(name=name, run=run, nodes=planned, root_run=root_run)


def _parts(
    task: DenoiserTask, shape: str, depth: int, sigma: float | None, nodes: Sequence[str]
) -> list[Part]:
    """The parts of a shape, each after those that it lies in."""
    if shape not in SHAPES:
        raise InputError(f"shape {shape!r} is not known{nearest(shape, SHAPES)}")
    if (shape == "two") != (sigma is not None):
        raise InputError("--sigma says where the shape two is split; they go together")
    if (shape == "custom") != bool(nodes):
        raise InputError("--node names the nodes of the shape custom; they go together")
    if shape == "two":
        return [Between(0.0, sigma), Between(sigma if sigma is not None else 0.0, None)]
    if shape == "levels" or (shape == "ediffi" and task.low_res_size is not None):
        levels = depth if shape == "levels" else 1
        if not 1 <= levels <= 6:
            raise InputError(f"--depth is 1 to 6 levels, got {depth}")
        return [Node(level, i) for level in range(1, levels + 1) for i in range(2**level)]
    if shape == "ediffi":
        leaves = (Node(9, 511), Node(3, 0))
        return [*leaves, Complement(leaves)]
    given = [parse_part(node) for node in nodes]
    return sorted(given, key=lambda part: -_share(part, task))


def _share(part: Part, task: DenoiserTask) -> float:
    """How much of the training noise is a part's."""
    noise = task.noise
    return sum(noise.cdf(high) - noise.cdf(low) for low, high in sigma_bounds(part, noise))


def _narrowest_around(part: Part, parts: Sequence[Part], task: DenoiserTask) -> str:
    around = [other for other in parts if is_within(part, other, task.noise)]
    return str(min(around, key=lambda other: _share(other, task), default=Node(0, 0)))


def read_plan(path: Path | str) -> Programme:
    """A plan from its file.

    Raises:
        InputError: When it cannot be read.
        ConfigError: When it is no plan, makes no sense, or is newer than this version.
    """
    path = Path(path)
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the plan {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no plan: {error}") from None
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind != KIND:
        raise ConfigError(f"{path} is no plan; bottega plan writes one")
    version = data.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ConfigError(
            f"{path} has format {version}, this version reads up to {FORMAT_VERSION}; upgrade bottega"
        )
    facts = {key: value for key, value in data.items() if key != "kind"}
    return from_json(Programme, facts, where=str(path))


def plan_text(programme: Programme) -> str:
    """The plan as its file holds it."""
    return json.dumps({**to_json(programme), "kind": KIND}, indent=2, allow_nan=False) + "\n"


def same_work(first: Programme, second: Programme) -> bool:
    """Whether two plans ask for the same, whatever they forecast."""
    return replace(first, forecast=None) == replace(second, forecast=None)


__all__ = [
    "ROOT",
    "SHAPES",
    "Forecast",
    "NodeForecast",
    "PlannedNode",
    "PlannedStage",
    "Programme",
    "StageLedger",
    "plan_stage",
    "plan_text",
    "read_plan",
    "same_work",
]
