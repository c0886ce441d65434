"""Small denoisers that hear text and differ from each other, and an ensemble of three in the form of eDiff-I's."""

from collections.abc import Callable

import pytest
from expert_forms import Form, build
from tiny_networks import some_condition

from bottega.condition import Condition
from bottega.diffusion import Denoiser, LogNormal
from bottega.ensemble import Complement, Expert, Mixture, Node, Part

NOISE = LogNormal()
HIGH, LOW = Node(9, 511), Node(3, 0)
MIDDLE = Complement((HIGH, LOW))
PARTS: dict[str, Part] = {"high": HIGH, "low": LOW, "middle": MIDDLE}
SEEDS = {"high": 1, "low": 2, "middle": 3}


@pytest.fixture(scope="session")
def noise() -> LogNormal:
    return NOISE


@pytest.fixture(scope="session")
def parts() -> dict[str, Part]:
    return PARTS


@pytest.fixture(scope="session")
def denoisers() -> dict[str, Denoiser]:
    """Three denoisers of one form and different weights; only to be called."""
    return {name: build(Form(seed)) for name, seed in SEEDS.items()}


@pytest.fixture(scope="session")
def condition() -> Condition:
    return some_condition(batch=4)


@pytest.fixture(scope="session")
def join() -> Callable[..., Mixture]:
    """Makes a mixture of what is given for each name."""

    def join(sources: dict, residency: str = "all") -> Mixture:
        experts = [
            Expert(name=name, part=PARTS[name], denoiser=source) for name, source in sources.items()
        ]
        return Mixture(experts, NOISE, residency=residency)

    return join
