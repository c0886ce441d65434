"""Do the edges of paintings lie where a ControlNet was told, and how much better than without it?

    bottega train controlnet --run runs/edges
    python benchmarks/controlnet_edges.py runs/edges/export

Scenes that nobody was trained on are drawn; their Canny edges steer, and their captions are the prompts. The paintings
are shrunk to the size of the stage that was steered, their edges are found by the same Canny, and compared with the
wanted ones: F-measure, one pixel of tolerance. Beside it stand the same prompts and seeds without a ControlNet, and the
control pictures of other scenes, which say what chance gives.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from bottega.data import Canny
from bottega.data.emoji_world import EmojiWorld
from bottega.evaluation import Judge, images_of, judge_world
from bottega.evaluation.edge_match import EdgeMap, EdgeMatch, match_edges
from bottega.pipelines import Guide, Painter, find_model, load, read_manifest, save_picture, sheet

SEED = 4211
FIRST = 5_000


def found_in(picture: Image.Image, size: int, canny: Canny) -> EdgeMap:
    """The edges of a painting at the size of a stage."""
    small = picture.convert("RGB").resize((size, size), Image.Resampling.BOX)
    return canny(np.asarray(small))


def as_picture(edges: EdgeMap) -> Image.Image:
    """White on black."""
    return Image.fromarray(edges.astype(np.uint8) * 255)


def said(name: str, match: EdgeMatch) -> str:
    """One line."""
    return f"{name:24} F {match.f_measure:.3f}  precision {match.precision:.3f}  recall {match.recall:.3f}"


def right(judge: Judge | None, pictures: list[Image.Image], things: list[list[str]]) -> str:
    """How often all things that were asked for are there."""
    if judge is None:
        return ""
    readings = judge.read(images_of(pictures))
    held = [
        all(reading.counts()[thing] > 0 for thing in wanted)
        for reading, wanted in zip(readings, things, strict=True)
    ]
    return f"  all things {np.mean(held):.1%}"


def painted(
    painter: Painter, captions: list[str], guides: list[Guide], steps: int | None
) -> list[Image.Image]:
    """One picture per caption, each with its own control picture where there are any."""
    own = {} if steps is None else {"steps": steps}
    return [
        painter.paint(caption, seeds=[seed], controls=[guides[seed]] if guides else (), **own)[0]
        for seed, caption in enumerate(captions)
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("controlnet", type=Path)
    parser.add_argument("--model", default="piccolo")
    parser.add_argument("--stage", default="base", help="which it was trained for")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--things", type=int, default=100, help="how many things the world shows")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 1.0])
    parser.add_argument("--tolerance", type=int, default=1, help="pixels")
    parser.add_argument("--steps", type=int, help="of every stage; by default the model's own")
    parser.add_argument("--sheet", type=Path, help="a PNG of the first twelve")
    asked = parser.parse_args()
    canny, folder = Canny(), find_model(asked.model)
    manifest = read_manifest(folder)
    judge = None if manifest.judge is None else Judge.load(folder / manifest.judge)
    size = next(stage.size for stage in manifest.stages if stage.name == asked.stage)
    world = EmojiWorld(judge_world(num_things=asked.things, seed=SEED))
    examples = [world[index] for index in range(FIRST, FIRST + asked.pictures)]
    captions = [example.caption for example in examples]
    things = [[placed.thing for placed in example.plan.objects] for example in examples]
    wanted = [canny(example.image(size)) for example in examples]
    guide_pictures = [as_picture(edges) for edges in wanted]

    def score(pictures: list[Image.Image]) -> EdgeMatch:
        found = [found_in(picture, size, canny) for picture in pictures]
        return match_edges(found, wanted, tolerance_px=asked.tolerance)

    others = match_edges(wanted[1:] + wanted[:1], wanted, tolerance_px=asked.tolerance)
    print(said("edges of another scene", others))
    base = painted(load(asked.model), captions, [], asked.steps)
    print(said("without", score(base)) + right(judge, base, things))
    rows = [base]
    steered = load(asked.model, controlnets=[asked.controlnet])
    for scale in asked.scales:
        guides = [Guide(picture, scale) for picture in guide_pictures]
        pictures = painted(steered, captions, guides, asked.steps)
        rows.append(pictures)
        print(said(f"ControlNet at {scale:g}", score(pictures)) + right(judge, pictures, things))
    if asked.sheet is not None:
        side = base[0].size
        shown = [[p.resize(side, Image.Resampling.NEAREST) for p in guide_pictures], *rows]
        cells = [row[k] for row in shown for k in range(min(12, len(captions)))]
        save_picture(sheet(cells, min(12, len(captions))), asked.sheet, metadata=False)


if __name__ == "__main__":
    main()
