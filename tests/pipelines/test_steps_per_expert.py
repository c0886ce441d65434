import pytest
import torch

from bottega.condition import Condition
from bottega.config import from_json, override, to_json
from bottega.diffusion import Denoiser, LogNormal, karras
from bottega.ensemble import Between, Expert, Mixture
from bottega.errors import ConfigError, InputError
from bottega.pipelines import Stage, StageSettings

NOISE = LogNormal()
DIVIDED = StageSettings(steps=5, steps_per_expert={"high": 2, "low": 3}, guidance_scale=1.0)


class Noting(torch.nn.Module):
    """A network that paints grey, and notes when it was called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__()
        self.name = name
        self.calls = calls

    def prepare(self, condition):
        return None

    def forward(self, x, c_noise, context=None):
        self.calls.append(self.name)
        return torch.zeros_like(x)


def stage_of(calls: list[str]) -> Stage:
    parts = {"high": Between(0.9), "low": Between(0.0, 0.9)}
    experts = [
        Expert(name=name, part=part, denoiser=Denoiser(Noting(name, calls)))
        for name, part in parts.items()
    ]
    return Stage(name="base", denoiser=Mixture(experts, NOISE), size=8)


def test_every_expert_denoiser_takes_the_steps_it_was_given():
    calls: list[str] = []
    stage = stage_of(calls)
    steps = list(stage.paint(Condition(), Condition(), [1], DIVIDED))
    assert len(steps) == 5
    assert calls == ["high"] * 2 + ["low"] * 3
    calls.clear()
    list(stage.paint(Condition(), Condition(), [1], StageSettings(steps=5, guidance_scale=1.0)))
    assert calls != ["high"] * 2 + ["low"] * 3


def test_without_numbers_of_its_own_an_ensemble_walks_the_plain_grid():
    assert stage_of([]).sigmas(StageSettings(steps=7)) == karras(7)


def test_numbers_of_steps_are_kept_with_the_other_settings():
    assert from_json(StageSettings, to_json(DIVIDED)) == DIVIDED
    given = {"steps": "5", "steps_per_expert": '{"high": 2, "low": 3}'}
    assert override(StageSettings(guidance_scale=1.0), given) == DIVIDED


@pytest.mark.parametrize(
    ("changes", "strength", "words"),
    [
        ({"steps": 6}, 1.0, "add up to 5, and steps are 6; set steps to 5"),
        ({"grid": "exponential"}, 1.0, "go by the grid karras, got exponential"),
        ({}, 0.5, "divides a whole walk"),
    ],
)
def test_steps_that_contradict_another_setting_are_refused(changes, strength, words):
    settings = StageSettings(**{"steps": 5, "steps_per_expert": {"high": 2, "low": 3}, **changes})
    with pytest.raises(ConfigError, match=words):
        stage_of([]).sigmas(settings, strength)


def test_an_unknown_expert_denoiser_is_named():
    settings = StageSettings(steps=5, steps_per_expert={"hihg": 2, "low": 3})
    with pytest.raises(InputError, match="did you mean high"):
        stage_of([]).sigmas(settings)


def test_a_single_denoiser_has_no_steps_to_divide():
    stage = Stage(name="base", denoiser=Denoiser(Noting("all", [])), size=8)
    with pytest.raises(ConfigError, match="one denoiser for all noise"):
        stage.sigmas(DIVIDED)
