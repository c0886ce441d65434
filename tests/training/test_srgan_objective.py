"""The loss of a generator and its critic: exact where it can be reckoned, and neither's moves the other."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from test_denoiser_objective import batch
from torch import nn

from bottega.data import Degradations
from bottega.errors import ConfigError
from bottega.models.srgan import RRDBNetConfig, SrGan
from bottega.seeding import generator
from bottega.training.srgan_objective import SrGanObjective, SrGanWeights, feature_error

ONLY = {
    name: SrGanWeights(**{other: float(other == name) for other in vars(SrGanWeights())})
    for name in ("pixel", "feature", "adversarial")
}


def network(scale: int = 2) -> SrGan:
    torch.manual_seed(0)
    return SrGan(RRDBNetConfig(scale=scale, width=4, num_blocks=1, grow=2), 2)


def halves(images: torch.Tensor) -> list[torch.Tensor]:
    return [images, F.avg_pool2d(images, 2)]


def gradients(module: nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


def test_the_pixel_loss_is_the_mean_difference_from_the_whole_picture():
    both, pictures = network(), batch()
    objective = SrGanObjective(weights=ONLY["pixel"], degradations=None)
    loss = objective(both, pictures, generator(0))
    made = both(F.avg_pool2d(pictures.clean(), 2))
    expected = (made - pictures.clean()).abs().mean((1, 2, 3))
    assert torch.allclose(loss.per_image, expected, atol=1e-6)
    assert loss.total.item() == pytest.approx(expected.mean().item(), rel=1e-5)
    assert set(loss.metrics) == {"pixel"}


def test_small_pictures_are_spoilt_and_cut_by_the_generator_of_draws_alone():
    both, pictures = network(), batch(size=32)
    objective = SrGanObjective(weights=ONLY["pixel"], crop_px=16)
    first, again, other = (objective(both, pictures, generator(s)).per_image for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    clean = dataclasses.replace(objective, degradations=Degradations(clean_prob=1.0))
    assert not torch.equal(clean(both, pictures, generator(1)).per_image, first)


def test_features_count_relative_to_the_truths_and_every_depth_alike():
    real = [torch.full((2, 3, 4, 4), 2.0), torch.full((2, 1, 2, 2), 0.5)]
    made = [torch.full((2, 3, 4, 4), 2.5), torch.full((2, 1, 2, 2), 1.0)]
    assert torch.allclose(feature_error(made, real), torch.tensor([0.625, 0.625]))
    assert feature_error(real, real).abs().max() == 0
    with pytest.raises(ConfigError, match="the same maps, got 1 and 2"):
        feature_error(made[:1], real)
    objective = SrGanObjective(weights=ONLY["feature"], features=halves, degradations=None)
    both, pictures = network(), batch()
    loss = objective(both, pictures, generator(0))
    made = both(F.avg_pool2d(pictures.clean(), 2))
    expected = feature_error(halves(made), halves(pictures.clean()))
    assert torch.allclose(loss.per_image, expected, atol=1e-6)


def test_the_generators_loss_moves_the_generator_and_the_critics_the_critic():
    both, pictures = network(), batch()
    objective = SrGanObjective(weights=ONLY["adversarial"], degradations=None)
    both.eval()  # so that the critic is the same in every call
    loss = objective(both, pictures, generator(0))
    loss.total.backward()
    ours = {n: p.grad.clone() for n, p in both.named_parameters()}
    made, real = both(F.avg_pool2d(pictures.clean(), 2)), pictures.clean()
    critic = both.discriminator
    alone = F.binary_cross_entropy_with_logits(critic(made), torch.ones(8, 1, 16, 16))
    of_generator = torch.autograd.grad(alone, list(both.generator.parameters()))
    of_real = F.binary_cross_entropy_with_logits(critic(real), torch.ones(8, 1, 16, 16))
    of_made = F.binary_cross_entropy_with_logits(critic(made.detach()), torch.zeros(8, 1, 16, 16))
    of_critic = torch.autograd.grad(of_real + of_made, list(critic.parameters()))
    expected = dict(zip(ours, (*of_generator, *of_critic), strict=True))
    for name, gradient in ours.items():
        assert torch.allclose(gradient, expected[name], atol=1e-6), name
    critics = (of_real + of_made).item()
    assert loss.metrics["critic"].item() == pytest.approx(critics, rel=1e-5)
    assert 0 <= float(loss.metrics["real_told"]) <= 1
    assert all(p.requires_grad for p in both.parameters())


def test_without_an_adversarial_part_the_critic_neither_judges_nor_learns():
    both, pictures = network(), batch()
    SrGanObjective(weights=ONLY["pixel"])(both, pictures, generator(0)).total.backward()
    assert gradients(both.discriminator) == 0 and gradients(both.generator) > 0


def test_a_critic_at_rest_learns_again_after_an_error():
    both, pictures = network(), batch(size=4)  # too small for the critic
    with pytest.raises(ValueError, match="multiples of 8"):
        SrGanObjective(weights=ONLY["adversarial"])(both, pictures, generator(0))
    assert all(p.requires_grad for p in both.parameters())


def test_generator_and_critic_learn_together():
    both, pictures = network(), batch(4)
    smooth = F.interpolate(pictures.clean(), size=(4, 4), mode="area")
    smooth = ((F.interpolate(smooth, size=16, mode="bicubic") + 1) * 127.5).clamp(0, 255)
    pictures = dataclasses.replace(pictures, images=smooth.byte())
    objective = SrGanObjective(degradations=None, features=halves)
    optimizer = torch.optim.Adam(both.parameters(), lr=3e-3)
    pixels, told = [], []
    for step in range(60):
        loss = objective(both, pictures, generator(step))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        pixels.append(float(loss.metrics["pixel"]))
        told.append(float(loss.metrics["real_told"] + loss.metrics["made_told"]))
    assert pixels[-1] < 0.5 * pixels[0]
    assert max(told) > 1.2  # blind guessing is right of one half of each


def test_weights_that_ask_for_nothing_are_refused():
    with pytest.raises(ConfigError, match="needs a loss"):
        SrGanWeights(pixel=0.0, feature=0.0, adversarial=0.0)
    with pytest.raises(ConfigError, match="the weight feature"):
        SrGanWeights(feature=-1.0)
    with pytest.raises(ConfigError, match="there are no features"):
        SrGanObjective()
