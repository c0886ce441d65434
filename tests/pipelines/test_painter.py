"""What is painted depends on prompt, seed and settings, and on nothing else."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from bottega.conditioning import TruncationWarning
from bottega.diffusion import Static
from bottega.errors import ConfigError, InputError
from bottega.pipelines import Painter, load
from bottega.pipelines.painter import PaintStep

PROMPTS = ["a pizza to the left of a cat", "", "a red car"]


def pixels(picture: Image.Image) -> bytes:
    return picture.tobytes()


def test_a_picture_is_the_same_alone_and_in_any_company(painter: Painter):
    together = painter.paint(PROMPTS, seeds=[5, 6, 7])
    reversed_ = painter.paint(PROMPTS[::-1], seeds=[7, 6, 5])
    for index, prompt in enumerate(PROMPTS):
        (alone,) = painter.paint(prompt, seeds=[5 + index])
        assert pixels(alone) == pixels(together[index]) == pixels(reversed_[2 - index])
        assert alone.info == together[index].info == reversed_[2 - index].info


def test_company_does_not_matter_in_bfloat16_either(tiny_folder):
    painter = load(tiny_folder, device="cpu", dtype="bfloat16")
    together = painter.paint(PROMPTS, seeds=3)
    (alone,) = painter.paint(PROMPTS[2], seeds=5)
    assert pixels(alone) == pixels(together[2])


def test_stochastic_samplers_keep_pictures_apart_too(painter: Painter):
    together = painter.paint(PROMPTS, sampler="dpmpp_2m_sde", low_res_sigma=0.5)
    (alone,) = painter.paint(PROMPTS[1], seeds=1, sampler="dpmpp_2m_sde", low_res_sigma=0.5)
    assert pixels(alone) == pixels(together[1])


def test_several_lanes_paint_the_same_up_to_rounding(tiny_folder, painter: Painter):
    wide = load(tiny_folder, device="cpu", dtype="float32", lanes=2)
    for one, other in zip(painter.paint(PROMPTS), wide.paint(PROMPTS), strict=True):
        gap = np.abs(np.asarray(one, float) - np.asarray(other, float))
        assert gap.max() <= 1


def test_another_seed_prompt_or_stage_noise_gives_another_picture(painter: Painter):
    base = pixels(painter.paint("a red car", seeds=0)[0])
    assert base != pixels(painter.paint("a red car", seeds=1)[0])
    assert base != pixels(painter.paint("a dog", seeds=0)[0])
    assert base != pixels(painter.paint("a red car", low_res_sigma={"sr16": 2.0})[0])


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 5},
        {"sampler": "heun"},
        {"guidance_scale": 1.0},
        {"guidance_scale": 0.0},
        {"guidance_interval": (0.5, 5.0)},
        {"sigma_min": 0.1},
        {"sigma_max": 20.0},
        {"rho": 3.0},
        {"thresholding": Static()},
        {"thresholding": None},
        {"encoders": ("t5",)},
        {"negative": "two apples"},
    ],
    ids=str,
)
def test_every_setting_changes_the_picture(painter: Painter, changed):
    prompt, strong = "a pizza to the left of a cat", {"guidance_scale": 30.0}
    assert pixels(painter.paint(prompt, **strong)[0]) != pixels(
        painter.paint(prompt, **{**strong, **changed})[0]
    )


def test_a_style_picture_changes_the_picture_and_is_named_in_it(painter: Painter):
    style = Image.new("RGB", (40, 30), "orange")
    plain = painter.paint("a dog")[0]
    styled = painter.paint("a dog", style=style)[0]
    assert pixels(plain) != pixels(styled)
    assert json.loads(styled.info["bottega"])["style"] is not None
    assert json.loads(plain.info["bottega"])["style"] is None


def test_an_empty_prompt_is_painted_without_guidance(painter: Painter):
    wild, tame = (painter.paint("  ", guidance_scale=scale)[0] for scale in (50.0, 1.0))
    assert pixels(wild) == pixels(tame)


def test_a_negative_prompt_alone_still_guides(painter: Painter):
    assert pixels(painter.paint("")[0]) != pixels(painter.paint("", negative="a red car")[0])


def test_guidance_outside_its_interval_is_no_guidance(painter: Painter):
    off = painter.paint("a dog", guidance_scale=1.0)[0]
    never = painter.paint("a dog", guidance_scale=9.0, guidance_interval=(1e6, 1e7))[0]
    gap = np.abs(np.asarray(off, float) - np.asarray(never, float))
    assert gap.max() <= 1  # one row or two in the last stage's joint call, rounded alike


def test_a_prompt_too_long_is_cut_with_a_warning_that_says_how_much(painter: Painter):
    with pytest.warns(TruncationWarning, match="tokens: the last [0-9,]+ are not seen") as caught:
        (picture,) = painter.paint("cat " * 10_000, encoders=("t5",))
    assert len(caught) == 1
    assert picture.size == (16, 16)


def test_progress_tells_each_step_of_each_stage_and_shows_it(painter: Painter):
    steps: list[PaintStep] = []
    pictures = painter.paint(["a dog", "a red car"], on_step=steps.append)
    places = [(s.indices, s.stage, s.step, s.num_steps) for s in steps]
    one = [("base", 1, 3), ("base", 2, 3), ("base", 3, 3), ("sr16", 1, 2), ("sr16", 2, 2)]
    assert places == [((i,), *place) for i in (0, 1) for place in one]
    assert [bool(s.pictures) for s in steps] == ([False] * 4 + [True]) * 2
    assert [s.pictures[0] for s in steps if s.pictures] == pictures
    assert [s.previews()[0].size for s in steps[:5]] == [(8, 8)] * 3 + [(16, 16)] * 2
    assert all(a.sigma > b.sigma for a, b in pairwise(steps[:3]))


def test_painting_can_be_left_at_any_step_and_touches_no_global_state(painter: Painter):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    walk = painter.paint_steps("a dog")
    next(walk)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    walk.close()
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_a_caller_passed_is_changed(painter: Painter):
    prompts, seeds, settings = ["a dog", "a red car"], [3, 4], painter.settings
    style = Image.new("RGBA", (9, 7), (1, 2, 3, 4))
    before = style.tobytes()
    painter.paint(prompts, seeds=seeds, settings=settings, style=style, steps={"base": 2})
    assert prompts == ["a dog", "a red car"] and seeds == [3, 4]
    assert settings == painter.settings
    assert style.tobytes() == before and style.mode == "RGBA" and not style.info


def test_settings_come_from_the_model_then_the_caller_then_single_overrides(painter: Painter):
    whole = replace(painter.settings["base"], steps=7, rho=5.0)
    resolved = painter.resolve({"base": whole}, {"steps": {"sr16": 9}, "sigma_max": 50.0})
    assert (resolved["base"].steps, resolved["base"].rho, resolved["base"].sigma_max) == (7, 5, 50)
    assert (resolved["sr16"].steps, resolved["sr16"].rho) == (9, 7)
    assert painter.settings["base"].steps == 3


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"seeds": [1, 2]}, InputError, "expected 1 seeds, one per prompt, got 2"),
        ({"negative": ["a", "b"]}, InputError, "expected 1 negative prompts"),
        ({"encoders": ("t6",)}, InputError, "did you mean t5"),
        ({"seeds": [2**63]}, InputError, "63 bits"),
        ({"steps": 0}, ConfigError, "steps must be between 1"),
        ({"steps": -3}, ConfigError, "steps must be between 1"),
        ({"sampler": "huen"}, ConfigError, "did you mean heun"),
        ({"guidance_scale": float("nan")}, ConfigError, "guidance_scale must be a finite"),
        ({"guidance_scale": -1.0}, ConfigError, "guidance_scale must be a finite"),
        ({"guidance_interval": (3.0, 1.0)}, ConfigError, "0 <= low < high"),
        ({"guidance_interval": (3.0, float("inf"))}, ConfigError, "both finite"),
        ({"sigma_min": 90.0}, ConfigError, "0 < sigma_min < sigma_max"),
        ({"rho": 0.0}, ConfigError, "rho must be positive"),
        ({"low_res_sigma": -0.1}, ConfigError, "low_res_sigma must be"),
        ({"steps": {"bas": 3}}, ConfigError, "did you mean base"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_before_anything_is_painted(
    painter: Painter, arguments, error, words
):
    with pytest.raises(error, match=words):
        painter.paint_steps("a dog", **arguments)


def test_an_unknown_setting_names_the_nearest(painter: Painter):
    with pytest.raises(ConfigError, match="did you mean guidance_scale"):
        painter.resolve(None, {"guidance_scal": 2.0})


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ([], "at least one prompt"),
        ("x" * 1_000_001, "1,000,000 letters"),
        ("\ud800", "not valid Unicode"),
    ],
    ids=["none", "a book", "a lone surrogate"],
)
def test_prompts_that_cannot_be_painted_are_refused(painter: Painter, prompts, words):
    with pytest.raises(InputError, match=words):
        painter.paint_steps(prompts)
