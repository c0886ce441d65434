"""Encoders of a few thousand weights, saved by transformers itself and read like any others."""

import random

import pytest

from bottega.conditioning import (
    Encoders,
    TinyClipConfig,
    TinyT5Config,
    TokenizerConfig,
    build_clip,
    build_t5,
    save_clip,
    save_t5,
    train_tokenizer,
)

THINGS = [
    "cat",
    "dog",
    "pizza",
    "apple",
    "banana",
    "car",
    "tree",
    "house",
    "umbrella",
    "rocket",
    "elephant",
    "piano",
]
COLOURS = ["red", "blue", "green", "yellow", "purple"]

T5 = TinyT5Config(d_model=32, num_heads=2, d_ff=48, num_layers=2, num_decoder_layers=1)
CLIP = TinyClipConfig(
    text_width=32,
    text_layers=3,
    text_heads=2,
    text_ff=48,
    vision_width=24,
    vision_layers=2,
    vision_heads=2,
    vision_ff=32,
    image_size_px=16,
    patch_px=8,
    projection=20,
)


def captions(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [
        f"a {rng.choice(COLOURS)} {rng.choice(THINGS)} to the {rng.choice(['left', 'right'])} of "
        f"a {rng.choice(COLOURS)} {rng.choice(THINGS)}"
        for _ in range(count)
    ]


@pytest.fixture(scope="session")
def texts():
    return captions(1500)


@pytest.fixture(scope="session")
def t5_tokenizer(texts):
    return train_tokenizer(texts, "t5", TokenizerConfig(vocab_size=512, max_tokens=16))


@pytest.fixture(scope="session")
def clip_tokenizer(texts):
    return train_tokenizer(texts, "clip", TokenizerConfig(vocab_size=512, max_tokens=20))


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory, t5_tokenizer):
    folder = tmp_path_factory.mktemp("encoders") / "t5"
    save_t5(build_t5(T5, t5_tokenizer, seed=1), t5_tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory, clip_tokenizer):
    folder = tmp_path_factory.mktemp("encoders") / "clip"
    save_clip(build_clip(CLIP, clip_tokenizer, seed=2), clip_tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def encoders(t5_folder, clip_folder):
    return Encoders.load(folder_t5=t5_folder, folder_clip=clip_folder)
