"""What RAPHAEL's experts and edges add, at equal pictures, and what their number costs and brings.

On the lab's forty things, with one training per arm and seed. The arms of the ablation: ``dense`` has an ordinary
feed-forward of about the cost of the experts that work at a place; ``time`` and ``space`` have one kind of expert,
``both`` both, and ``edges`` learns edges besides. ``--experts`` names numbers of space experts instead. Stopped, it
goes on where it was.

    python experiments/raphael.py runs/raphael --seeds 0 1 2 --images 40064
    python experiments/raphael.py runs/raphael-experts --experts 1 2 4 6 8 --seeds 0 --images 40064
    python experiments/raphael.py runs/raphael --report docs/experiments
"""

import argparse
from dataclasses import replace
from pathlib import Path

from guidance_curves import JUDGE, finish, measure, report
from unseen_errors import errors_as_markdown, measure_errors

from bottega.models.raphael_plans import piccolo_raphael_pixels, raphael_arms, with_space_experts
from bottega.models.unet_config import UNetConfig
from bottega.recipes import RunConfig, recipe
from bottega.recipes.run import DenoiserTask
from bottega.recipes.ship import ship_runs
from bottega.training.edge_objective import EdgeSupervision

ABLATION = ("dense", "time", "space", "both", "edges")
SCALES = (1.5, 3.0, 4.5, 6.0, 7.5, 9.0)


def arm_config(arm: str, seed: int, images: int, encoders: str) -> RunConfig:
    """The lab's own recipe with an arm's network, and a seed and length of its own."""
    config = recipe("lab-raphael")
    assert isinstance(config.task, DenoiserTask)
    task = replace(config.task, encoders=encoders, network=network_of(arm))
    if arm == "edges":
        task = replace(task, edges=EdgeSupervision())
    return replace(config, task=task, train=replace(config.train, seed=seed, total_images=images))


def network_of(arm: str) -> UNetConfig:
    """The network of an arm of the ablation, or of ``N-experts``."""
    count, _, is_number = arm.partition("-")
    if is_number:
        return with_space_experts(piccolo_raphael_pixels(), int(count))
    return raphael_arms()["both" if arm == "edges" else arm]


def train_arm(home: Path, arm: str, seed: int, options: argparse.Namespace) -> Path:
    """One arm of one seed, as a model folder."""
    run, model = home / arm, home / "models" / arm
    finish(arm_config(arm, seed, options.images, options.encoders), run)
    if not model.is_dir():
        ship_runs([run], model, name=arm, judge=options.judge)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=40_064, help="of every arm")
    parser.add_argument("--experts", type=int, nargs="+", help="numbers of space experts instead")
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES, help="of guidance")
    parser.add_argument("--prompts", type=int, default=20, help="per category")
    parser.add_argument("--unseen", type=int, default=256, help="scenes to measure errors on")
    parser.add_argument("--encoders", default="piccolo", help="a folder of t5 and clip, or a model")
    parser.add_argument("--judge", type=Path, default=JUDGE, help="a judge's folder")
    parser.add_argument("--report", type=Path, help="only write curves and table here")
    options = parser.parse_args()
    if options.report is not None:
        report(options.folder, options.report, options.folder.name)
        print("", *errors_as_markdown(options.folder), sep="\n")
        return
    arms = ABLATION if options.experts is None else [f"{n}-experts" for n in options.experts]
    for seed in options.seeds:
        home = options.folder / f"seed-{seed}"
        models = [train_arm(home, arm, seed, options) for arm in arms]
        world = arm_config(arms[0], seed, options.images, options.encoders)
        measure_errors(models, home, world, pictures=options.unseen)
        measure(
            models,
            home,
            scales=options.scales,
            seed=seed,
            prompts=options.prompts,
            judge=options.judge,
        )


if __name__ == "__main__":
    main()
