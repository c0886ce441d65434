from itertools import pairwise

import pytest
import torch
from torch import nn

from bottega.condition import Condition, Stream
from bottega.diffusion import (
    SAMPLERS,
    Denoiser,
    DenoiserLike,
    Dynamic,
    LogNormal,
    autoguided,
    guided,
    guided_jointly,
    thresholded,
)
from bottega.ensemble import Between, Expert, Mixture, Node
from bottega.errors import ConfigError, InputError
from bottega.models.attention import RowBias
from bottega.pipelines import Stage, StageSettings

GRID = [80.0, 8.0, 0.3, 0.04, 0.0]
STRONGER_AND_WEAKER = [200.0, 80.0, 9.7, 9.5, 3.0, 0.3, 0.08, 0.07, 0.002, 1e-6, 0.0]


def start(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def draws(batch: int):
    generator = torch.Generator().manual_seed(1)
    return lambda: torch.randn(batch, 3, 8, 8, generator=generator)


def walk(sampler: str, denoise, batch: int = 4, sigmas=GRID, **options) -> list[torch.Tensor]:
    x = start(batch) * sigmas[0]
    with torch.inference_mode():
        steps = SAMPLERS[sampler](denoise, x, sigmas, noise=draws(batch), **options)
        return [step.x for step in steps]


def mixed(batch: int = 4) -> torch.Tensor:
    """A noise level of each expert's, in an order that is not theirs."""
    return torch.tensor([0.5, 20.0, 0.01, 2.0])[:batch]


class Listening(nn.Module):
    """Calls another denoiser, and notes at which noise levels and how often it prepared."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner = inner
        self.sigmas: list[float] = []
        self.num_prepared = 0

    def prepare(self, condition: Condition):
        self.num_prepared += 1
        return self.inner.prepare(condition)

    def forward(self, x, sigma, context=None):
        self.sigmas += sigma.tolist()
        return self.inner(x, sigma, context)

    def bind(self, context):
        return lambda x, sigma: self(x, sigma, context)


def bias(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pulls towards the first key, more so on the left."""
    columns = torch.arange(height * width, device=logits.device) % width < width // 2
    changed = logits.clone()
    changed[..., 0] += 3 * columns
    return changed


def test_a_mixture_is_called_like_a_denoiser(join, denoisers):
    assert isinstance(join(denoisers), DenoiserLike)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_ensemble_of_copies_is_the_single_denoiser_bit_for_bit(
    sampler, join, denoisers, condition
):
    single = denoisers["middle"]
    copies = join(dict.fromkeys(denoisers, single))
    both = Condition.cat([condition, condition.null()])

    def painted(denoiser) -> list[torch.Tensor]:
        joint, alone = (denoiser.bind(denoiser.prepare(told)) for told in (both, condition))
        denoise = guided_jointly(joint, alone, 3.0, interval=(0.05, 20.0))
        return walk(sampler, thresholded(denoise, Dynamic()))

    for ours, theirs in zip(painted(copies), painted(single), strict=True):
        assert torch.equal(ours, theirs)


def test_copies_answer_a_batch_of_mixed_noise_like_the_single_denoiser(join, denoisers, condition):
    single = denoisers["low"].double()
    try:
        copies = join(dict.fromkeys(denoisers, single))
        x, sigma = start().double(), mixed().double()
        wide = condition.to(dtype=torch.float64)
        together = single(x, sigma, single.prepare(wide))
        ours = copies(x, sigma, copies.prepare(wide))
        assert torch.allclose(ours, together, rtol=0, atol=1e-12)
        for row in range(len(x)):
            told = single.prepare(wide).select([row])
            alone = single(x[row : row + 1], sigma[row : row + 1], told)
            assert torch.allclose(ours[row : row + 1], alone, rtol=0, atol=1e-12)
    finally:
        single.float()


def test_each_image_of_a_mixed_batch_is_its_own_experts(join, denoisers, condition):
    mixture = join(denoisers)
    x, sigma = start(), mixed()
    ours = mixture(x, sigma, mixture.prepare(condition))
    for rows, name in [([0, 3], "middle"), ([1], "high"), ([2], "low")]:
        expert = denoisers[name]
        told = expert.prepare(condition).select(rows)
        assert torch.equal(ours[rows], expert(x[rows], sigma[rows], told))
    answers = [expert(x, sigma, expert.prepare(condition)) for expert in denoisers.values()]
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in pairwise(answers))


def test_the_order_of_a_mixed_batch_does_not_matter(join, denoisers, condition):
    mixture = join(denoisers)
    x, sigma, context = start(), mixed(), mixture.prepare(condition)
    order = [2, 0, 3, 1]
    shuffled = mixture(x[order], sigma[order], context.select(order))
    assert torch.allclose(shuffled, mixture(x, sigma, context)[order], rtol=0, atol=1e-5)


def test_mixed_noise_may_be_guided_jointly(join, denoisers, condition):
    mixture = join(denoisers)
    both = Condition.cat([condition, condition.null()])
    x, sigma = start(), mixed()
    joint = guided_jointly(
        mixture.bind(mixture.prepare(both)), mixture.bind(mixture.prepare(condition)), 4.0
    )
    apart = guided(
        mixture.bind(mixture.prepare(condition)),
        mixture.bind(mixture.prepare(condition.null())),
        4.0,
    )
    assert torch.allclose(joint(x, sigma), apart(x, sigma), rtol=0, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_call_of_a_sampler_goes_by_its_own_sigma(sampler, join, denoisers, condition, noise):
    listening = {name: Listening(denoiser) for name, denoiser in denoisers.items()}
    mixture = join(listening)
    walk(sampler, mixture.bind(mixture.prepare(condition)))
    heard = {name: expert.sigmas for name, expert in listening.items()}
    assert all(heard.values())
    assert all(sigma >= noise.quantile(511 / 512) for sigma in heard["high"])
    assert all(sigma < noise.quantile(1 / 8) for sigma in heard["low"])
    assert all(
        noise.quantile(1 / 8) <= sigma < noise.quantile(511 / 512) for sigma in heard["middle"]
    )


def test_a_step_of_kutta_is_shared_by_the_experts_it_crosses(join, denoisers, condition):
    listening = {name: Listening(denoiser) for name, denoiser in denoisers.items()}
    mixture = join(listening)
    denoise = mixture.bind(mixture.prepare(condition).select([0]))
    walk("deis_kutta", denoise, batch=1, sigmas=[12.0, 4.0, 0.01])
    assert listening["high"].sigmas == [12.0]
    assert listening["middle"].sigmas == pytest.approx([8.0, 4.0, 4.0, 2.005])
    assert listening["low"].sigmas == pytest.approx([0.01])


def test_churn_above_sigma_max_and_levels_below_sigma_min_find_their_expert(
    join, denoisers, condition
):
    listening = {name: Listening(denoiser) for name, denoiser in denoisers.items()}
    mixture = join(listening)
    context = mixture.prepare(condition)
    for sigma in STRONGER_AND_WEAKER:
        assert mixture(start(1), torch.tensor([sigma]), context.select([0])).isfinite().all()
    assert listening["high"].sigmas == pytest.approx(STRONGER_AND_WEAKER[:3])
    assert listening["low"].sigmas == pytest.approx(STRONGER_AND_WEAKER[7:])
    assert [mixture.expert_for(sigma).name for sigma in STRONGER_AND_WEAKER] == (
        ["high"] * 3 + ["middle"] * 4 + ["low"] * 4
    )


@pytest.mark.parametrize("edge", [float("nan"), float("inf")])
def test_what_is_no_noise_level_is_answered_as_a_single_denoiser_would(edge, join, denoisers):
    single = denoisers["high"]
    copies = join(dict.fromkeys(denoisers, single))
    sigma = torch.tensor([edge])
    silent = Condition()
    ours = copies(start(1), sigma, copies.prepare(silent))
    assert torch.equal(ours.isnan(), single(start(1), sigma, single.prepare(silent)).isnan())


def test_a_prompt_is_prepared_once_for_each_expert_that_is_called(join, denoisers, condition):
    listening = {name: Listening(denoiser) for name, denoiser in denoisers.items()}
    mixture = join(listening)
    context = mixture.prepare(condition)
    assert not any(expert.num_prepared for expert in listening.values())
    mixture(start(), torch.full((4,), 0.5), context)
    mixture(start(), torch.full((4,), 0.6), context.with_bias(bias))
    mixture(start(2), torch.full((2,), 0.7), context.select([1, 2]))
    assert [expert.num_prepared for expert in listening.values()] == [0, 0, 1]
    mixture(start(), mixed(), context)
    mixture(start(), mixed(), context)
    assert [expert.num_prepared for expert in listening.values()] == [1, 1, 1]


def test_a_bias_reaches_every_expert_and_no_other_call(join, denoisers, condition):
    mixture = join(denoisers)
    context = mixture.prepare(condition)
    for sigma, name in [(20.0, "high"), (0.5, "middle"), (0.01, "low")]:
        level = torch.full((4,), sigma)
        plain = mixture(start(), level, context)
        biased = mixture(start(), level, context.with_bias(bias))
        told = denoisers[name].prepare(condition).with_bias(bias)
        assert torch.equal(biased, denoisers[name](start(), level, told))
        assert not torch.equal(biased, plain)
        assert torch.equal(plain, mixture(start(), level, context))
        assert torch.equal(plain, mixture(start(), level, context.with_bias(None)))


def test_a_bias_and_mixed_noise_go_together(join, denoisers, condition):
    mixture = join(denoisers)
    context = mixture.prepare(condition).with_bias(bias)
    ours = mixture(start(), mixed(), context)
    for row, name in enumerate(["middle", "high", "low", "middle"]):
        expert = denoisers[name]
        told = expert.prepare(condition).with_bias(bias)
        alone = expert(start(), mixed(), told)[row]
        assert torch.allclose(ours[row], alone, rtol=0, atol=1e-5)


class Pull(RowBias):
    """Pulls some pictures of a batch, and those alone, towards the first key."""

    changes = True

    def __init__(self, rows: tuple[int, ...]) -> None:
        self.rows = rows

    def add(self, logits, height, width, reading):
        logits[..., 0] += 3
        return logits

    def select(self, indices):
        rows = tuple(new for new, old in enumerate(indices) if old in self.rows)
        return Pull(rows) if rows else None

    def saw(self, weights, reading):
        assert len(weights.weights) == len(self.rows)


def test_a_bias_for_some_pictures_finds_them_after_the_split(join, denoisers, condition):
    mixture = join(denoisers)
    context = mixture.prepare(condition)
    plain = mixture(start(), mixed(), context)
    pulled = mixture(start(), mixed(), context.with_bias(Pull((1, 3))))
    assert torch.equal(pulled[[0, 2]], plain[[0, 2]])
    for row, name in [(1, "high"), (3, "middle")]:
        told = denoisers[name].prepare(condition).with_bias(Pull((1, 3)))
        alone = denoisers[name](start(), mixed(), told)[row]
        assert torch.allclose(pulled[row], alone, rtol=0, atol=1e-5)
        assert not torch.allclose(pulled[row], plain[row], atol=1e-4)


def test_a_mixture_can_be_guided_away_from_a_weaker_denoiser(join, denoisers, condition):
    mixture, weak = join(denoisers), denoisers["low"]
    denoise = autoguided(
        mixture.bind(mixture.prepare(condition)), weak.bind(weak.prepare(condition)), 2.0
    )
    level = torch.full((4,), 0.5)
    strong = denoisers["middle"](start(), level, denoisers["middle"].prepare(condition))
    away = strong + (strong - weak(start(), level, weak.prepare(condition)))
    assert torch.allclose(denoise(start(), level), away, rtol=0, atol=1e-5)


def test_a_stage_paints_with_an_ensemble_of_copies_as_with_the_single_denoiser(
    join, denoisers, condition
):
    single = denoisers["middle"]
    mixture = join(dict.fromkeys(denoisers, single))
    settings = StageSettings(steps=6, sampler="heun", guidance_interval=(0.1, 30.0))

    def painted(denoiser) -> torch.Tensor:
        stage = Stage(name="base", denoiser=denoiser, size=8)
        *_, last = stage.paint(condition, condition.null(), [1, 2, 3, 4], settings)
        return last.x

    assert torch.equal(painted(mixture), painted(single))


def test_gradients_flow_through_a_mixed_batch(join, denoisers, condition):
    mixture = join(denoisers)
    x = start().requires_grad_()
    mixture(x, mixed(), mixture.prepare(condition)).square().sum().backward()
    assert x.grad is not None
    assert all(x.grad[row].abs().sum() > 0 for row in range(4))


def test_nothing_passed_in_is_changed(join, denoisers, condition):
    mixture = join(denoisers)
    x, sigma = start(), mixed()
    mixture(x, sigma, mixture.prepare(condition))
    assert torch.equal(x, start())
    assert torch.equal(sigma, mixed())


def test_experts_of_one_denoiser_per_level_of_a_foreign_boundary(denoisers, condition):
    """Two experts and a boundary, as others have it: the boundary itself belongs above."""
    mixture = Mixture(
        [
            Expert(name="high", part=Between(0.9), denoiser=denoisers["high"]),
            Expert(name="low", part=Between(0.0, 0.9), denoiser=denoisers["low"]),
        ],
        LogNormal(),
    )
    context = mixture.prepare(condition)
    for sigma, name in [(0.9, "high"), (0.89, "low")]:
        level = torch.full((4,), sigma)
        told = denoisers[name].prepare(condition)
        assert mixture.expert_for(sigma).name == name
        assert torch.equal(mixture(start(), level, context), denoisers[name](start(), level, told))


class Silent(nn.Module):
    """A network that hears nothing, so that its context is whatever it is told."""

    def __init__(self, context) -> None:
        super().__init__()
        self.context = context

    def prepare(self, condition):
        return self.context

    def forward(self, x, c_noise, context=None):
        return x + c_noise[:, None, None, None]


def test_a_network_without_a_context_needs_no_select(noise):
    halves = [
        Expert(name=str(i), part=Node(1, i), denoiser=Denoiser(Silent(None))) for i in range(2)
    ]
    mixture = Mixture(halves, noise)
    sigma = torch.tensor([0.1, 3.0])
    expected = Denoiser(Silent(None))(start(2), sigma)
    assert torch.equal(mixture(start(2), sigma), expected)
    assert torch.equal(mixture(start(2), sigma, mixture.prepare(Condition())), expected)


def test_a_context_that_cannot_be_split_says_so(noise):
    halves = [
        Expert(name=str(i), part=Node(1, i), denoiser=Denoiser(Silent((1, 2)))) for i in range(2)
    ]
    mixture = Mixture(halves, noise)
    context = mixture.prepare(Condition())
    assert mixture(start(2), torch.tensor([0.1, 0.1]), context).isfinite().all()
    with pytest.raises(InputError, match="a tuple, which offers no select"):
        mixture(start(2), torch.tensor([0.1, 3.0]), context)


def test_what_a_prompt_may_not_be_is_said_when_the_first_expert_hears_it(join, denoisers):
    mixture = join(denoisers)
    wrong = Condition(
        streams={"t5": Stream(tokens=torch.zeros(1, 3, 5), mask=torch.ones(1, 3, dtype=torch.bool))}
    )
    context = mixture.prepare(wrong)
    with pytest.raises(InputError, match="12"):
        mixture(start(1), torch.tensor([0.5]), context)


@pytest.mark.parametrize(
    ("experts", "options", "words"),
    [
        ([("a", Node(1, 0))], {}, "sigma from 0.301194 up belongs to no expert denoiser"),
        ([("a", Node(1, 0)), ("b", Node(2, 3))], {}, "0.301194 to 0.676642 belongs to no"),
        ([("a", Node(1, 0)), ("b", Node(0, 0))], {}, "sigma from 0 to 0.301194 belongs to both"),
        ([], {}, "at least one part"),
        ([("a", Node(1, 0)), ("a", Node(1, 1))], {}, "two expert denoisers are called a"),
        ([("a", Node(0, 0))], {"residency": "activ"}, "did you mean active?"),
    ],
)
def test_what_is_no_ensemble_is_refused(experts, options, words, denoisers, noise):
    made = [Expert(name=n, part=part, denoiser=denoisers["low"]) for n, part in experts]
    with pytest.raises(ConfigError) as caught:
        Mixture(made, noise, **options)
    assert words in str(caught.value)
