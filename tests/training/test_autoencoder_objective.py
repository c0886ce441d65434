"""What an autoencoder minimises is what the formulas say, and minimising it makes pictures come back."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from bottega.data import Batch
from bottega.errors import ConfigError
from bottega.models.autoencoder import AutoencoderConfig, build_autoencoder
from bottega.models.autoencoder_kl import Posterior
from bottega.training.autoencoder_objective import AutoencoderObjective, divergence


class Shifted(nn.Module):
    """Latents are the picture itself, nearly without spread; what comes back is ``by`` brighter."""

    def __init__(self, by: float, log_variance: float = -60.0) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))
        self.log_variance = log_variance

    def encode(self, images):
        spread = torch.full_like(images, self.log_variance)
        return Posterior(mean=images, log_variance=spread)

    def decode(self, latents):
        return latents + self.by


def batch_of(images: torch.Tensor) -> Batch:
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    return Batch(images=pixels, captions=("",) * len(pixels), indices=tuple(range(len(pixels))))


def striped() -> Batch:
    """Black and white columns, and a picture that is white all over."""
    pictures = torch.ones(2, 3, 8, 8)
    pictures[0, :, :, ::2] = -1
    return batch_of(pictures)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_divergence_is_that_of_normal_distributions():
    draws = generator()
    mean = torch.randn(3, 4, 5, 6, generator=draws, dtype=torch.float64)
    log_variance = torch.randn(3, 4, 5, 6, generator=draws, dtype=torch.float64)
    normal = Normal(mean, (log_variance / 2).exp())
    exact = kl_divergence(normal, Normal(0.0, 1.0)).flatten(1).mean(1)
    torch.testing.assert_close(divergence(mean, log_variance), exact, rtol=1e-12, atol=0)


def test_pixels_and_outlines_are_counted_apart():
    objective = AutoencoderObjective(kl_weight=0.0, edge_weight=3.0)
    loss = objective(Shifted(0.25), striped(), generator())
    assert loss.per_image is not None
    torch.testing.assert_close(loss.metrics["pixels"], torch.tensor(0.25))
    torch.testing.assert_close(loss.metrics["outlines"], torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(loss.per_image, torch.full((2,), 0.25))


class Grey(Shifted):
    """Gives nothing back but grey."""

    def decode(self, latents):
        return latents * 0 * self.by


def test_lost_stripes_cost_as_much_as_their_steps_are_high():
    loss = AutoencoderObjective(kl_weight=0.0, edge_weight=1.0)(Grey(0.0), striped(), generator())
    assert loss.per_image is not None
    # Every step across is 2 high and none down: one in the mean. The white picture has no steps at all.
    torch.testing.assert_close(loss.per_image, torch.tensor([2.0, 1.0]))


def test_the_total_weighs_its_parts():
    weights = AutoencoderObjective(kl_weight=0.5, edge_weight=2.0)
    loss = weights(Grey(0.0, log_variance=-1.0), striped(), generator())
    parts = {name: value.item() for name, value in loss.metrics.items()}
    total = parts["pixels"] + 2.0 * parts["outlines"] + 0.5 * parts["kl"]
    assert loss.total.item() == pytest.approx(total, rel=1e-6)
    assert parts["kl"] == pytest.approx((1 + math.exp(-1) - 1 + 1) / 2, rel=1e-6)


def test_latents_are_drawn_from_the_generator_alone():
    noisy = Shifted(0.0, log_variance=0.0)
    losses = [
        AutoencoderObjective()(noisy, striped(), torch.Generator().manual_seed(seed)).total.item()
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_tiny_autoencoder_learns_to_give_a_picture_back():
    torch.manual_seed(0)
    network = build_autoencoder(AutoencoderConfig(widths=(8, 16), norm_groups=2), 16)
    colours = torch.rand(4, 3, 1, 1) * 2 - 1
    pictures = colours.expand(4, 3, 16, 16).clone()
    pictures[:, :, 4:12, 4:12] *= -1
    batch, draws = batch_of(pictures), generator()
    objective = AutoencoderObjective()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    before = objective(network, batch, draws).metrics["pixels"].item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = objective(network, batch, draws)
        loss.total.backward()
        optimizer.step()
    after = objective(network, batch, draws).metrics["pixels"].item()
    assert after < before / 3


def test_weights_that_make_no_sense_are_refused():
    for name in ("kl_weight", "edge_weight"):
        with pytest.raises(ConfigError, match=f"{name} must be finite and not negative"):
            dataclasses.replace(AutoencoderObjective(), **{name: -1.0})


def test_plans_of_autoencoders_that_make_no_sense_are_refused():
    for wrong, words in (
        ({"widths": ()}, "at least one resolution"),
        ({"widths": (8,) * 8}, "shrink a picture by 128"),
        ({"widths": (9, 16)}, "multiple of norm_groups 2, got 9"),
        ({"latent_channels": 0}, "latent_channels must be at least 1"),
        ({"blocks": 0}, "blocks must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            AutoencoderConfig(**wrong)
    with pytest.raises(ConfigError, match="size must be a multiple of 4"):
        build_autoencoder(AutoencoderConfig(), 30)
