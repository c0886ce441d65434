"""A denoiser learns from a folder of pictures of many shapes, or from scenes of many shapes, and paints them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_runs import toy_base, toy_sr

from bottega import recipes
from bottega.data import Buckets, groups_of
from bottega.errors import ConfigError
from bottega.pipelines import Canvas, Stage, StageSettings
from bottega.pipelines.stored import load_denoiser
from bottega.recipes.run import FolderConfig
from bottega.recipes.sources import picture_source, preview_batch
from bottega.recipes.train import build, load_encoders, train

SIZE = 16
BUCKETS = Buckets(multiple=4)
CAPTIONS = ("a red car", "a dog", "a pizza")
COLOURS = {(30, 52): (250, 10, 10), (52, 30): (10, 10, 250), (40, 40): (10, 250, 10)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Wide pictures are red cars, tall ones blue dogs, squares green pizzas."""
    folder = tmp_path_factory.mktemp("pictures")
    for place, (shape, colour) in enumerate(COLOURS.items()):
        for number in range(4):
            pixels = np.full((*shape, 3), colour, np.uint8)
            name = folder / f"{place}-{number}.png"
            Image.fromarray(pixels).save(name)
            name.with_suffix(".txt").write_text(CAPTIONS[place])
    return folder


def in_buckets(pictures: Path, encoders: Path, images: int = 16):
    config = toy_base(encoders, images)
    train_config = dataclasses.replace(
        config.train, learning_rate=4e-3, checkpoint_images=images, batch_size=8
    )
    return dataclasses.replace(
        config,
        data=FolderConfig(path=str(pictures)),
        size=SIZE,
        num_examples=None,
        buckets=BUCKETS,
        train=train_config,
    )


def losses(config, network, encoders) -> list[float]:
    """What the objective says of each bucket's pictures, by fixed draws."""
    _, objective = build(config)
    source = picture_source(config)
    found = []
    for group in groups_of(source):
        batch = source.batch(group)
        told = dataclasses.replace(batch, condition=encoders.condition(batch.captions))
        with torch.no_grad():
            total = [
                objective(network, told, torch.Generator().manual_seed(seed)).total.item()
                for seed in range(4)
            ]
        found.append(float(np.mean(total)))
    return found


def test_a_folder_in_buckets_is_learned_shape_by_shape(pictures: Path, tiny_folder, tmp_path):
    config = in_buckets(pictures, tiny_folder, images=960)
    encoders = load_encoders(str(tiny_folder))
    assert len(groups_of(picture_source(config))) == 3
    before = losses(config, build(config)[0], encoders)
    state = train(config, tmp_path / "run")
    after = losses(config, state.network, encoders)
    assert state.finished and len(after) == 3
    assert all(new < 0.4 * old for new, old in zip(after, before, strict=True)), (before, after)
    denoiser, _ = load_denoiser(tmp_path / "run" / "export")
    stage = Stage(name="base", denoiser=denoiser, size=SIZE, multiple=2)
    for ((height, width), colour), caption in zip(COLOURS.items(), CAPTIONS, strict=True):
        told = encoders.condition([caption])
        bucket = BUCKETS.place(SIZE, height, width)
        assert bucket is not None
        painted = stage.at(Canvas(height=bucket.height, width=bucket.width))
        *_, last = painted.paint(told, told.null(), [0], StageSettings(steps=12))
        assert last.x.shape[2:] == bucket
        assert int(last.x[0].mean((1, 2)).argmax()) == int(np.argmax(colour))


def test_a_preview_of_buckets_is_of_one_of_them(pictures: Path, tiny_folder):
    config = in_buckets(pictures, tiny_folder)
    batch = preview_batch(config, 16)
    assert len(batch) == 4 and len(set(batch.captions)) == 1
    bounded = dataclasses.replace(config, num_examples=6)
    groups = groups_of(picture_source(bounded))
    assert sorted(i for group in groups for i in group) == list(range(6))


def test_the_world_in_buckets_trains_and_goes_on(tiny_folder, tmp_path):
    config = dataclasses.replace(
        toy_base(tiny_folder, 24), size=SIZE, num_examples=40, buckets=BUCKETS
    )
    assert len(groups_of(picture_source(config))) > 3
    first = train(config, tmp_path / "run", hooks=[recipes_stop(8)])
    assert not first.finished
    second = train(config, tmp_path / "run", resume=True)
    assert second.finished
    whole = train(config, tmp_path / "whole")
    assert second.digest() == whole.digest()


def recipes_stop(images: int):
    from bottega.training.limits import StopHook

    return StopHook(images=images)


def test_buckets_that_cannot_be_are_refused_in_one_line(tiny_folder):
    base = dataclasses.replace(toy_base(tiny_folder), size=SIZE)
    with pytest.raises(ConfigError, match=r"buckets\.multiple must be a multiple of 2"):
        dataclasses.replace(base, buckets=Buckets(multiple=3))
    with pytest.raises(ConfigError, match="num_examples"):
        dataclasses.replace(base, num_examples=None, buckets=BUCKETS)
    with pytest.raises(ConfigError, match="a net that enlarges learns from squares"):
        dataclasses.replace(toy_sr(tiny_folder), buckets=BUCKETS)
    with pytest.raises(ConfigError, match="not for this ClipTask"):
        dataclasses.replace(recipes.recipe("piccolo-clip"), buckets=BUCKETS)


def test_buckets_are_set_on_the_command_line():
    from bottega.config import dumps, from_json, override

    config = override(recipes.recipe("piccolo-base"), {"buckets": "{}"})
    assert config.buckets == Buckets()
    config = override(config, {"buckets.multiple": "16"})
    assert config.buckets == Buckets(multiple=16)
    import json

    assert from_json(type(config), json.loads(dumps(config))) == config
    with pytest.raises(ConfigError, match="did you mean shapes"):
        override(config, {"buckets": '{"shape": []}'})
    with pytest.raises(ConfigError, match="HEIGHTxWIDTH"):
        override(config, {"buckets": '{"shapes": ["512*512"]}'})
