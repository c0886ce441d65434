"""An imported model is trained further on pictures of many shapes, each told its own size."""

import dataclasses

import pytest
import torch
from PIL import Image

from bottega.data import Buckets, groups_of
from bottega.errors import ConfigError
from bottega.pipelines.convert import import_model
from bottega.recipes import recipe
from bottega.recipes.finetune import imported_parts
from bottega.recipes.run import FolderConfig, ImportedTask
from bottega.recipes.sources import picture_source

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' own

BUCKETS = Buckets(multiple=4, shapes=("640x640", "512x768", "768x512"))


@pytest.fixture
def config(folders, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, size in enumerate([(16, 16), (24, 16), (16, 24), (24, 16)]):
        Image.new("RGB", size, "red").save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a red dog")
    import_model(folders("sdxl"), tmp_path / "model")
    return dataclasses.replace(
        recipe("finetune"),
        data=FolderConfig(path=str(pictures)),
        size=16,
        task=ImportedTask(model=str(tmp_path / "model")),
        buckets=BUCKETS,
    )


def test_every_bucket_is_learned_and_its_size_told(config):
    parts = imported_parts(config)
    source = picture_source(config)
    groups = groups_of(source)
    assert [len(group) for group in groups] == [2, 1, 1]
    told = []
    prepare = parts.network.prepare

    def listening(condition):
        told.append(condition.numbers)
        return prepare(condition)

    parts.network.prepare = listening
    for group in groups:
        batch = source.batch(group)
        condition = parts.encoders.condition(batch.captions)
        batch = dataclasses.replace(batch, condition=condition)
        loss = parts.objective(parts.network, batch, torch.Generator().manual_seed(0))
        loss.total.backward()
        assert bool(loss.total.isfinite())
        height, width = batch.images.shape[2:]
        row = [float(height), float(width), 0.0, 0.0, float(height), float(width)]
        assert told[-1].tolist() == [row] * len(batch)
    assert len({tuple(rows[0].tolist()) for rows in told}) == 3
    gradients = [p.grad for p in parts.network.parameters() if p.grad is not None]
    assert any(bool(g.abs().sum() > 0) for g in gradients)


def test_buckets_that_the_network_cannot_halve_are_refused_before_training(config):
    with pytest.raises(ConfigError, match="must be a multiple of 4"):
        imported_parts(dataclasses.replace(config, buckets=Buckets(multiple=2)))
