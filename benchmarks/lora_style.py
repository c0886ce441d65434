"""A drawing style that a model has never seen, learned from 20 pictures: how often is it recognised?

    python benchmarks/lora_style.py draw pictures
    bottega train lora-style --run runs/blueprint --set data.path=pictures
    python benchmarks/lora_style.py judge runs/blueprint/export

Blueprints, white lines on blue, are none of the world's six styles, and no caption of the 20 pictures speaks of a
style or of a ground. The style judge reads the features of the model's own judge: a linear classifier of the six styles
and the new one, fitted to real pictures and tested on others, whose accuracy is printed beside the score. Prompts are
of scenes that are not among the 20.
"""

import argparse
import dataclasses
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig, render
from bottega.data.emoji_world.mixture import SceneMixture
from bottega.data.emoji_world.plan import STYLES, Plan
from bottega.data.emoji_world.render import labels
from bottega.data.emoji_world.world import describe
from bottega.evaluation import Judge, images_of
from bottega.evaluation.intervals import wilson
from bottega.pipelines import load, save_picture, sheet
from bottega.recipes.srgan import find_judge

SEED = 4211
"""Of a world that no model was trained on."""

NEW = "blueprint"
GROUND = np.array([26, 66, 148], np.float32)
LINE = np.array([236, 242, 255], np.float32)
DRAWN_AT = 128


def world(num_things: int) -> EmojiWorld:
    """One or two plain things, nothing written."""
    mixture = dataclasses.replace(SceneMixture(), style=0.0, words=0.0, tint=0.0)
    return EmojiWorld(EmojiWorldConfig(seed=SEED, num_things=num_things, mixture=mixture))


def blueprint(plan: Plan, size: int = DRAWN_AT) -> np.ndarray:
    """White lines along every step of lightness, on blue; things are a little lighter than the ground."""
    plain = render(dataclasses.replace(plan, style="plain"), size).astype(np.float32)
    things = labels(plan, size) > 0
    light = plain @ np.array([0.299, 0.587, 0.114], np.float32) + 90 * things
    padded = np.pad(light, 1, mode="edge")
    steps = np.maximum(
        np.abs(padded[1:-1, 2:] - padded[1:-1, :-2]), np.abs(padded[2:, 1:-1] - padded[:-2, 1:-1])
    )
    line = np.clip(steps * (2.2 / 255), 0, 1)[..., None]
    paper = GROUND + 22 * things[..., None]
    return np.clip(paper * (1 - line) + LINE * line + 0.5, 0, 255).astype(np.uint8)


def drawn(plan: Plan, style: str) -> np.ndarray:
    """A plan in any of the seven styles."""
    if style == NEW:
        return blueprint(plan)
    return render(dataclasses.replace(plan, style=style), DRAWN_AT)


def said_of(plan: Plan) -> str:
    """What stands where; not on what ground, which a blueprint has not."""
    plain = describe(dataclasses.replace(plan, style="plain"))
    return re.sub(r",?( on)? an? \w+ background$", "", plain)


def draw(folder: Path, count: int, num_things: int, style: str) -> None:
    """Write pictures with captions that say nothing of a style."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = world(num_things)
    for index in range(count):
        plan = scenes.plan(index)
        Image.fromarray(drawn(plan, style)).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text(said_of(plan) + "\n", encoding="utf-8")
    print(f"{folder}: {count} pictures in the style {style}")


class StyleJudge:
    """A linear classifier on what the judge makes of pictures before it finds words."""

    def __init__(self, judge: Judge, scenes: EmojiWorld, first: int, count: int) -> None:
        """Fit it to ``count`` pictures of every style."""
        self.judge = judge
        self.styles = (*STYLES, NEW)
        features, targets = self._real(scenes, first, count)
        self.mean, self.std = features.mean(0), features.std(0) + 1e-6
        self.linear = nn.Linear(features.shape[1], len(self.styles))
        inputs = (features - self.mean) / self.std
        optimizer = torch.optim.LBFGS(self.linear.parameters(), max_iter=200)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(self.linear(inputs), targets)
            loss = loss + 1e-3 * self.linear.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    def _real(self, scenes: EmojiWorld, first: int, count: int) -> tuple[Tensor, Tensor]:
        plans = [scenes.plan(index) for index in range(first, first + count)]
        pictures = [Image.fromarray(drawn(plan, s)) for s in self.styles for plan in plans]
        targets = torch.arange(len(self.styles)).repeat_interleave(count)
        return self.judge.features(images_of(pictures)), targets

    @torch.no_grad()
    def read(self, images: Tensor) -> list[str]:
        """The style of every picture."""
        features = (self.judge.features(images) - self.mean) / self.std
        return [self.styles[k] for k in self.linear(features).argmax(1).tolist()]

    def accuracy(self, scenes: EmojiWorld, first: int, count: int) -> tuple[float, float]:
        """Of unseen real pictures: right among all seven styles, and right among the new one's."""
        features, targets = self._real(scenes, first, count)
        with torch.no_grad():
            found = self.linear((features - self.mean) / self.std).argmax(1)
        right = found == targets
        new = targets == len(self.styles) - 1
        return float(right.float().mean()), float(right[new].float().mean())


def judge(asked: argparse.Namespace) -> None:
    """Print how often the style is recognised, with the LoRA and without."""
    scenes = world(asked.things)
    styles = StyleJudge(find_judge(asked.model), scenes, 10_000, asked.real)
    all_right, new_right = styles.accuracy(scenes, 20_000, asked.real)
    print(
        f"style judge on {asked.real} unseen real pictures of each of 7 styles: {all_right:.1%} right, ",
        end="",
    )
    print(f"{NEW} {new_right:.1%}")
    plans = [scenes.plan(index) for index in range(asked.first, asked.first + asked.pictures)]
    prompts = [said_of(plan) for plan in plans]
    own = {} if asked.steps is None else {"steps": asked.steps}
    ways = {f"with, at {scale:g}": [(asked.lora, scale)] for scale in asked.scales}
    for name, loras in {"without": [], **ways}.items():
        painter = load(asked.model, loras=loras, lanes=asked.lanes)
        pictures = painter.paint(prompts, seeds=0, **own)
        found = styles.read(images_of(pictures))
        hits = sum(style == asked.style for style in found)
        likely = wilson(hits, len(found))
        subjects = [
            all(reading.counts()[o.thing] > 0 for o in plan.objects)
            for reading, plan in zip(styles.judge.read(images_of(pictures)), plans, strict=True)
        ]
        print(
            f"{name}: {asked.style} recognised in {hits / len(found):.1%} of {len(found)} pictures "
            f"({likely.low:.1%} to {likely.high:.1%}); all things asked for in {np.mean(subjects):.1%}"
        )
        if asked.sheet is not None:
            place = asked.sheet.with_stem(f"{asked.sheet.stem}-{name.split()[-1]}")
            save_picture(sheet(pictures[:20], 5, prompts[:20]), place, metadata=False)
    real = [Image.fromarray(blueprint(plan)) for plan in plans]
    ceiling = [
        all(reading.counts()[o.thing] > 0 for o in plan.objects)
        for reading, plan in zip(styles.judge.read(images_of(real)), plans, strict=True)
    ]
    print(
        f"the judge, which never saw a {NEW}, finds all things in {np.mean(ceiling):.1%} of real ones"
    )


def main() -> None:
    """Draw pictures to learn from, or judge what was learned."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--things", type=int, default=100, help="how many things the world shows")
    parser.add_argument("--style", default=NEW, choices=[*STYLES, NEW])
    ways = parser.add_subparsers(dest="way", required=True)
    drawing = ways.add_parser("draw")
    drawing.add_argument("folder", type=Path)
    drawing.add_argument("--count", type=int, default=20)
    judging = ways.add_parser("judge")
    judging.add_argument("lora", type=Path)
    judging.add_argument("--model", default="piccolo")
    judging.add_argument("--scales", type=float, nargs="+", default=[1.0])
    judging.add_argument("--first", type=int, default=1_000, help="the first scene asked for")
    judging.add_argument("--pictures", type=int, default=200)
    judging.add_argument("--real", type=int, default=200, help="real pictures of each style")
    judging.add_argument("--steps", type=int, help="of every stage; by default the model's own")
    judging.add_argument("--lanes", type=int, default=1)
    judging.add_argument("--sheet", type=Path, help="a PNG for each way, of twenty pictures")
    asked = parser.parse_args()
    if asked.way == "draw":
        draw(asked.folder, asked.count, asked.things, asked.style)
    else:
        judge(asked)


if __name__ == "__main__":
    main()
