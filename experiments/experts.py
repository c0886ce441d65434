"""One denoiser against ensembles of two and four experts, at equal training images and equal cost per picture.

What eDiff-I's Figures 7 and 13 show, on the lab's forty things. Per seed one root is trained; three arms go on from it,
each for the same number of images in all: ``one`` denoiser of all noise, ``two`` experts of the halves, and ``four``
experts of the quarters, grown level by level. Every picture costs the same number of calls of networks of the same
size. Stopped, it goes on where it was.

    python experiments/experts.py runs/experts --seeds 0 1 2 --root-images 40000 --images 39936
    python experiments/experts.py runs/experts --report docs/experiments
"""

import argparse
from dataclasses import replace
from pathlib import Path

from guidance_curves import JUDGE, finish, measure, report

from bottega.ensemble import parse_part
from bottega.recipes import RunConfig, begin_child, read_config, recipe
from bottega.recipes.run import DenoiserTask
from bottega.recipes.ship import ship_runs

ARMS = {"one": (), "two": ("1/0", "1/1"), "four": ("1/0", "1/1", "2/0", "2/1", "2/2", "2/3")}
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
    finish(config, root)
    _one(config, root, home / "one", options.images)
    for arm in ("two", "four"):
        for part in ARMS[arm]:
            _expert(home, arm, part, root, options.images)


def _one(root: RunConfig, start: Path, run: Path, images: int) -> None:
    """The arm without experts is trained as a child of all noise would be: from the average, with a fresh course."""
    assert isinstance(root.task, DenoiserTask)
    task = replace(root.task, start_from=str(start / "export"))
    ema = replace(root.train.ema, head_start_images=min(images, root.train.total_images))
    course = replace(root.train, total_images=images, seed=root.train.seed + 1000, ema=ema)
    finish(replace(root, name="lab-one", task=task, train=course), run)


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
    finish(read_config(run), run)


def models_of(home: Path, judge: Path) -> list[Path]:
    """The three arms of a seed as model folders."""
    models = []
    for arm in ARMS:
        model = home / "models" / arm
        if not model.is_dir():
            run = home / ("one" if arm == "one" else f"{arm}-1-0")
            ship_runs([run], model, name=arm, judge=judge)
        models.append(model)
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
        report(options.folder, options.report, "experts")
        return
    for seed in options.seeds:
        train_seed(options.folder, seed, options)
        home = options.folder / f"seed-{seed}"
        measure(
            models_of(home, options.judge),
            home,
            scales=SCALES,
            seed=seed,
            prompts=options.prompts,
            judge=options.judge,
        )


if __name__ == "__main__":
    main()
