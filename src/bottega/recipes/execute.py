"""Executing a programme: node after node, each a run of its own, and each filed in its stage's ensemble.

::

    runs/NAME/
      plan.json               what is done here
      STAGE-0-0/, STAGE-9-511/, ...   the runs
      STAGE/                  the ensemble: what the runs have come to

What has been done is read from the disk alone, so a programme may be stopped anywhere, at any moment, and gone on with.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bottega.checkpoint.ensemble import folder_for, is_ensemble, read_ensemble
from bottega.errors import CheckpointError, ConfigError, InputError, nearest
from bottega.recipes.branch import begin_child, file_run, read_config
from bottega.recipes.machine import engine_here
from bottega.recipes.programme import (
    ROOT,
    PlannedStage,
    Programme,
    plan_text,
    read_plan,
    same_work,
)
from bottega.recipes.train import train
from bottega.rundir import RunDir
from bottega.training import Engine, Hook, TrainState

PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """How a node stands: ``state`` is where its training ended, None for one that was trained before."""

    stage: str
    part: str
    run: Path
    state: TrainState | None = None

    @property
    def is_done(self) -> bool:
        """Whether the node has seen all its images and is filed."""
        return self.state is None or self.state.finished


def execute(
    programme: Programme,
    folder: Path | str,
    *,
    resume: bool = False,
    only: str | None = None,
    hooks: Callable[[], Sequence[Hook]] = tuple,
    engine: Engine | None = None,
) -> Iterator[NodeReport]:
    """Train what a programme still lacks, and say so node by node; it ends early where a run is told to stop.

    Args:
        programme: What to do.
        folder: Holds the runs and the ensembles; made when missing.
        resume: Go on in a folder where the programme was begun.
        only: A single node, written ``PART`` or ``STAGE:PART``, as one of several machines that share the folder.
        hooks: Makes further hooks for each run.
        engine: The machine; what `engine_here` finds when not given.

    Raises:
        ConfigError: If the folder was begun with another plan, or ``resume`` is missing.
        InputError: For an ``only`` that the plan does not have.
        CheckpointError: If the node to train lacks its parent, or the parent is another by now.
    """
    folder = Path(folder)
    work = _chosen(programme, only)
    engine = engine_here() if engine is None else engine
    if engine.rank == 0:
        _claim(programme, folder, goes_on=resume or only is not None)
    engine.wait()
    return _walk(folder, work, hooks, engine)


def run_folder(folder: Path, stage: PlannedStage, part: str) -> Path:
    """Where a node's run lies."""
    if part == ROOT and stage.root_run is not None:
        return Path(stage.root_run)
    return folder / f"{stage.name}-{folder_for(part)}"


def is_filed(folder: Path, stage: PlannedStage, part: str) -> bool:
    """Whether a node has been trained and stands in its stage's ensemble."""
    home = folder / stage.name
    return is_ensemble(home) and part in read_ensemble(home).parts


def _walk(
    folder: Path,
    work: Sequence[tuple[PlannedStage, str]],
    hooks: Callable[[], Sequence[Hook]],
    engine: Engine,
) -> Iterator[NodeReport]:
    for stage, part in work:
        run = run_folder(folder, stage, part)
        state = None
        if not is_filed(folder, stage, part):
            state = _train(folder, stage, part, hooks(), engine)
        report = NodeReport(stage=stage.name, part=part, run=run, state=state)
        yield report
        if not report.is_done:
            return


def _train(
    folder: Path, stage: PlannedStage, part: str, hooks: Sequence[Hook], engine: Engine
) -> TrainState | None:
    """Train one node and file it; of several processes the first makes folders and files, the others wait for it."""
    run, home = run_folder(folder, stage, part), folder / stage.name
    node = stage.node(part)
    if node is None:
        return _train_root(stage, run, home, hooks, engine)
    if not is_filed(folder, stage, node.parent):
        raise CheckpointError(
            f"{part} of {stage.name} grows from {node.parent}, which is not trained yet; train that first"
        )
    if engine.rank == 0 and not (run / "config.json").exists():
        parent = run_folder(folder, stage, node.parent)
        begin_child(parent, part, run, ensemble=home, settings=node.all_settings())
    engine.wait()
    return train(read_config(run), run, resume=True, hooks=hooks, engine=engine)


def _train_root(
    stage: PlannedStage, run: Path, home: Path, hooks: Sequence[Hook], engine: Engine
) -> TrainState | None:
    state = None
    if stage.root_run is None:
        state = train(stage.run, run, resume=True, hooks=hooks, engine=engine)
    if engine.rank == 0 and (state is None or state.finished):
        file_run(read_config(run), RunDir(run), home)
    engine.wait()
    return state


def _chosen(programme: Programme, only: str | None) -> list[tuple[PlannedStage, str]]:
    """What to train, parents before children."""
    work = [(stage, part) for stage in programme.stages for part in stage.parts]
    work.sort(key=lambda pair: pair[0].wave(pair[1]))
    if only is None:
        return work
    names = {f"{stage.name}:{part}": (stage, part) for stage, part in work}
    if len(programme.stages) == 1:
        names |= {part: (stage, part) for stage, part in work}
    wanted = only.replace(" ", "")
    if wanted not in names:
        raise InputError(f"the plan has no node {only!r}{nearest(only, names)}")
    return [names[wanted]]


def _claim(programme: Programme, folder: Path, *, goes_on: bool) -> None:
    """Write the plan into its folder, or make sure that it is the one that is there."""
    path = folder / PLAN
    if path.exists():
        if not same_work(read_plan(path), programme):
            raise ConfigError(
                f"{folder} was begun with another plan; go on with {path}, or choose another folder"
            )
        if not goes_on:
            raise ConfigError(
                f"{folder} already holds this programme: go on with --resume, or choose another folder"
            )
        return
    RunDir(folder).write_text(PLAN, plan_text(programme))


__all__ = ["PLAN", "NodeReport", "execute", "is_filed", "run_folder"]
