"""Probes find what was planted: the noise below which nobody listens, the layer's gaze, tasks that conflict."""

import math

import pytest
import torch
from tiny_model import tiny_network, tiny_unet
from torch import nn

from bottega.condition import Condition, Stream
from bottega.diffusion import Denoiser, LogNormal
from bottega.errors import InputError
from bottega.evaluation.judge import Detection, Reading
from bottega.evaluation.probes import (
    PromptPair,
    best_split,
    denoising_loss,
    gradient_cosines,
    look,
    probe_switch,
)
from bottega.evaluation.probes.intervals import corrected
from bottega.evaluation.probes.pictures import matrix_picture, text_maps
from bottega.models import UNet
from bottega.pipelines import Stage, StageSettings

SETTINGS = StageSettings(steps=20, guidance_scale=1.0, thresholding=None, sampler="euler")


def words(value: float, rows: int = 1) -> Condition:
    tokens = torch.full((rows, 1, 4), value)
    return Condition(
        streams={"t5": Stream(tokens=tokens, mask=torch.ones(rows, 1, dtype=torch.bool))}
    )


class Listener:
    """Decides by its words at noise levels above ``deaf_below``; further down it believes what it sees."""

    def __init__(self, deaf_below: float):
        self.deaf_below = deaf_below

    def prepare(self, condition):
        return condition.streams["t5"].tokens[:, 0, 0]

    def __call__(self, x, sigma, context=None):
        return self.forward(x, sigma, context)

    def to(self, *, device, dtype):
        return self

    def forward(self, x, sigma, context=None):
        told = context[:, None, None, None].expand_as(x)
        seen = x.mean((1, 2, 3), keepdim=True).sign().expand_as(x)
        hears = (sigma > self.deaf_below)[:, None, None, None]
        return torch.where(hears, told, seen)

    def bind(self, context):
        return lambda x, sigma: self(x, sigma, context)


def read(images):
    return [
        Reading(
            detections=(Detection(thing=name, score=1.0, x=0.5, y=0.5, size=0.5, tint=None),),
            background="white",
            style="plain",
            word=None,
        )
        for name in ("cat" if image.mean() > 0 else "dog" for image in images)
    ]


def pair() -> PromptPair:
    return PromptPair(
        first=words(1.0),
        second=words(-1.0),
        uncond=words(0.0),
        follows_first=lambda reading: reading.counts()["cat"] > 0,
        follows_second=lambda reading: reading.counts()["dog"] > 0,
    )


@pytest.mark.parametrize("deaf_below", [0.3, 2.0, 9.0])
def test_a_switch_is_followed_exactly_as_long_as_the_denoiser_listens(deaf_below):
    stage = Stage(name="base", denoiser=Listener(deaf_below), size=16)
    sigmas = stage.sigmas(SETTINGS)
    shares = [i / 20 for i in range(21)]
    found = probe_switch(stage, read, [pair()], SETTINGS, shares=shares, seeds=(0, 1))
    for point, sigma in zip(found.points, sigmas, strict=True):
        assert point.sigma == sigma
        # One step under the new words must be left in which the denoiser hears, and enough of the way to turn round.
        if sigma <= deaf_below:
            assert (point.first.value, point.second.value) == (1.0, 0.0)
    assert found.points[0].second.value == 1.0
    highest = max(s for s in sigmas if s <= deaf_below)
    assert found.stops_at is not None
    assert highest <= found.stops_at <= highest * 4
    assert found.stops_after == next(p.share for p in found.points if p.sigma == found.stops_at)


def test_guidance_and_mixed_batches_keep_the_unconditional_half():
    asked = []

    class Recorder(Listener):
        def prepare(self, condition):
            context = super().prepare(condition)
            asked.append(context.tolist())
            return context

    stage = Stage(name="base", denoiser=Recorder(0.1), size=8)
    settings = StageSettings(steps=4, guidance_scale=2.0, sampler="euler")
    probe_switch(stage, read, [pair()], settings, shares=[0.0, 0.5])
    assert asked[:2] == [[1.0, 0.0], [-1.0, 0.0]]


def test_a_switch_needs_shares_from_nothing_on():
    stage = Stage(name="base", denoiser=Listener(1.0), size=8)
    for shares in ([], [0.5], [0.0, 1.5]):
        with pytest.raises(InputError, match="shares from 0"):
            probe_switch(stage, read, [pair()], SETTINGS, shares=shares)
    enlarging = Stage(name="sr", denoiser=Listener(1.0), size=8, low_res_from="base")
    with pytest.raises(InputError, match="enlarges"):
        probe_switch(enlarging, read, [pair()], SETTINGS, shares=[0.0])


def text(rows: int, tokens: int, width: int = 32) -> Condition:
    generator = torch.Generator().manual_seed(1)
    return Condition(
        streams={
            "t5": Stream(
                tokens=torch.randn(rows, tokens, width, generator=generator),
                mask=torch.ones(rows, tokens, dtype=torch.bool),
            )
        }
    )


def flat_unet() -> UNet:
    """A network whose keys are all alike, so that every real key gets the same attention."""
    unet = tiny_unet(tiny_network(), 0)
    for module in unet.modules():
        if hasattr(module, "text_kv"):
            half = module.text_kv.weight.shape[0] // 2
            module.text_kv.weight.data[:half] = 0
            module.text_kv.bias.data[:half] = 1
    return unet


def test_attention_that_cannot_tell_keys_apart_is_shared_by_their_number():
    clean = torch.zeros(2, 3, 8, 8)
    seen = []
    found = look(
        Denoiser(flat_unet()),
        clean,
        text(2, 7),
        [0.1, 10.0],
        watch=lambda sigma, observer: seen.append((sigma, observer)),
    )
    assert [one.sigma for one in found] == [0.1, 10.0]
    for one in found:
        assert one.shares["null"] == pytest.approx(1 / 8, abs=1e-5)
        assert one.text == pytest.approx(7 / 8, abs=1e-5)
    page = text_maps(clean, seen)
    assert page.width > page.height / 2 and len(page.getcolors(1 << 24)) > 2


def test_looking_changes_nothing_and_adds_up_to_one():
    denoiser = Denoiser(tiny_unet(tiny_network(), 3))
    condition = text(1, 5)
    x, sigma = torch.randn(1, 3, 8, 8), torch.ones(1)
    before = denoiser(x, sigma, denoiser.prepare(condition))
    (found,) = look(denoiser, torch.zeros(1, 3, 8, 8), condition, [1.0])
    assert sum(found.shares.values()) == pytest.approx(1)
    assert torch.equal(before, denoiser(x, sigma, denoiser.prepare(condition)))
    with pytest.raises(InputError, match="above 0"):
        look(denoiser, torch.zeros(1, 3, 8, 8), condition, [])


class Planted(nn.Module):
    """A weight vector whose loss in bin i has the gradient ``directions[i]``, and noise of the batch's own."""

    def __init__(self, directions, noise):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(directions.shape[1]))
        self.directions, self.noise = directions, noise

    def loss(self, place, batch):
        generator = torch.Generator().manual_seed(1000 * place + batch)
        draw = torch.randn(self.weight.shape, generator=generator)
        return (self.weight * (self.directions[place] + self.noise * draw)).sum()


def test_planted_gradients_have_their_cosines_also_under_noise():
    angles = [0.0, 0.3, 1.8, 2.0]
    directions = torch.zeros(4, 400)
    directions[:, 0] = torch.tensor(angles).cos() * 20
    directions[:, 1] = torch.tensor(angles).sin() * 20
    expected = torch.tensor([[math.cos(a - b) for b in angles] for a in angles])
    for noise, tolerance in ((0.0, 1e-5), (1.0, 0.08)):
        planted = Planted(directions, noise)
        found = gradient_cosines(planted.parameters(), planted.loss, num_bins=4, num_batches=16)
        assert torch.allclose(found, expected, atol=tolerance)
        assert best_split(found).cuts == (2,)
        assert torch.allclose(found.diagonal(), torch.ones(4))
    assert matrix_picture(found, [0.1, 0.3, 1.0]).width > 200


def test_three_tasks_are_cut_in_two_places():
    tasks = [0, 0, 0, 1, 1, 2]
    cosines = torch.tensor([[1.0 if a == b else -0.2 for b in tasks] for a in tasks])
    split = best_split(cosines, 3)
    assert split.cuts == (3, 5)
    assert split.gain == pytest.approx(1.2)
    with pytest.raises(InputError, match="2 to 6 groups"):
        best_split(cosines, 7)


def test_what_is_nothing_but_noise_is_refused_and_so_are_odd_numbers():
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.1])
    with pytest.raises(InputError, match="bin 0 is nothing but noise"):
        corrected([(one, other), (one, one)])
    planted = Planted(torch.eye(2), 0.0)
    for bins, batches in ((1, 2), (2, 3)):
        with pytest.raises(InputError, match="cosines need"):
            gradient_cosines(planted.parameters(), planted.loss, num_bins=bins, num_batches=batches)


def test_the_loss_of_a_bin_sees_noise_of_that_bin_alone():
    seen = []
    noise = LogNormal()

    class Quiet(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def prepare(self, condition):
            return None

        def forward(self, x, c_noise, context):
            seen.append((4 * c_noise).exp())
            return x * self.scale

    batch = (torch.zeros(8, 3, 4, 4), Condition())
    loss = denoising_loss(Denoiser(Quiet()), noise, lambda _: batch, num_bins=4)
    for place in range(4):
        value = loss(place, 0)
        assert value.requires_grad
        low, high = noise.quantile(place / 4), noise.quantile((place + 1) / 4)
        assert bool(((seen[-1] >= low * 0.999) & (seen[-1] <= high * 1.001)).all())
    assert torch.equal(loss(1, 5), loss(1, 5)) and not torch.equal(loss(1, 5), loss(1, 6))
