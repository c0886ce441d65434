"""Batches get the streams of their captions, and a fixed share of pictures speak for themselves."""

import pytest
import torch
from toy import ToySource

from bottega.condition import Stream
from bottega.conditioning import Encoders, ImageEncoder
from bottega.errors import ConfigError
from bottega.training import EmbeddedSource


class Lookup:
    def encode_texts(self, texts):
        numbers = torch.tensor([float(t.split()[-1]) for t in texts])
        tokens = numbers[:, None, None].expand(-1, 2, 3).clone()
        return {"t5": Stream(tokens=tokens, mask=torch.ones(len(texts), 2, dtype=torch.bool))}


class MeanColour(ImageEncoder):
    """Looks at the mean colour, and counts how many pictures it was shown."""

    def __init__(self):
        self.shown = 0
        self.width = 3
        self.name = "clip_image"

    def encode(self, images, *, rows=1):
        self.shown += len(images)
        colour = images.mean((2, 3))
        return Stream(
            tokens=colour[:, None], mask=torch.ones(len(images), 1, dtype=torch.bool), pooled=colour
        )

    def absent(self, count):
        return Stream(
            tokens=torch.zeros(count, 1, 3),
            mask=torch.zeros(count, 1, dtype=torch.bool),
            pooled=torch.zeros(count, 3),
        )


def embedded(share=0.3, seed=0):
    tower = MeanColour()
    encoders = Encoders([], tower)
    return EmbeddedSource(
        ToySource(), Lookup(), encoders=encoders, picture_share=share, seed=seed
    ), tower


def test_every_caption_gets_its_own_streams_and_the_rest_of_the_batch_stays():
    source = EmbeddedSource(ToySource(), Lookup())
    batch = source.batch([7, 3])
    assert source.num_examples == 100
    assert batch.condition is not None
    assert batch.condition.streams["t5"].tokens[:, 0, 0].tolist() == [7.0, 3.0]
    assert set(batch.condition.streams) == {"t5"}
    assert torch.equal(batch.images, ToySource().batch([7, 3]).images)


def test_the_chosen_share_of_pictures_is_encoded_and_no_other():
    source, tower = embedded(share=0.3)
    batch = source.batch(range(100))
    assert batch.condition is not None
    stream = batch.condition.streams["clip_image"]
    kept = torch.tensor([source.shows_itself(i) for i in range(100)])
    assert 15 < kept.sum() < 45
    assert tower.shown == kept.sum()
    assert torch.equal(stream.mask[:, 0], kept)
    assert torch.equal(stream.tokens[kept, 0], batch.clean().mean((2, 3))[kept])
    assert not stream.tokens[~kept].any() and not stream.pooled[~kept].any()


def test_who_shows_itself_depends_on_index_and_seed_alone():
    source, _ = embedded()
    alone = source.batch([5]).condition.streams["clip_image"].mask[0]
    among = source.batch([9, 5, 2]).condition.streams["clip_image"].mask[1]
    assert torch.equal(alone, among)
    chosen = [source.shows_itself(i) for i in range(200)]
    assert chosen != [embedded(seed=1)[0].shows_itself(i) for i in range(200)]


def test_all_or_none_may_show_themselves():
    for share, count in ((0.0, 0), (1.0, 20)):
        source, tower = embedded(share)
        source.batch(range(20))
        assert tower.shown == count
    with pytest.raises(ConfigError, match="picture_share must be in"):
        embedded(1.5)
