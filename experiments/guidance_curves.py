"""Arms of an experiment over guidance: measured seed by seed, and drawn as curves with bands over the seeds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import bottega
from bottega.checkpoint import load_manifest
from bottega.data.emoji_world import vocabulary
from bottega.evaluation.arms import guidance_arms, prompt_tasks, real_pictures
from bottega.evaluation.judge import Judge
from bottega.evaluation.plot import Curve, plot
from bottega.evaluation.prompts import make_prompts
from bottega.evaluation.study import conduct
from bottega.evaluation.study_report import save_study
from bottega.recipes import RunConfig, train

JUDGE = Path(bottega.__file__).parent / "weights" / "piccolo" / "judge"
SHOWN = {"right": "share of prompts right", "distance": "distance from real"}

Table = dict[tuple[str, float], dict[str, list[float]]]
"""By arm and guidance scale: what was measured, one value per seed."""


def finish(config: RunConfig, run: Path) -> None:
    """Train a run to its end, or on from where it was stopped; whoever stops it stops the experiment."""
    export, images = run / "export", config.train.total_images
    if export.is_dir() and load_manifest(export).images_seen == images:
        return
    if train(config, run, resume=run.is_dir()).stopped_by is not None:
        raise SystemExit(f"{run} was stopped; the same command goes on")


def measure(
    models: Sequence[Path],
    home: Path,
    *,
    scales: Sequence[float],
    seed: int,
    prompts: int,
    judge: Path = JUDGE,
) -> None:
    """Alignment and distance of a seed's models over guidance, on the lab's things, into ``home/study.json``.

    Args:
        models: A model folder for every arm, whose name the arm gets.
        home: Keeps the journal too, from which a measurement that was stopped goes on.
        scales: Guidance scales.
        seed: Of the training; named in the study.
        prompts: Per category.
        judge: A judge's folder.
    """
    eye = Judge.load(judge)
    painters = [bottega.load(folder) for folder in models]
    asked = make_prompts(
        vocabulary("core", 40), per_category=prompts, categories=("single", "backgrounds")
    )
    study = conduct(
        "tradeoff",
        guidance_arms(painters, asked, scales, [painter.resolve(None, {}) for painter in painters]),
        prompt_tasks(asked),
        eye,
        card={"seed": seed, "models": {p.name: p.digest for p in painters}},
        seeds=(0, 1),
        real=real_pictures(asked, painters[0].stages[-1].size),
        journal=home / "journal.jsonl",
        batch_size=20,
    )
    save_study(study, home / "study.json")


def report(folder: Path, target: Path, name: str) -> None:
    """Curves with bands over the seeds, and the table behind them, from every ``seed-*/study.json``."""
    studies = [json.loads(p.read_text()) for p in sorted(folder.glob("seed-*/study.json"))]
    if not studies:
        raise SystemExit(f"{folder} has no study.json yet")
    target.mkdir(parents=True, exist_ok=True)
    table = gathered(studies)
    arms = list(dict.fromkeys(arm for arm, _ in table))
    for what, words in SHOWN.items():
        page = plot(
            [_curve(arm, table, what) for arm in arms],
            title=f"{words}, {len(studies)} seeds, band = one standard deviation",
            x_name="guidance scale",
            y_name=words,
            log_x=True,
        )
        page.save(target / f"{name}-{what}.png")
    rows = [
        {"arm": arm, "guidance": scale, **{k: [round(x, 4) for x in v] for k, v in row.items()}}
        for (arm, scale), row in table.items()
    ]
    (target / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    for line in as_markdown(table):
        print(line)


def gathered(studies: Sequence[Mapping[str, object]]) -> Table:
    """What studies of several seeds found, arm by arm and scale by scale."""
    table: Table = {}
    for study in studies:
        arms = study["arms"]
        assert isinstance(arms, list)  # written by `save_study`
        for arm in arms:
            name, at, scale = arm["name"].rpartition(" @ ")
            if at:
                row = table.setdefault((name, float(scale)), {what: [] for what in SHOWN})
                row["right"].append(arm["shares"]["right"]["share"])
                row["distance"].append(arm["distance"])
    return table


def as_markdown(table: Table) -> list[str]:
    """A row per arm, a column per scale: alignment in percent / distance, each mean over the seeds and its spread."""
    scales = sorted({scale for _, scale in table})
    lines = [
        "| arm | " + " | ".join(f"{scale:g}" for scale in scales) + " |",
        "|---" * (len(scales) + 1) + "|",
    ]
    for arm in dict.fromkeys(arm for arm, _ in table):
        cells = []
        for scale in scales:
            row = table[arm, scale]
            right = [100 * value for value in row["right"]]
            cells.append(f"{_spread(right, 1)}% / {_spread(row['distance'], 1)}")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return lines


def _spread(values: Sequence[float], digits: int) -> str:
    middle = f"{mean(values):.{digits}f}"
    return middle if len(values) < 2 else f"{middle} +- {stdev(values):.{digits}f}"


def _curve(arm: str, table: Table, what: str) -> Curve:
    points, bands = [], []
    for scale in sorted(scale for name, scale in table if name == arm):
        values = table[arm, scale][what]
        middle = mean(values)
        spread = stdev(values) if len(values) > 1 else 0.0
        points.append((scale, middle))
        bands.append((middle - spread, middle + spread))
    return Curve(name=arm, points=tuple(points), bands=tuple(bands))
