"""How exact each sampler is, on data whose exact walk is known. Run it: ``python benchmarks/sampler_orders.py``.

The figures are deterministic; docs/choose-a-sampler.md quotes them, and a test compares.
"""

import math
from typing import Any

import torch

from bottega.diffusion import SAMPLERS, karras
from bottega.diffusion.oracles import Gaussian, TwoGaussians
from bottega.shapes import Images

CALLS_PER_STEP = {"heun": 2, "deis_kutta": 3}
DETERMINISTIC: list[tuple[str, dict[str, Any]]] = [
    ("euler", {}),
    ("ddim", {}),
    ("heun", {}),
    ("dpmpp_2m", {}),
    ("deis", {"order": 2}),
    ("deis", {"order": 3}),
    ("deis_kutta", {}),
]
STOCHASTIC: list[tuple[str, dict[str, Any]]] = [
    ("euler_ancestral", {}),
    ("imagen_ancestral", {"gamma": 0.3}),
    ("dpmpp_2m_sde", {}),
    ("heun", {"churn": 10.0}),
]


def error(
    name: str,
    options: dict[str, Any],
    data: Gaussian | TwoGaussians,
    steps: int,
    sigma_min: float,
    sigma_max: float,
) -> float:
    """Root mean square distance to the exact walk from ``sigma_max`` down to ``sigma_min``."""
    x = torch.linspace(-2.5, 2.5, 64, dtype=torch.float64).view(-1, 1, 1, 1) * sigma_max
    exact = data.walk(x, sigma_max, sigma_min)
    sigmas = karras(steps + 1, sigma_min, sigma_max)[:-1]
    *_, last = SAMPLERS[name](data.denoise, x, sigmas, **options)
    return float((last.x - exact).square().mean().sqrt())


def order(name: str, options: dict[str, Any], data: Gaussian | TwoGaussians) -> float:
    """The slope of the error against the number of steps, by least squares over 32 to 256 steps."""
    steps = torch.tensor([32, 64, 128, 256], dtype=torch.float64)
    errors = [error(name, options, data, int(n), 0.05, 20.0) for n in steps]
    return -_slope(steps.log(), torch.tensor(errors, dtype=torch.float64).log())


def painted_std(name: str, options: dict[str, Any], steps: int, std: float = 0.5) -> float:
    """The spread of what a sampler paints when the data are a Gaussian of spread ``std``: exact, without chance.

    With a linear denoiser the result is a weighted sum of all noise drawn. Picture 0 carries the first noise alone
    and picture k the k-th fresh draw alone, so the final values are the weights.
    """
    data = Gaussian(mean=0.0, std=std)
    pictures = steps + 1
    draws = iter(range(1, pictures))
    x = torch.zeros(pictures, 1, 1, 1, dtype=torch.float64)
    x[0] = 80.0

    def noise() -> Images:
        impulse = torch.zeros_like(x)
        impulse[next(draws)] = 1.0
        return impulse

    *_, last = SAMPLERS[name](data.denoise, x, karras(steps), noise=noise, **options)
    return math.sqrt(float(last.x.square().sum()))


def _slope(x: torch.Tensor, y: torch.Tensor) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())


def label(name: str, options: dict[str, Any]) -> str:
    """How the tables name a sampler with its options."""
    return name + "".join(f", {key} {value:g}" for key, value in options.items())


def tables() -> str:
    """Both tables in Markdown."""
    lines = [
        "| sampler | calls per step | order | error at 24 calls | 48 calls | 96 calls |",
        "|---|---|---|---|---|---|",
    ]
    mixture = TwoGaussians()
    for name, options in DETERMINISTIC:
        per_step = CALLS_PER_STEP.get(name, 1)
        orders = f"{order(name, options, mixture):.2f}"
        errors = [
            f"{error(name, options, mixture, calls // per_step, 0.002, 80.0):.1e}"
            for calls in (24, 48, 96)
        ]
        lines.append(f"| {label(name, options)} | {per_step} | {orders} | {' | '.join(errors)} |")
    lines += [
        "",
        "| sampler | spread painted in 12 steps | 25 steps | 50 steps | 100 steps |",
        "|---|---|---|---|---|",
    ]
    for name, options in STOCHASTIC:
        spreads = [f"{painted_std(name, options, steps):.4f}" for steps in (12, 25, 50, 100)]
        lines.append(f"| {label(name, options)} | {' | '.join(spreads)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
