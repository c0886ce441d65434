import math

import pytest
import torch

from bottega.diffusion import Denoiser, autoguided, guided, guided_jointly
from bottega.errors import InputError

SIGMA = torch.tensor([0.5, 2.0])


class Counted:
    """A ``Denoise`` that answers one number and counts its calls."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.batches: list[int] = []

    def __call__(self, x, sigma):
        self.batches.append(len(x))
        return torch.full_like(x, self.value)


def both_of(cond, uncond):
    """One call for both halves, as a network with a joined context answers."""

    def both(x, sigma):
        first, second = x.chunk(2)
        high, low = sigma.chunk(2)
        return torch.cat([cond(first, high), uncond(second, low)])

    return both


def test_guidance_goes_beyond_the_prompt_away_from_the_rest(eps):
    denoised = guided(Counted(0.3), Counted(0.1), 7.5)(eps, SIGMA)
    assert torch.allclose(denoised, torch.full_like(eps, 0.1 + 7.5 * 0.2))


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.35, 8.0])
def test_the_denoised_form_equals_imagens_form_in_eps(eps, scale):
    cond, uncond = torch.randn_like(eps), torch.randn_like(eps)
    ours = guided(lambda x, s: cond, lambda x, s: uncond, scale)(eps, SIGMA)
    level = SIGMA[:, None, None, None]
    eps_cond, eps_uncond = (eps - cond) / level, (eps - uncond) / level
    theirs = eps - level * (scale * eps_cond + (1 - scale) * eps_uncond)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_scale_one_is_the_conditional_denoiser_and_asks_nothing_else(eps):
    cond, uncond, both = Counted(0.3), Counted(math.nan), Counted(math.nan)
    assert torch.equal(guided(cond, uncond, 1.0)(eps, SIGMA), torch.full_like(eps, 0.3))
    assert torch.equal(guided_jointly(both, cond, 1.0)(eps, SIGMA), torch.full_like(eps, 0.3))
    assert uncond.batches == both.batches == []


def test_scale_zero_is_the_unconditional_denoiser(eps):
    cond, uncond = Counted(math.nan), Counted(0.1)
    assert torch.equal(guided(cond, uncond, 0.0)(eps, SIGMA), torch.full_like(eps, 0.1))
    assert cond.batches == []
    joined = guided_jointly(both_of(Counted(0.3), uncond), Counted(0.3), 0.0)
    assert torch.allclose(joined(eps, SIGMA), torch.full_like(eps, 0.1))


def test_one_joint_call_says_what_two_calls_say(network, eps):
    cond, uncond = Denoiser(network).bind(None), Counted(0.1)
    both = Counted(0.0)
    joint = guided_jointly(both_of(cond, uncond), cond, 3.0)(eps, SIGMA)
    apart = guided(cond, uncond, 3.0)(eps, SIGMA)
    assert torch.equal(joint, apart)
    guided_jointly(both, cond, 3.0)(eps, SIGMA)
    assert both.batches == [4]


@pytest.mark.parametrize("joint", [False, True])
def test_outside_its_interval_guidance_asks_the_prompt_alone(eps, joint):
    cond, uncond = Counted(0.3), Counted(0.1)
    both = both_of(Counted(0.3), uncond)
    interval = (0.5, 1.5)
    denoise = (
        guided_jointly(both, cond, 3.0, interval) if joint else guided(cond, uncond, 3.0, interval)
    )
    for sigma in (0.5, 1.6, 80.0):  # the lower end does not belong to it
        assert torch.equal(denoise(eps, torch.full((2,), sigma)), torch.full_like(eps, 0.3))
    assert uncond.batches == []
    for sigma in (0.6, 1.5):  # the upper end does
        assert torch.allclose(denoise(eps, torch.full((2,), sigma)), torch.full_like(eps, 0.7))
    assert uncond.batches == [2, 2]


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_each_picture_is_guided_by_its_own_level(eps, scale):
    denoise = guided(Counted(0.3), Counted(0.1), scale, (1.0, 5.0))
    mixed = denoise(eps, torch.tensor([0.5, 2.0]))
    assert torch.allclose(mixed[0], torch.full_like(eps[0], 0.3))
    assert torch.allclose(mixed[1], torch.full_like(eps[1], 0.1 + scale * 0.2))


def test_a_negative_prompt_is_another_unconditional_denoiser(eps):
    towards = guided(Counted(0.0), Counted(0.4), 2.0)(eps, SIGMA)
    assert torch.allclose(towards, torch.full_like(eps, -0.4))


def test_autoguidance_goes_away_from_the_weaker_denoiser_and_nests(eps):
    prompt = guided(Counted(0.3), Counted(0.1), 2.0)
    denoised = autoguided(prompt, Counted(0.2), 1.5)(eps, SIGMA)
    assert torch.allclose(denoised, torch.full_like(eps, 0.2 + 1.5 * (0.5 - 0.2)))
    weak = Counted(math.nan)
    assert autoguided(prompt, weak, 1.0) is prompt
    assert weak.batches == []


def test_guidance_changes_nothing_it_was_given(network, eps):
    x, sigma = eps.clone(), SIGMA.clone()
    denoise = Denoiser(network).bind(None)
    guided(denoise, Counted(0.1), 3.0, (0.1, 9.0))(x, sigma)
    guided_jointly(both_of(denoise, Counted(0.1)), denoise, 3.0)(x, sigma)
    assert torch.equal(x, eps)
    assert torch.equal(sigma, SIGMA)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf])
def test_a_scale_that_is_not_finite_is_refused(scale):
    for make in (guided, guided_jointly, autoguided):
        with pytest.raises(InputError, match="guidance_scale must be finite"):
            make(Counted(0.0), Counted(0.0), scale)


@pytest.mark.parametrize("interval", [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (math.nan, 1.0)])
def test_an_empty_interval_is_refused(interval):
    with pytest.raises(InputError, match="interval"):
        guided(Counted(0.0), Counted(0.0), 2.0, interval)


def test_a_mixed_picture_never_leaks_what_is_not_a_number(eps):
    """Where guidance is off, the other denoiser's answer must not matter, however bad it is."""
    denoise = guided(Counted(0.3), Counted(math.nan), 3.0, (1.0, 5.0))
    assert bool(denoise(eps, torch.tensor([0.5, 2.0]))[0].isfinite().all())
