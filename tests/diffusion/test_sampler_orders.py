"""Convergence on data whose exact walk is known, and the page that quotes the figures."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from scipy import stats

from bottega.diffusion import SAMPLERS, explicit, karras
from bottega.diffusion.oracles import Gaussian, TwoGaussians

ROOT = Path(__file__).parents[2]


def load_benchmark():
    spec = importlib.util.spec_from_file_location(
        "sampler_orders", ROOT / "benchmarks" / "sampler_orders.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


measure = load_benchmark()
DATA = [Gaussian(), TwoGaussians()]


@pytest.mark.parametrize("data", DATA, ids=lambda data: type(data).__name__)
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("euler", {}, 1.0),
        ("ddim", {}, 1.0),
        ("heun", {}, 2.0),
        ("dpmpp_2m", {}, 2.0),
        ("dpmpp_2m_sde", {"eta": 0.0}, 2.0),
        ("deis", {"order": 1}, 1.0),
        ("deis", {"order": 2}, 2.0),
        ("deis", {"order": 3}, 3.0),
        ("deis_kutta", {}, 3.0),
    ],
)
def test_solvers_converge_at_their_order(data, name, options, expected):
    tolerance = 0.15 if expected < 3 else 0.2
    assert measure.order(name, options, data) == pytest.approx(expected, abs=tolerance)


def test_heun_at_one_step_has_the_error_of_its_formula():
    data, x = Gaussian(mean=0.0, std=0.5), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    (step,) = SAMPLERS["heun"](data.denoise, x, [2.0, 1.0])
    slope = 2 / (0.25 + 4)  # (x - D) / sigma at x = 1
    ahead = 1 - slope
    assert float(step.x) == pytest.approx(1 - (slope + ahead / (0.25 + 1)) / 2, rel=1e-12)


@pytest.mark.parametrize("data", DATA, ids=lambda data: type(data).__name__)
def test_the_known_walk_solves_the_ode(data):
    x = torch.linspace(-0.9, 0.7, 13, dtype=torch.float64).view(-1, 1, 1, 1)
    for sigma in (0.05, 0.4, 3.0):
        ahead, behind = (data.walk(x, sigma, sigma + step) for step in (1e-4, -1e-4))
        slope = (x - data.denoise(x, torch.full((13,), sigma, dtype=torch.float64))) / sigma
        assert torch.allclose((ahead - behind) / 2e-4, slope, atol=1e-5)


def test_the_ideal_denoiser_is_the_mean_of_the_clean_given_the_noisy():
    data = TwoGaussians()
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(2_000_000, generator=generator) < data.share
    clean = torch.where(first, data.means[0], data.means[1])
    clean = clean + data.std * torch.randn(2_000_000, generator=generator)
    noisy = clean + 0.5 * torch.randn(2_000_000, generator=generator)
    for place in (-1.0, -0.2, 0.7):
        near = (noisy - place).abs() < 0.01
        ideal = data.denoise(torch.full((1, 1, 1, 1), place), torch.full((1,), 0.5))
        assert float(clean[near].mean()) == pytest.approx(float(ideal), abs=0.015)


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("euler_ancestral", {}, 0.03),
        ("euler_ancestral", {"eta": 0.5}, 0.03),
        ("ddim", {"eta": 1.0}, 0.03),
        ("imagen_ancestral", {"gamma": 0.0}, 0.03),
        ("imagen_ancestral", {"gamma": 0.3}, 0.03),
        ("imagen_ancestral", {"gamma": 1.0}, 0.03),
        ("dpmpp_2m_sde", {}, 0.002),
        ("dpmpp_2m_sde", {"eta": 0.5}, 0.002),
        ("heun", {"churn": 40.0}, 0.002),
    ],
)
def test_random_samplers_paint_the_right_spread(name, options, tolerance):
    coarse, fine = (abs(measure.painted_std(name, options, steps) / 0.5 - 1) for steps in (50, 400))
    assert fine < tolerance
    assert fine < coarse


@pytest.mark.parametrize("name", ["euler_ancestral", "imagen_ancestral", "dpmpp_2m_sde"])
def test_random_samplers_find_both_modes_in_the_right_shares(name):
    data, generator = TwoGaussians(), torch.Generator().manual_seed(3)
    x = 80 * torch.randn(20_000, 1, 1, 1, generator=generator)

    def noise():
        return torch.randn(x.shape, generator=generator)

    *_, last = SAMPLERS[name](data.denoise, x, karras(150), noise=noise)
    values = last.x.flatten()
    share = float(data.cdf(torch.tensor(-0.1), 0.0))
    assert float((values < -0.1).float().mean()) == pytest.approx(share, abs=0.015)
    left = stats.truncnorm(-math.inf, 1.5, loc=-0.6, scale=0.2).mean()  # cut at -0.3
    assert float(values[values < -0.3].mean()) == pytest.approx(left, abs=0.015)


def test_a_finer_grid_between_the_same_ends_is_still_the_same_walk():
    data, x = TwoGaussians(), torch.full((1, 1, 1, 1), 30.0, dtype=torch.float64)
    *_, last = SAMPLERS["heun"](data.denoise, x, explicit(karras(800)))
    assert float(last.x) == pytest.approx(float(data.walk(x, 80.0, 0.0)), abs=1e-4)


PAGE = ROOT / "docs" / "choose-a-sampler.md"


def test_the_example_on_the_page_runs(capsys):
    code = PAGE.read_text(encoding="utf-8").split("```python")[1].split("```")[0]
    exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("0.000")


def test_the_page_on_samplers_quotes_what_is_measured():
    page = PAGE.read_text(encoding="utf-8")
    for line in measure.tables().splitlines():
        assert line in page
