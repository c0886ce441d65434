"""The diffusion objective is the EDM loss on the right inputs, for a base and for a super-resolution net."""

import dataclasses

import pytest
import torch
from torch import nn

from bottega.condition import Condition, Stream
from bottega.conditioning import ConditionDropout
from bottega.data import Batch
from bottega.diffusion import AugmentationLevels, LogNormal
from bottega.errors import ConfigError, InputError
from bottega.seeding import generator
from bottega.training import DenoiserObjective, picture_share, shrink


class Recorder(nn.Module):
    """Predicts zero, and remembers what it was asked."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=dtype))
        self.condition = None
        self.calls = []

    def prepare(self, condition):
        self.condition = condition
        return "context"

    def forward(self, x, c_noise, context):
        self.calls.append((x, c_noise, context))
        return x * self.weight


def batch(n=8, size=16, *, with_condition=True):
    images = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator(0))
    streams = {
        name: Stream(
            tokens=torch.ones(n, 4, 5),
            mask=torch.ones(n, 4, dtype=torch.bool),
            pooled=torch.ones(n, 5),
        )
        for name in ("t5", "clip_text")
    }
    return Batch(
        images=images,
        captions=("a",) * n,
        indices=tuple(range(n)),
        condition=Condition(streams=streams) if with_condition else None,
    )


def test_the_loss_of_a_network_that_predicts_nothing_is_known_in_closed_form():
    objective, pictures = DenoiserObjective(), batch(64)
    loss = objective(Recorder(), pictures, generator(1))
    assert loss.sigma is not None and loss.per_image is not None
    # With F = 0 the denoiser says c_skip (clean + sigma eps): its error is exact in the mean over eps.
    sigma, sd = loss.sigma.double(), 0.5
    skip = sd**2 / (sigma**2 + sd**2)
    power = pictures.clean().double().square().mean((1, 2, 3))
    error = (skip - 1) ** 2 * power + skip**2 * sigma**2
    expected = error * (sigma**2 + sd**2) / (sigma * sd) ** 2
    ratio = loss.per_image.double() / expected
    assert ratio.mean().item() == pytest.approx(1, abs=0.02)
    assert loss.total.item() == pytest.approx(loss.per_image.mean().item())


def test_everything_random_comes_from_the_generator():
    def once(seed):
        network = Recorder()
        loss = dataclasses.replace(DenoiserObjective(), dropout=ConditionDropout())(
            network, batch(), generator(seed)
        )
        return loss.per_image, network.calls[0][0]

    for a, b, c in zip(once(3), once(3), once(4), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_noise_levels_are_stratified_and_confined_to_their_intervals():
    noise = LogNormal()
    loss = DenoiserObjective(noise=noise, intervals=((0.5, 0.75),))(
        Recorder(), batch(16), generator(0)
    )
    place = noise.cdf(loss.sigma.double())
    assert ((place - 0.5) * 4 * 16).floor().long().sort().values.tolist() == list(range(16))


def test_processes_share_the_noise_levels_between_them():
    noise, places = LogNormal(), []
    for rank in (0, 1):
        objective = DenoiserObjective(noise=noise, rank=rank, world_size=2)
        loss = objective(Recorder(), batch(8), generator(0, rank))
        places.append(noise.cdf(loss.sigma.double()))
    assert (torch.cat(places) * 16).floor().long().sort().values.tolist() == list(range(16))


def test_a_network_in_bfloat16_gets_bfloat16_and_the_loss_is_float32():
    network = Recorder(torch.bfloat16)
    loss = DenoiserObjective()(network, batch(), generator(0))
    assert network.calls[0][0].dtype == torch.bfloat16
    assert network.calls[0][2] == "context"
    assert loss.total.dtype == torch.float32
    loss.total.backward()
    assert network.weight.grad is not None


def test_streams_fall_silent_as_often_as_asked_and_the_batch_is_not_changed():
    network, pictures = Recorder(), batch(2000, size=2)
    DenoiserObjective(dropout=ConditionDropout(t5=0.5, clip_text=0.0))(
        network, pictures, generator(0)
    )
    heard = network.condition.streams
    assert heard["t5"].mask.any(1).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert heard["clip_text"].mask.all()
    assert pictures.condition.streams["t5"].mask.all()


def test_a_batch_without_words_is_an_unconditional_one():
    network = Recorder()
    DenoiserObjective(dropout=ConditionDropout())(
        network, batch(with_condition=False), generator(0)
    )
    assert network.condition.batch_size == 0


def test_a_super_resolution_net_is_shown_the_small_picture_with_noise_of_the_level_it_is_told():
    network, pictures = Recorder(), batch(64)
    objective = DenoiserObjective(low_res_size=4, augmentation=AugmentationLevels(max_level=0.8))
    objective(network, pictures, generator(0))
    low_res, level = network.condition.low_res, network.condition.low_res_sigma
    small = pictures.clean().unflatten(2, (4, 4)).unflatten(4, (4, 4)).mean((3, 5))
    assert low_res.shape == (64, 3, 4, 4)
    noise = (low_res * (1 + level**2).sqrt()[:, None, None, None] - small) / level[
        :, None, None, None
    ]
    assert noise.mean().item() == pytest.approx(0, abs=0.08)
    assert noise.std().item() == pytest.approx(1, abs=0.06)
    assert set(network.condition.streams) == {"t5", "clip_text"}


def test_without_augmentation_the_small_picture_is_exact():
    network, pictures = Recorder(), batch()
    DenoiserObjective(low_res_size=8, augmentation=AugmentationLevels(max_level=0.0))(
        network, pictures, generator(0)
    )
    assert torch.equal(network.condition.low_res, shrink(pictures.clean(), 8))


def test_sizes_that_do_not_divide_and_halves_of_a_pair_are_refused():
    with pytest.raises(InputError, match="16 x 16 cannot be shrunk evenly to 5 x 5"):
        shrink(torch.zeros(1, 3, 16, 16), 5)
    with pytest.raises(InputError, match="cannot be shrunk"):
        shrink(torch.zeros(1, 3, 16, 8), 4)
    with pytest.raises(ConfigError, match="go together"):
        DenoiserObjective(low_res_size=8)
    with pytest.raises(ConfigError, match="at least 1"):
        DenoiserObjective(low_res_size=0, augmentation=AugmentationLevels())


def test_a_dropout_is_split_between_source_and_objective_without_loss():
    share, rest = picture_share(ConditionDropout(t5=0.3, clip_image=0.9))
    assert share == pytest.approx(0.1)
    assert rest == ConditionDropout(t5=0.3, clip_image=0.0)
