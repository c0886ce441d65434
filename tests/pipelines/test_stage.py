"""A stage samples what its denoiser says, and tells what it cannot do."""

import pytest
import torch
from torch import nn

from bottega.condition import Condition, Stream
from bottega.diffusion import Denoiser
from bottega.errors import InputError
from bottega.pipelines import Stage, StageSettings
from bottega.pipelines.stage import is_silent


class Known(nn.Module):
    """A network whose denoiser answers with the mean of its tokens, and with the picture to enlarge if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.prepared = 0
        self.seen: Condition | None = None

    def prepare(self, condition: Condition):
        self.prepared += 1
        self.seen = condition
        return condition

    def forward(self, x, c_noise, context):
        raise AssertionError("the denoiser below answers")


class Oracle(Denoiser):
    """Knows the clean picture: it is as bright as its tokens say."""

    def forward(self, x, sigma, context=None):
        self.network.batches.append(len(x))
        bright = context.streams["t5"].tokens.mean(dim=(1, 2))
        return bright[:, None, None, None].expand_as(x)


def told(value: float, real: bool = True) -> Condition:
    tokens = torch.full((1, 2, 4), value)
    return Condition(streams={"t5": Stream(tokens=tokens, mask=torch.full((1, 2), real))})


SILENT = told(0.0, real=False)
QUICK = StageSettings(steps=4, guidance_scale=2.0, thresholding=None)


def stage(low_res_from: str | None = None) -> Stage:
    return Stage(name="s", denoiser=Oracle(Known()), size=4, low_res_from=low_res_from)


def finish(walk):
    return list(walk)[-1].x


def test_guidance_goes_from_uncond_through_cond():
    for scale, expected in ((1.0, 0.2), (0.0, -0.1), (2.0, 0.5), (3.0, 0.8)):
        settings = StageSettings(steps=4, guidance_scale=scale, thresholding=None)
        x = finish(stage().paint(told(0.2), told(-0.1), [0], settings))
        assert torch.allclose(x, torch.full_like(x, expected), atol=1e-5)


def test_prompt_and_no_prompt_go_through_the_network_in_one_call_of_two():
    s = stage()
    finish(s.paint(told(0.2), SILENT, [0], QUICK))
    assert s.denoiser.network.batches == [2] * 4
    assert s.denoiser.network.prepared == 1


def test_without_guidance_the_second_half_is_never_computed():
    for cond, settings in (
        (told(0.2), StageSettings(steps=4, guidance_scale=1.0)),
        (SILENT, QUICK),
    ):
        s = stage()
        finish(s.paint(cond, SILENT, [0], settings))
        assert s.denoiser.network.batches == [1] * 4


def test_outside_its_interval_guidance_costs_nothing():
    s = stage()
    settings = StageSettings(steps=4, guidance_scale=2.0, guidance_interval=(1.0, 30.0))
    finish(s.paint(told(0.2), SILENT, [0], settings))
    assert set(s.denoiser.network.batches) == {1, 2}
    assert s.denoiser.network.prepared == 2


def test_the_picture_to_enlarge_reaches_every_row_with_its_sigma():
    low = torch.zeros(1, 3, 2, 2)
    for sigma in (0.0, 0.7):
        s = stage(low_res_from="base")
        settings = StageSettings(steps=2, low_res_sigma=sigma, guidance_interval=(1.0, 30.0))
        finish(s.paint(told(0.2), SILENT, [0], settings, low_res=low))
        seen = s.denoiser.network.seen
        assert seen.low_res_sigma.tolist() == pytest.approx([sigma])
        assert (seen.low_res.abs().max() > 0) == (sigma > 0)
    assert low.abs().max() == 0


def test_augmentation_noise_is_its_own_and_unlike_the_start_of_the_walk():
    low = torch.zeros(1, 3, 4, 4)
    s = stage(low_res_from="base")
    settings = StageSettings(steps=1, low_res_sigma=1e6, guidance_scale=1.0)
    walk = s.paint(told(0.0), SILENT, [0], settings, low_res=low)
    finish(walk)
    noise = s.denoiser.network.seen.low_res
    again = stage(low_res_from="base")
    both = Condition.cat([told(0.0), told(0.0)])
    finish(again.paint(both, both, [0, 1], settings, low_res=low.repeat(2, 1, 1, 1)))
    assert torch.equal(again.denoiser.network.seen.low_res[0], noise[0])
    assert not torch.equal(*again.denoiser.network.seen.low_res)


@pytest.mark.parametrize(
    ("low_res_from", "low_res", "words"),
    [("base", None, "needs a picture"), (None, torch.zeros(1, 3, 2, 2), "enlarges nothing")],
)
def test_a_stage_says_what_it_enlarges(low_res_from, low_res, words):
    with pytest.raises(InputError, match=words):
        stage(low_res_from).paint(told(0.0), SILENT, [0], QUICK, low_res=low_res)


def test_silence_is_no_real_token_anywhere():
    assert is_silent(SILENT)
    assert is_silent(Condition())
    assert not is_silent(told(0.0))
