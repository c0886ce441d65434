"""The same pictures painted under several arms (settings, conditions, models) and counted side by side.

Every picture is painted and judged once; what was found goes to a journal, from which a study that was stopped goes on.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bottega.errors import InputError
from bottega.evaluation.fid import frechet_distance, gaussian
from bottega.evaluation.intervals import design_effect
from bottega.evaluation.judge import Reading
from bottega.evaluation.report import Share
from bottega.rundir import write_atomically
from bottega.shapes import Images

Held = Mapping[str, Sequence[bool]]
"""By claim, whether it holds of each thing it is made of; a claim that a picture does not make is left out."""

REAL = "real"
"""The arm of real pictures: the most that a painter could be credited with."""


@runtime_checkable
class Eye(Protocol):
    """What reads pictures and turns them into features; `Judge` is one."""

    digest: str

    def read(self, images: Images) -> list[Reading]:
        """Say what each picture shows."""
        ...

    def features(self, images: Images) -> Float[Tensor, "batch features"]:
        """A vector per picture."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing to paint: what it is called in the record, and what to make of a reading of the picture."""

    name: str
    verdict: Callable[[Reading], Held]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of painting; ``paint`` is given places in the list of tasks and as many seeds."""

    name: str
    paint: Callable[[Sequence[int], Sequence[int]], Images]


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """What was found of one picture."""

    held: Held
    seconds: float
    features: Float[Tensor, "width"]


@dataclass(frozen=True, kw_only=True)
class ArmScore:
    """One arm: its shares by claim, its distance from real pictures (None where there are none), and its time.

    ``seconds`` is the median time of painting one picture.
    """

    name: str
    shares: Mapping[str, Share]
    distance: float | None
    seconds: float
    pictures: int


@dataclass(frozen=True, kw_only=True)
class Study:
    """All arms under one card: what kind of study, of what, and how."""

    kind: str
    card: Mapping[str, Any]
    arms: tuple[ArmScore, ...]

    def arm(self, name: str) -> ArmScore:
        """One arm by its name.

        Raises:
            InputError: When there is none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise InputError(f"this study has no arm {name!r}; its arms are: {self.names}")

    @property
    def names(self) -> str:
        """Every arm's name."""
        return ", ".join(arm.name for arm in self.arms)


def conduct(
    kind: str,
    arms: Sequence[Arm],
    tasks: Sequence[Task],
    judge: Eye,
    *,
    card: Mapping[str, Any],
    seeds: Sequence[int] = (0,),
    real: Arm | None = None,
    journal: Path | None = None,
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Study:
    """Paint every task under every arm with every seed, and count.

    Args:
        kind: What the study is called.
        arms: Ways of painting, each with a name of its own.
        tasks: What is painted; the same under every arm.
        judge: Reads the pictures.
        card: Plain JSON that says what is painted and how; a journal with another card is refused.
        seeds: Pictures per task and arm.
        real: Draws real pictures of the tasks: the arm that the distances are measured to.
        journal: Where findings are kept as they come.
        batch_size: Pictures painted at a time.
        progress: Told how many pictures of how many are done.

    Raises:
        InputError: Without arms, tasks or seeds, for two arms of one name, or a journal of another study.
    """
    every = list(arms) if real is None else [real, *arms]
    names = [arm.name for arm in every]
    if not arms or not tasks or not seeds or batch_size < 1:
        raise InputError("a study needs arms, tasks, seeds and a batch size of at least 1")
    if len(set(names)) < len(names) or len(set(seeds)) < len(seeds):
        raise InputError(f"arms and seeds each need to differ, got {names} and {list(seeds)}")
    full = {**card, "kind": kind, "arms": names, "seeds": list(seeds), "judge": judge.digest}
    log = _Journal(journal, {**full, "tasks": [task.name for task in tasks]})
    found = log.findings
    wanted = [(arm, i, seed) for arm in every for i in range(len(tasks)) for seed in seeds]
    for arm in every:
        mine = [(i, s) for a, i, s in wanted if a is arm and (arm.name, i, s) not in found]
        for start in range(0, len(mine), batch_size):
            if progress is not None:
                progress(len(found), len(wanted))
            log.add(arm.name, _painted(arm, mine[start : start + batch_size], tasks, judge))
    if progress is not None:
        progress(len(found), len(wanted))
    return Study(kind=kind, card=full, arms=tuple(_scores(names, tasks, seeds, found, real)))


def _painted(
    arm: Arm, keys: Sequence[tuple[int, int]], tasks: Sequence[Task], judge: Eye
) -> dict[tuple[int, int], Finding]:
    began = time.perf_counter()
    images = arm.paint([i for i, _ in keys], [seed for _, seed in keys])
    seconds = (time.perf_counter() - began) / len(keys)
    if len(images) != len(keys):
        raise InputError(f"arm {arm.name} painted {len(images)} pictures of {len(keys)}")
    readings, features = judge.read(images), judge.features(images)
    return {
        key: Finding(held=tasks[key[0]].verdict(reading), seconds=seconds, features=row.float())
        for key, reading, row in zip(keys, readings, features, strict=True)
    }


def _scores(
    names: Sequence[str],
    tasks: Sequence[Task],
    seeds: Sequence[int],
    found: Mapping[tuple[str, int, int], Finding],
    real: Arm | None,
) -> Iterator[ArmScore]:
    def all_of(name: str) -> list[Finding]:
        return [found[name, i, seed] for i in range(len(tasks)) for seed in seeds]

    reference = None
    if real is not None and len(tasks) * len(seeds) > 1:
        reference = gaussian(f.features[None] for f in all_of(real.name))
    for name in names:
        claims = dict.fromkeys(claim for f in all_of(name) for claim in f.held)
        shares = {}
        for claim in claims:
            clusters = [
                [one for seed in seeds for one in found[name, i, seed].held.get(claim, ())]
                for i in range(len(tasks))
            ]
            trials = sum(map(len, clusters))
            if trials:
                right = sum(map(sum, clusters))
                shares[claim] = Share.of(right, trials, design_effect(clusters))
        mine = all_of(name)
        distance = None
        if reference is not None and real is not None and name != real.name:
            distance = frechet_distance(gaussian(f.features[None] for f in mine), reference)
        yield ArmScore(
            name=name,
            shares=shares,
            distance=distance,
            seconds=float(np.median([f.seconds for f in mine])),
            pictures=len(mine),
        )


class _Journal:
    """Findings, a line each, under the card they were made with; kept in memory alone without a file."""

    def __init__(self, path: Path | None, card: Mapping[str, Any]) -> None:
        self._path = path
        self.findings: dict[tuple[str, int, int], Finding] = {}
        if path is None:
            return
        plain = json.loads(json.dumps(card))
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"card": plain}) + "\n", encoding="utf-8")
            return
        try:
            whole = path.read_bytes().decode()
            kept = whole[: whole.rfind("\n") + 1]  # a last line that a crash cut off is forgotten
            first, *rows = [json.loads(line) for line in kept.splitlines()]
            found = {(r["arm"], r["task"], r["seed"]): _finding(r) for r in rows}
            theirs = first["card"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path} is damaged: {error}") from None
        if theirs != plain:
            raise InputError(f"{path} belongs to another study; name another file, or remove it")
        if kept != whole:
            write_atomically(path, kept.encode())
        self.findings |= found

    def add(self, arm: str, found: Mapping[tuple[int, int], Finding]) -> None:
        self.findings |= {(arm, i, seed): finding for (i, seed), finding in found.items()}
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as stream:
            for (i, seed), f in found.items():
                held = {claim: list(map(bool, ones)) for claim, ones in f.held.items()}
                numbers = np.ascontiguousarray(f.features.cpu().numpy(), dtype="<f4").tobytes()
                row = {"arm": arm, "task": i, "seed": seed, "held": held, "seconds": f.seconds}
                row["features"] = base64.b64encode(numbers).decode()
                stream.write(json.dumps(row) + "\n")


def _finding(row: Mapping[str, Any]) -> Finding:
    numbers = np.frombuffer(base64.b64decode(row["features"]), dtype="<f4").copy()
    return Finding(
        held={claim: tuple(map(bool, ones)) for claim, ones in row["held"].items()},
        seconds=float(row["seconds"]),
        features=torch.from_numpy(numbers),
    )


__all__ = ["REAL", "Arm", "ArmScore", "Eye", "Finding", "Held", "Study", "Task", "conduct"]
