"""Latents in training are those of the pictures, kept on disk or not, and the losses are those of latents."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from toy import ToySource

from bottega.condition import Condition, Stream
from bottega.conditioning import ConditionDropout
from bottega.diffusion import AugmentationLevels, LogNormal, TimestepPlan
from bottega.errors import ConfigError, DataError
from bottega.training.denoiser_objective import DenoiserObjective
from bottega.training.latents import CHUNK, LatentCache, LatentSource, seen_by_network
from bottega.training.timestep_objective import TimestepObjective


def folded(images: torch.Tensor) -> torch.Tensor:
    """An encoder that loses nothing: squares of two by two pixels become channels."""
    return F.pixel_unshuffle(images, 2)


class Counted:
    """The same, counting the pictures that it was given."""

    def __init__(self, worst: float = 1.0) -> None:
        self.pictures, self.worst = 0, worst

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.pictures += len(images)
        return folded(images) * self.worst


class Halving(nn.Module):
    """A network of latents: half of what it sees, whatever it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((), 0.5))
        self.told: list[Condition] = []

    def prepare(self, condition: Condition) -> str:
        self.told.append(condition)
        return "context"

    def forward(self, x, time, context):
        assert x.shape[1:] == (12, 4, 4)
        return x * self.weight


def test_a_cache_gives_what_the_encoder_makes_and_encodes_each_picture_once(tmp_path):
    source, encode = ToySource(num_examples=CHUNK + 10), Counted()
    cache = LatentCache(tmp_path / "kept", source, encode)
    told = []
    cache.fill(lambda done, total: told.append((done, total)))
    assert told == [(CHUNK, CHUNK + 10), (CHUNK + 10, CHUNK + 10)]
    assert encode.pictures == CHUNK + 10
    latents = cache.gather([3, CHUNK + 9, 3])
    exact = folded(source.batch([3, CHUNK + 9, 3]).clean())
    torch.testing.assert_close(latents, exact.half().float(), rtol=0, atol=0)
    again = LatentCache(tmp_path / "kept", source, encode)
    assert torch.equal(again.gather([3, CHUNK + 9, 3]), latents)
    assert encode.pictures == CHUNK + 10
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "chunk-000000.safetensors",
        "chunk-000001.safetensors",
    ]


def test_values_do_not_depend_on_who_asks_first(tmp_path):
    source = ToySource(num_examples=40)
    orders = ([39, 0], [5, 39, 0])
    first, second = (
        LatentCache(tmp_path / str(i), source, folded).gather(order)
        for i, order in enumerate(orders)
    )
    assert torch.equal(first, second[1:])


@pytest.mark.parametrize("damage", ["cut off", "too few", "another name"])
def test_a_damaged_file_is_encoded_anew(tmp_path, damage):
    source, encode = ToySource(num_examples=20), Counted()
    before = LatentCache(tmp_path, source, encode).gather([7])
    (path,) = tmp_path.iterdir()
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "too few":
        kept = load_file(path)["latents"][:3].clone()
        save_file({"latents": kept}, path)
    else:
        save_file({"else": torch.zeros(20)}, path)
    assert torch.equal(LatentCache(tmp_path, source, encode).gather([7]), before)
    assert encode.pictures == 40


def test_latents_that_half_precision_cannot_hold_are_refused(tmp_path):
    cache = LatentCache(tmp_path / "kept", ToySource(num_examples=20), Counted(worst=1e6))
    with pytest.raises(DataError, match="not finite in float16, of pictures 0 to 19"):
        cache.fill()
    assert not (tmp_path / "kept").exists()


class TwoShapes(ToySource):
    """Every third picture is as wide as two."""

    def __init__(self) -> None:
        super().__init__(num_examples=CHUNK + 40)
        everyone = range(CHUNK + 40)
        wide = tuple(index for index in everyone if index % 3 == 0)
        self.groups = (wide, tuple(index for index in everyone if index % 3))

    def batch(self, indices):
        plain = super().batch(indices)
        kinds = {index % 3 == 0 for index in indices}
        assert len(kinds) == 1  # a batch is of one shape
        twice = torch.cat([plain.images, plain.images], dim=3)
        return dataclasses.replace(plain, images=twice if kinds == {True} else plain.images)


def test_latents_of_several_shapes_are_kept_shape_by_shape(tmp_path):
    source, encode = TwoShapes(), Counted()
    cache = LatentCache(tmp_path, source, encode)
    cache.fill()
    assert encode.pictures == CHUNK + 40
    for indices in ([0, 291, 3], [1, 290, 2]):
        exact = folded(source.batch(indices).clean()).half().float()
        assert torch.equal(cache.gather(indices), exact)
        assert torch.equal(LatentCache(tmp_path, source, encode).gather(indices), exact)
    assert LatentSource(source, cache).groups == source.groups
    assert encode.pictures == CHUNK + 40


def test_endless_pictures_cannot_be_kept(tmp_path):
    with pytest.raises(ConfigError, match="say with num_examples"):
        LatentCache(tmp_path, ToySource(num_examples=None), folded)


def test_a_source_brings_latents_with_its_pictures(tmp_path):
    source = ToySource(num_examples=20)
    bringing = LatentSource(source, LatentCache(tmp_path, source, folded))
    assert bringing.num_examples == 20
    batch = bringing.batch([4, 2])
    assert batch.indices == (4, 2) and batch.images.shape == (2, 3, 8, 8)
    seen = seen_by_network(batch, encode=None)
    torch.testing.assert_close(seen, folded(batch.clean()), rtol=1e-3, atol=1e-3)
    plain = source.batch([4, 2])
    assert torch.equal(seen_by_network(plain, folded), folded(plain.clean()))
    assert torch.equal(seen_by_network(plain, None), plain.clean())


@pytest.mark.parametrize("objective", [DenoiserObjective, TimestepObjective])
def test_a_loss_of_latents_is_that_of_the_latents(objective):
    settings = {} if objective is DenoiserObjective else {"plan": TimestepPlan(), "dropout": 0.0}
    batch = ToySource().batch(range(6))
    encoded = objective(**settings, encode=folded)
    brought = dataclasses.replace(batch, latents=folded(batch.clean()))
    losses = [
        one(Halving(), pictures, torch.Generator().manual_seed(1)).per_image
        for one, pictures in (
            (encoded, batch),
            (encoded, brought),
            (objective(**settings), brought),
        )
    ]
    assert torch.equal(losses[0], losses[1]) and torch.equal(losses[0], losses[2])


def test_the_loss_of_latents_is_exact_where_it_is_known():
    """A network that says nothing leaves the noise, whose square EDM weighs with one over its own."""
    quiet = DenoiserObjective(noise=LogNormal(mean=math.log(0.01), std=1e-6), encode=folded)
    network = Halving()
    network.weight.data.zero_()
    loss = quiet(network, ToySource().batch(range(64)), torch.Generator().manual_seed(0))
    assert loss.total.item() == pytest.approx(1.0, abs=0.05)


def test_a_network_of_timesteps_learns_silence_as_ours_do():
    streams = {
        "t5": Stream(
            tokens=torch.ones(4, 3, 5), mask=torch.ones(4, 3, dtype=torch.bool), pooled=None
        )
    }
    batch = dataclasses.replace(ToySource().batch(range(4)), condition=Condition(streams=streams))
    for share, silent in ((1.0, True), (0.0, False)):
        network = Halving()
        objective = TimestepObjective(
            plan=TimestepPlan(),
            dropout=0.0,
            encode=folded,
            condition_dropout=ConditionDropout(t5=share),
        )
        objective(network, batch, torch.Generator().manual_seed(0))
        heard = network.told[0].streams["t5"].mask.any()
        assert bool(heard) != silent


def test_a_super_resolution_net_has_no_latents():
    with pytest.raises(ConfigError, match="no use for encode"):
        DenoiserObjective(
            low_res_size=4, augmentation=AugmentationLevels(max_level=0.2), encode=folded
        )
