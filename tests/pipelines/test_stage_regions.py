"""A stage whose attention is known: regions must move exactly as much of it as the paper's formula says."""

import math

import pytest
import torch
from torch import nn

from bottega.condition import Condition, Stream
from bottega.diffusion import Denoiser, LogNormal
from bottega.ensemble import Expert, Mixture, Node
from bottega.models import Context, PlacedPhrase
from bottega.models.attention import CrossMixer, KeysValues, Reading
from bottega.pipelines import Stage, StageSettings

TOKENS = 3
LOGIT = 2.0
PIZZA = PlacedPhrase(
    tokens={"t5": (1,)}, mask=torch.zeros(8, 8).index_fill(1, torch.arange(4), 1.0)
)


class Known(nn.Module):
    """A picture as bright as the share of attention that the middle of three tokens gets, all of them alike to it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = CrossMixer(1, 1, 1, zero=False)
        self.mix.layer = 0
        self.mix.requires_grad_(False)
        self.mix.query.weight.zero_()
        self.mix.query.bias.fill_(1.0)
        self.mix.out.weight.fill_(1.0)
        self.mix.out.bias.zero_()

    def prepare(self, condition: Condition) -> Context:
        stream = condition.streams["t5"]
        values = torch.zeros(condition.batch_size, 1, TOKENS + 1, 1)
        values[:, :, 2] = 1.0
        return Context(
            layers=(KeysValues(torch.full_like(values, LOGIT), values),),
            mask=nn.functional.pad(stream.mask, (1, 0), value=True)[:, None, None],
            segments=(("null", 0, 1), ("t5", 1, TOKENS + 1)),
        )


class Bright(Denoiser):
    """Answers with that picture, whatever it is shown."""

    def forward(self, x, sigma, context=None):
        height, width = x.shape[2:]
        reading = Reading(
            layers=context.layers, mask=context.mask, bias=context.bias, segments=context.segments
        )
        rows = self.network.mix(x.mean(1).flatten(1)[..., None], height, width, reading)
        return rows.transpose(1, 2).unflatten(2, (height, width)).expand_as(x).contiguous()


def told(real: bool = True) -> Condition:
    mask = torch.full((1, TOKENS), real)
    return Condition(streams={"t5": Stream(tokens=torch.zeros(1, TOKENS, 1), mask=mask)})


def first(guidance_scale: float, strength: float, denoiser=None, **settings) -> torch.Tensor:
    """The first estimate of a walk from sigma 80."""
    stage = Stage(name="s", denoiser=Bright(Known()) if denoiser is None else denoiser, size=8)
    chosen = StageSettings(steps=4, guidance_scale=guidance_scale, thresholding=None, **settings)
    phrase = PlacedPhrase(tokens=PIZZA.tokens, mask=PIZZA.mask, strength=strength)
    walk = stage.paint(told(), told(False), [0], chosen, regions=[[phrase]])
    return next(walk).denoised[0, 0]


def share(strength: float, sigma: float = 80.0) -> float:
    """Of attention, for the one token of four keys that has a region here."""
    drawn = math.exp(LOGIT + strength * math.log(1 + sigma) * LOGIT)
    return drawn / (drawn + TOKENS * math.exp(LOGIT))


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0, -0.3])
def test_attention_moves_by_the_papers_formula_where_the_region_is_and_nowhere_else(strength):
    seen = first(1.0, strength)
    torch.testing.assert_close(seen[:, :4], torch.full((8, 4), share(strength)))
    torch.testing.assert_close(seen[:, 4:], torch.full((8, 4), 0.25))


def test_the_half_of_guidance_that_is_told_nothing_has_no_regions():
    """There only the null token is attended to, so the guided estimate is the conditional one times the scale."""
    seen = first(3.0, 0.2)
    torch.testing.assert_close(seen[:, :4], torch.full((8, 4), 3 * share(0.2)))
    torch.testing.assert_close(seen[:, 4:], torch.full((8, 4), 0.75))
    outside = first(3.0, 0.2, guidance_interval=(0.0, 1.0))
    torch.testing.assert_close(outside[:, :4], torch.full((8, 4), share(0.2)))


def test_regions_reach_whichever_expert_denoiser_works():
    experts = [
        Expert(name=str(node), part=node, denoiser=Bright(Known()))
        for node in (Node(1, 0), Node(1, 1))
    ]
    assert torch.equal(first(3.0, 0.2, Mixture(experts, LogNormal())), first(3.0, 0.2))
