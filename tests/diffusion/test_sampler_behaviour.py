import itertools
import math

import pytest
import torch

from bottega.diffusion import SAMPLERS, Denoiser, find_sampler, guided, karras
from bottega.diffusion.oracles import TwoGaussians
from bottega.errors import ConfigError, InputError
from bottega.seeding import ImageNoise

RANDOM = {
    "euler_ancestral": {},
    "imagen_ancestral": {},
    "ddpm": {},
    "dpmpp_2m_sde": {},
    "heun": {"churn": 20.0},
}
ALL = [(name, {}) for name in SAMPLERS] + [("heun", RANDOM["heun"]), ("ddim", {"eta": 0.7})]
SHAPE = (3, 8, 8)


def noise_of(*seeds, purpose="walk"):
    return ImageNoise(list(seeds), purpose=purpose, shape=SHAPE)


IDEAL = TwoGaussians().denoise


def paint(name, seeds, denoise=IDEAL, steps=6, **options):
    x = 80 * noise_of(*seeds, purpose="start")()
    return list(SAMPLERS[name](denoise, x, karras(steps), noise=noise_of(*seeds), **options))


@pytest.mark.parametrize(("name", "options"), ALL)
def test_a_picture_is_the_same_alone_and_in_a_batch_bit_for_bit(name, options):
    together = paint(name, [3, 1, 4, 1], **options)[-1].x
    alone = [paint(name, [seed], **options)[-1].x for seed in (3, 1, 4, 1)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize(("name", "options"), ALL)
def test_every_step_is_reported_at_its_level_and_the_last_is_the_estimate(name, options):
    steps = paint(name, [0, 7], **options)
    assert [step.sigma for step in steps] == karras(6)[1:]
    assert torch.equal(steps[-1].x, steps[-1].denoised)
    assert all(step.x.shape == step.denoised.shape == (2, *SHAPE) for step in steps)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_samplers_change_nothing_they_were_given(name, options):
    x, sigmas = 80 * noise_of(5)(), karras(6)
    kept = x.clone()
    seen = list(SAMPLERS[name](IDEAL, x, sigmas, noise=noise_of(5), **options))
    copies = [step.x.clone() for step in seen]
    assert torch.equal(x, kept)
    assert sigmas == karras(6)
    again = list(SAMPLERS[name](IDEAL, x, sigmas, noise=noise_of(5), **options))
    assert all(torch.equal(copy, step.x) for copy, step in zip(copies, again, strict=True))


@pytest.mark.parametrize(("name", "options"), ALL)
def test_every_sampler_walks_without_guidance_at_scale_zero(network, name, options):
    uncond = Denoiser(network).bind(None)

    def cond(x, sigma):
        raise AssertionError("at scale 0 nothing conditional is asked")

    guided_steps = paint(name, [2, 9], denoise=guided(cond, uncond, 0.0), **options)
    plain_steps = paint(name, [2, 9], denoise=uncond, **options)
    assert torch.equal(guided_steps[-1].x, plain_steps[-1].x)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_one_step_is_the_estimate_at_the_start(name, options):
    x = 80 * noise_of(6)()
    (step,) = SAMPLERS[name](IDEAL, x, [80.0, 0.0], noise=noise_of(6))
    assert torch.equal(step.x, IDEAL(x, torch.full((1,), 80.0)))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigmas", [[1.0], [1.0, 1.0, 0.0], [1.0, 2.0], [math.nan, 0.0]])
def test_grids_that_cannot_be_walked_are_refused(name, sigmas):
    with pytest.raises(InputError):
        next(SAMPLERS[name](IDEAL, torch.zeros(1, *SHAPE), sigmas))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_denoiser_is_asked_at_falling_levels_and_never_at_zero(name):
    asked = []

    def denoise(x, sigma):
        asked.append(float(sigma[0]))
        return IDEAL(x, sigma)

    paint(name, [0], denoise=denoise)
    assert min(asked) > 0
    assert max(asked) == 80
    calls = {"heun": 11, "deis_kutta": 16}.get(name, 6)
    assert len(asked) == calls


@pytest.mark.parametrize("name", ["euler", "ddim", "heun", "dpmpp_2m", "deis", "deis_kutta"])
def test_deterministic_samplers_never_draw_noise(name):
    def noise():
        raise AssertionError("drawn")

    x = 80 * noise_of(1)()
    list(SAMPLERS[name](IDEAL, x, karras(4), noise=noise))


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde"])
def test_at_eta_zero_no_noise_is_drawn(name):
    x = 80 * noise_of(1)()
    list(SAMPLERS[name](IDEAL, x, karras(4), eta=0.0))


@pytest.mark.parametrize(
    ("name", "draws"),
    [("euler_ancestral", 5), ("imagen_ancestral", 5), ("dpmpp_2m_sde", 5), ("heun", 6)],
)
def test_noise_is_drawn_only_for_steps_that_use_it(name, draws):
    count = itertools.count()

    def noise():
        next(count)
        return torch.zeros(1, *SHAPE)

    x = 80 * noise_of(1)()
    list(SAMPLERS[name](IDEAL, x, karras(6), noise=noise, **RANDOM[name]))
    assert next(count) == draws


def test_churn_acts_between_its_two_levels_only():
    draws = []

    def noise():
        draws.append(1)
        return torch.zeros(1, *SHAPE)

    sigmas = [10.0, 5.0, 2.0, 1.0, 0.0]
    options = {"churn": 4.0, "churn_sigma_min": 2.0, "churn_sigma_max": 5.0, "churn_noise": 1.1}
    list(SAMPLERS["heun"](IDEAL, torch.ones(1, *SHAPE), sigmas, noise=noise, **options))
    assert len(draws) == 2


def test_churn_raises_the_level_by_at_most_root_two():
    asked = []

    def denoise(x, sigma):
        asked.append(float(sigma[0]))
        return x

    zero = torch.zeros(1, *SHAPE)
    list(SAMPLERS["heun"](denoise, zero, [10.0, 0.0], noise=lambda: zero, churn=1e6))
    assert asked == pytest.approx([10 * math.sqrt(2)])


@pytest.mark.parametrize("name", RANDOM)
def test_random_samplers_say_that_they_need_noise(name):
    with pytest.raises(InputError, match="noise"):
        list(SAMPLERS[name](IDEAL, torch.ones(1, *SHAPE), karras(3), **RANDOM[name]))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("heun", {"churn": -1.0}),
        ("heun", {"churn": math.nan}),
        ("heun", {"churn_noise": math.nan}),
        ("heun", {"churn_noise": -1.0}),
        ("heun", {"churn_sigma_min": 2.0, "churn_sigma_max": 1.0}),
        ("heun", {"churn_sigma_min": math.nan}),
        ("euler_ancestral", {"eta": 1.5}),
        ("ddim", {"eta": math.nan}),
        ("imagen_ancestral", {"gamma": -0.1}),
        ("dpmpp_2m_sde", {"eta": -0.5}),
        ("dpmpp_2m_sde", {"eta": math.inf}),
        ("deis", {"order": 0}),
        ("deis", {"order": 4}),
    ],
)
def test_impossible_options_are_refused(name, options):
    with pytest.raises(InputError):
        next(SAMPLERS[name](IDEAL, torch.ones(1, *SHAPE), karras(3), **options))


def test_an_unknown_sampler_names_the_nearest():
    assert find_sampler("heun") is SAMPLERS["heun"]
    with pytest.raises(ConfigError, match="did you mean dpmpp_2m"):
        find_sampler("dpmpp2m")


def test_samplers_that_are_one_under_two_names_agree():
    kwargs = {"seeds": [3], "steps": 8}
    euler = paint("euler", **kwargs)[-1].x
    assert torch.equal(paint("ddim", **kwargs)[-1].x, euler)
    assert torch.allclose(paint("deis", order=1, **kwargs)[-1].x, euler, atol=1e-5)
    ancestral = paint("euler_ancestral", **kwargs)[-1].x
    assert torch.equal(paint("ddim", eta=1.0, **kwargs)[-1].x, ancestral)
    assert torch.allclose(
        paint("imagen_ancestral", gamma=0.0, **kwargs)[-1].x, ancestral, atol=1e-4
    )
    assert torch.allclose(paint("ddpm", **kwargs)[-1].x, ancestral, atol=1e-4)
    multistep = paint("dpmpp_2m", **kwargs)[-1].x
    assert torch.allclose(paint("dpmpp_2m_sde", eta=0.0, **kwargs)[-1].x, multistep, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0])
def test_the_ancestral_step_is_the_posterior_of_ddpm(gamma):
    """Written as the textbook does, with alpha-bar and z = x sqrt(abar)."""
    sigma, sigma_next = 1.7, 0.9
    abar, abar_next = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
    alpha = abar / abar_next
    beta = 1 - alpha
    x, clean = torch.full((1, 1, 1, 1), 1.3).double(), torch.full((1, 1, 1, 1), 0.4).double()
    z = x * math.sqrt(abar)
    mean = (math.sqrt(abar_next) * beta * clean + math.sqrt(alpha) * (1 - abar_next) * z) / (
        1 - abar
    )
    small = beta * (1 - abar_next) / (1 - abar)
    std = math.sqrt(small ** (1 - gamma) * beta**gamma)
    (plain,) = SAMPLERS["imagen_ancestral"](
        lambda x, sigma: clean,
        x,
        [sigma, sigma_next],
        noise=lambda: torch.zeros_like(x),
        gamma=gamma,
    )
    (noisy,) = SAMPLERS["imagen_ancestral"](
        lambda x, sigma: clean,
        x,
        [sigma, sigma_next],
        noise=lambda: torch.ones_like(x),
        gamma=gamma,
    )
    assert torch.allclose(plain.x * math.sqrt(abar_next), mean, rtol=1e-12)
    assert float((noisy.x - plain.x) * math.sqrt(abar_next)) == pytest.approx(std, rel=1e-12)


def test_ddpm_adds_the_noise_that_the_network_asks_for_value_by_value():
    """All of one picture at one spread is Imagen's step of that gamma; mixed, every value goes by its own."""
    fixed = {gamma: paint("imagen_ancestral", [3], gamma=gamma)[0].x for gamma in (0.0, 0.3, 1.0)}
    for gamma, expected in fixed.items():
        said = torch.full((1, *SHAPE), 2 * gamma - 1)
        assert torch.allclose(paint("ddpm", [3], spread=lambda said=said: said)[0].x, expected)
    mixed = torch.full((1, *SHAPE), -1.0)
    mixed[..., 4:] = 1.0
    found = paint("ddpm", [3], spread=lambda: mixed)[0].x
    assert torch.allclose(found[..., :4], fixed[0.0][..., :4])
    assert torch.allclose(found[..., 4:], fixed[1.0][..., 4:])
