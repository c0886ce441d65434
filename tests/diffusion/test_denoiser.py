from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bottega.condition import Condition
from bottega.diffusion import Cosine, Denoiser, DenoiserLike, EDMPrecond, TimestepDenoiser
from bottega.errors import ConfigError, InputError

TABLE = [
    (0.002, 0.99998, 0.0020, 2.0000, -1.5537, 250004),
    (0.1, 0.96154, 0.09806, 1.9612, -0.5756, 104),
    (0.5, 0.5, 0.35355, 1.41421, -0.1733, 8),
    (1.0, 0.2, 0.44721, 0.89443, 0.0, 5),
    (10.0, 0.00249, 0.49938, 0.09988, 0.5756, 4.01),
    (80.0, 0.000039, 0.49999, 0.0125, 1.0955, 4.0002),
]


class Constant(nn.Module):
    """Answers one number everywhere, and has no parameters."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x, c_noise, context):
        return torch.full_like(x, self.value)


@pytest.mark.parametrize("row", TABLE)
def test_scalings_are_those_of_the_paper(row):
    sigma, skip, out, scale_in, noise, weight = row
    level = torch.tensor([sigma], dtype=torch.float64)
    scalings = EDMPrecond(sigma_data=0.5)(level)
    assert [float(value) for value in scalings] == pytest.approx(
        [skip, out, scale_in, noise], abs=1e-4
    )
    assert float(EDMPrecond().weight(level)) == pytest.approx(weight, rel=1e-4)


@pytest.mark.parametrize("sigma_data", [0.25, 0.5, 1.0])
def test_the_weight_cancels_the_output_scaling(sigma_data):
    sigma = torch.logspace(-3, 3, 50, dtype=torch.float64)
    precond = EDMPrecond(sigma_data=sigma_data)
    product = precond.weight(sigma) * precond(sigma).out.square()
    assert torch.allclose(product, torch.ones_like(product), rtol=1e-12)


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_spread_of_data_is_refused(sigma_data):
    with pytest.raises(ConfigError, match="sigma_data"):
        EDMPrecond(sigma_data=sigma_data)


def test_a_silent_network_trusts_the_picture_at_no_noise_and_nothing_at_much():
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(Constant(0.0))
    assert torch.allclose(denoiser(x, torch.full((2,), 1e-5)), x, atol=1e-8)
    assert float(denoiser(x, torch.full((2,), 1e5)).abs().max()) < 1e-9


def test_a_clean_picture_is_its_own_estimate_whatever_the_network_says():
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(Denoiser(Constant(7.0))(x, torch.zeros(2)), x)


def test_the_denoiser_evaluates_equation_7(network, eps):
    sigma = torch.tensor([0.3, 5.0])
    scale = EDMPrecond()(sigma)
    column = [value[:, None, None, None] for value in scale]
    expected = column[0] * eps + column[1] * network(column[2] * eps, scale.noise)
    assert torch.allclose(Denoiser(network, EDMPrecond())(eps, sigma), expected, atol=1e-7)


def test_a_bfloat16_network_computes_in_bfloat16_and_the_rest_in_float32(network, eps):
    sigma = torch.tensor([0.3, 5.0])
    full = Denoiser(network)(eps, sigma)
    half = Denoiser(network.to(torch.bfloat16))(eps, sigma)
    assert network.seen_dtypes == [torch.float32, torch.bfloat16]
    assert half.dtype == torch.float32
    assert torch.allclose(half, full, atol=2e-2)
    assert Denoiser(network)(eps.to(torch.bfloat16), sigma).dtype == torch.float32


def test_wider_pictures_stay_wide(make_network, eps):
    wide = Denoiser(make_network().double())(eps.double(), torch.ones(2, dtype=torch.float64))
    assert wide.dtype == torch.float64


def test_bound_denoisers_pass_what_was_prepared(eps):
    seen = []

    class Listens(nn.Module):
        def prepare(self, condition):
            return ("prepared", condition)

        def forward(self, x, c_noise, context):
            seen.append(context)
            return x

    denoiser, condition = Denoiser(Listens()), Condition()
    denoiser.bind(denoiser.prepare(condition))(eps, torch.ones(2))
    assert seen == [("prepared", condition)]


def test_each_picture_is_denoised_at_its_own_level(network, eps):
    denoiser = Denoiser(network.double())
    levels = torch.tensor([0.1, 3.0], dtype=torch.float64)
    together = denoiser(eps.double(), levels)
    alone = [denoiser(eps[i : i + 1].double(), levels[i : i + 1]) for i in range(2)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-12, atol=1e-14)


def test_denoising_changes_nothing_it_was_given(network, eps):
    x, sigma = eps.clone(), torch.tensor([0.5, 2.0])
    Denoiser(network)(x, sigma)
    assert torch.equal(x, eps)
    assert torch.equal(sigma, torch.tensor([0.5, 2.0]))


def test_whatever_paints_is_called_alike(make_network):
    assert isinstance(Denoiser(make_network()), DenoiserLike)
    assert isinstance(TimestepDenoiser(make_network(), Cosine(), "v"), DenoiserLike)
    assert not isinstance(make_network(), DenoiserLike)


def test_around_the_low_resolution_picture_the_denoiser_is_the_plain_one_of_what_is_missing():
    generator = torch.Generator().manual_seed(0)
    x, centre = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2))
    sigma = torch.tensor([0.1, 3.0])
    network = nn.Tanh()
    network.forward = lambda x, c_noise, context: torch.tanh(x) + c_noise[:, None, None, None]
    around = Denoiser(network, EDMPrecond(sigma_data=0.2, around="low_res"))
    plain = Denoiser(network, EDMPrecond(sigma_data=0.2))
    context = SimpleNamespace(enlarged=centre)
    expected = centre + plain(x - centre, sigma, context)
    assert torch.equal(around(x, sigma, context), expected)


def test_around_the_low_resolution_picture_a_silent_network_errs_towards_that_picture():
    centre = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    noisy = centre + 2 * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    context = SimpleNamespace(enlarged=centre)
    precond = EDMPrecond(sigma_data=0.1, around="low_res")
    denoised = Denoiser(Constant(0.0), precond)(noisy, torch.tensor([2.0]), context)
    assert (denoised - centre).abs().max() < 0.05


@pytest.mark.parametrize("context", [None, SimpleNamespace(enlarged=None)])
def test_around_a_low_resolution_picture_that_is_not_there_is_refused(context):
    denoiser = Denoiser(Constant(0.0), EDMPrecond(around="low_res"))
    with pytest.raises(InputError, match="give a condition with low_res"):
        denoiser(torch.zeros(1, 3, 4, 4), torch.ones(1), context)
