import pytest
import torch
from torch import nn

from bottega.diffusion import Denoiser, EDMPrecond, LogNormal, edm_loss, heun, karras


class Silent(nn.Module):
    def forward(self, x, c_noise, context):
        return torch.zeros_like(x)


class Affine(nn.Module):
    """The form that is ideal for Gaussian pixels: slope and offset that depend on the noise level alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 2))

    def forward(self, x, c_noise, context):
        slope, offset = self.body(c_noise[:, None])[:, :, None, None, None].unbind(1)
        return slope * x + offset


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0, 40.0])
def test_an_untrained_network_loses_one_at_every_noise_level(sigma):
    generator = torch.Generator().manual_seed(0)
    clean = 0.5 * torch.randn(400, 3, 8, 8, generator=generator)
    eps = torch.randn(400, 3, 8, 8, generator=generator)
    loss = edm_loss(Denoiser(Silent()), clean, torch.full((400,), sigma), eps)
    assert float(loss.mean()) == pytest.approx(1.0, abs=0.02)


def test_the_loss_is_the_weighted_error_of_each_picture(network, eps):
    clean = torch.rand(2, 3, 8, 8) * 2 - 1
    sigma = torch.tensor([0.2, 7.0])
    denoiser = Denoiser(network, EDMPrecond(sigma_data=0.4))
    loss = edm_loss(denoiser, clean, sigma, eps)
    for i in range(2):
        noisy = clean[i : i + 1] + sigma[i] * eps[i : i + 1]
        error = (denoiser(noisy, sigma[i : i + 1]) - clean[i]).square().mean()
        weight = (sigma[i] ** 2 + 0.4**2) / (sigma[i] * 0.4) ** 2
        assert float(loss[i]) == pytest.approx(float(weight * error), rel=1e-4)


def test_the_context_reaches_the_network(eps):
    class Echo(nn.Module):
        def forward(self, x, c_noise, context):
            return context * torch.ones_like(x)

    denoiser = Denoiser(Echo())
    losses = [edm_loss(denoiser, eps, torch.ones(2), eps, value) for value in (0.0, 3.0)]
    assert float((losses[0] - losses[1]).abs().min()) > 0.1


def test_the_loss_changes_nothing_it_was_given(network, eps):
    clean, sigma = torch.zeros(2, 3, 8, 8), torch.ones(2)
    noise = eps.clone()
    edm_loss(Denoiser(network), clean, sigma, noise)
    assert torch.equal(clean, torch.zeros(2, 3, 8, 8))
    assert torch.equal(sigma, torch.ones(2))
    assert torch.equal(noise, eps)


def test_training_on_gaussian_pixels_learns_to_paint_them():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    denoiser, levels = Denoiser(Affine()), LogNormal()
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-2)
    for step in range(250):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 250)
        clean = 0.2 + 0.3 * torch.randn(64, 1, 4, 4, generator=generator)
        eps = torch.randn(64, 1, 4, 4, generator=generator)
        loss = edm_loss(denoiser, clean, levels.sample(64, generator), eps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = 80 * torch.randn(500, 1, 4, 4, generator=generator)
    with torch.inference_mode():
        *_, last = heun(denoiser.bind(None), x, karras(24))
    assert float(last.x.mean()) == pytest.approx(0.2, abs=0.04)
    assert float(last.x.std()) == pytest.approx(0.3, abs=0.04)
