"""One denoiser against ensembles of two and four experts, at equal training images and equal cost per picture.

What eDiff-I's Figures 7 and 13 show, on the lab's forty things. Per seed one root is trained; three arms go on from it,
each for the same number of images in all: ``one`` denoiser of all noise, ``two`` experts of the halves, and ``four``
experts of the quarters, grown level by level. Every picture costs the same number of calls of networks of the same
size. Stopped, it goes on where it was.

    python experiments/experts.py runs/experts --seeds 0 1 2 --root-images 40000 --images 39936
    python experiments/experts.py runs/experts --report docs/experiments
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import bottega
from bottega.data.emoji_world import vocabulary
from bottega.ensemble import parse_part
from bottega.evaluation.arms import guidance_arms, prompt_tasks, real_pictures
from bottega.evaluation.judge import Judge
from bottega.evaluation.plot import Curve, plot
from bottega.evaluation.prompts import make_prompts
from bottega.evaluation.study import conduct
from bottega.evaluation.study_report import save_study
from bottega.recipes import RunConfig, begin_child, read_config, recipe, train
from bottega.recipes.run import DenoiserTask
from bottega.recipes.ship import ship_runs

ARMS = {"one": (), "two": ("1/0", "1/1"), "four": ("1/0", "1/1", "2/0", "2/1", "2/2", "2/3")}
JUDGE = Path(bottega.__file__).parent / "weights" / "piccolo" / "judge"
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)


def root_config(seed: int, images: int, encoders: str) -> RunConfig:
    """The lab's own recipe, with a seed of its own."""
    config = recipe("lab")
    assert isinstance(config.task, DenoiserTask)
    return replace(
        config,
        task=replace(config.task, encoders=encoders),
        train=replace(config.train, seed=seed, total_images=images),
    )


def train_seed(folder: Path, seed: int, options: argparse.Namespace) -> None:
    """The root and the three arms of one seed."""
    home = folder / f"seed-{seed}"
    config = root_config(seed, options.root_images, options.encoders)
    root = home / "root"
    _finish(config, root)
    _one(config, root, home / "one", options.images)
    for arm in ("two", "four"):
        for part in ARMS[arm]:
            _expert(home, arm, part, root, options.images)


def _finish(config: RunConfig, run: Path) -> None:
    if not (run / "export").is_dir():
        train(config, run, resume=True)


def _one(root: RunConfig, start: Path, run: Path, images: int) -> None:
    """The arm without experts is trained as a child of all noise would be: from the average, with a fresh course."""
    assert isinstance(root.task, DenoiserTask)
    task = replace(root.task, start_from=str(start / "export"))
    ema = replace(root.train.ema, head_start_images=min(images, root.train.total_images))
    course = replace(root.train, total_images=images, seed=root.train.seed + 1000, ema=ema)
    _finish(replace(root, name="lab-one", task=task, train=course), run)


def _expert(home: Path, arm: str, part: str, root: Path, images: int) -> None:
    """One expert denoiser of an arm; all of an arm share its images evenly."""
    parts = ARMS[arm]
    name = f"{arm}-{part.replace('/', '-')}"
    run = home / name
    level, index = map(int, part.split("/"))
    parent = root if level == 1 else home / f"{arm}-1-{index // 2}"
    if not run.is_dir():
        settings = {"train.total_images": str(images // len(parts) // 64 * 64)}
        begin_child(parent, parse_part(part), run, ensemble=home / arm, settings=settings)
    if not (run / "export").is_dir():
        train(read_config(run), run, resume=True)


def measure_seed(folder: Path, seed: int, options: argparse.Namespace) -> None:
    """Alignment and distance of the three arms over guidance."""
    home = folder / f"seed-{seed}"
    judge = Judge.load(options.judge)
    painters = []
    for arm in ARMS:
        model = home / "models" / arm
        if not model.is_dir():
            run = home / ("one" if arm == "one" else f"{arm}-1-0")
            ship_runs([run], model, name=arm, judge=options.judge)
        painters.append(bottega.load(model))
    things = vocabulary("core", 40)
    prompts = make_prompts(
        things, per_category=options.prompts, categories=("single", "backgrounds")
    )
    settings = [painter.resolve(None, {}) for painter in painters]
    study = conduct(
        "tradeoff",
        guidance_arms(painters, prompts, SCALES, settings),
        prompt_tasks(prompts),
        judge,
        card={"seed": seed, "models": {p.name: p.digest for p in painters}},
        seeds=(0, 1),
        real=real_pictures(prompts, painters[0].stages[-1].size),
        journal=home / "journal.jsonl",
        batch_size=20,
    )
    save_study(study, home / "study.json")


def report(folder: Path, target: Path) -> None:
    """Curves with bands over the seeds, and the table behind them."""
    studies = [json.loads(p.read_text()) for p in sorted(folder.glob("seed-*/study.json"))]
    if not studies:
        raise SystemExit(f"{folder} has no study.json yet")
    target.mkdir(parents=True, exist_ok=True)
    rows: dict[tuple[str, float], dict[str, list[float]]] = {}
    for study in studies:
        for arm in study["arms"]:
            name, at, scale = arm["name"].rpartition(" @ ")
            if at:
                row = rows.setdefault((name, float(scale)), {"right": [], "distance": []})
                row["right"].append(arm["shares"]["right"]["share"])
                row["distance"].append(arm["distance"])
    for what, words in (("right", "share of prompts right"), ("distance", "distance from real")):
        curves = [_curve(name, rows, what) for name in ARMS]
        page = plot(
            curves,
            title=f"{words}, {len(studies)} seeds, band = one standard deviation",
            x_name="guidance scale",
            y_name=words,
            log_x=True,
        )
        page.save(target / f"experts-{what}.png")
    table = [
        {"arm": name, "guidance": scale, **{k: [round(x, 4) for x in v] for k, v in row.items()}}
        for (name, scale), row in rows.items()
    ]
    (target / "experts.json").write_text(json.dumps(table, indent=1) + "\n")
    for line in table:
        print(line)


def _curve(name: str, rows: dict[tuple[str, float], dict[str, list[float]]], what: str) -> Curve:
    points, bands = [], []
    for scale in SCALES:
        values = rows[name, scale][what]
        middle = mean(values)
        spread = stdev(values) if len(values) > 1 else 0.0
        points.append((scale, middle))
        bands.append((middle - spread, middle + spread))
    return Curve(name=name, points=tuple(points), bands=tuple(bands))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--root-images", type=int, default=40_000)
    parser.add_argument("--images", type=int, default=39_936, help="of every arm, beyond the root")
    parser.add_argument("--prompts", type=int, default=40, help="per category")
    parser.add_argument("--encoders", default="piccolo", help="a folder of t5 and clip, or a model")
    parser.add_argument("--judge", type=Path, default=JUDGE, help="a judge's folder")
    parser.add_argument("--report", type=Path, help="only write curves and table here")
    options = parser.parse_args()
    if options.report is not None:
        report(options.folder, options.report)
        return
    for seed in options.seeds:
        train_seed(options.folder, seed, options)
        measure_seed(options.folder, seed, options)


if __name__ == "__main__":
    main()
