"""How often CLIP finds the picture of a caption, and the caption of a picture, among scenes it has never seen.

    python benchmarks/clip_retrieval.py [FOLDER with t5 and clip, or a model's name]

Scenes are drawn from the held-out part of the world and, beside them, from the part that training draws from, at
indices far beyond any run's.
"""

import argparse

from bottega.conditioning import retrieval_accuracy
from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig, WorldSource
from bottega.recipes.train import load_encoders

UNSEEN = 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoders", nargs="?", default="piccolo")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--things", type=int, default=100)
    options = parser.parse_args()
    encoders = load_encoders(options.encoders)
    for split in ("held_out", "train"):
        world = EmojiWorld(EmojiWorldConfig(num_things=options.things, split=split))
        batch = WorldSource(world, 64).batch(range(UNSEEN, UNSEEN + options.pairs))
        found = retrieval_accuracy(encoders, batch.clean(), batch.captions)
        print(
            f"{split}, {found.num_pairs} pairs: picture of a caption first "
            f"{found.text_to_image_top1:.1%}, in five {found.text_to_image_top5:.1%}; caption of a "
            f"picture first {found.image_to_text_top1:.1%}, in five {found.image_to_text_top5:.1%}"
        )


if __name__ == "__main__":
    main()
