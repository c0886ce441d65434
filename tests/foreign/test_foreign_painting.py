"""Whole sampling runs agree with diffusers' pipelines on the same weights, noise and texts."""

import numpy as np
import pytest
from foreign_models import SD_BETAS

from bottega.pipelines import load

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' own

PROMPT = "a red dog on the left"


def final(walk):
    return list(walk)[-1].x


def noise_of(painter, seed=0):
    """The unit noise that a stage begins with, and its later draws."""
    from bottega.seeding import ImageNoise

    return ImageNoise([seed], purpose=painter.stages[-1].name, shape=painter.stages[-1].shape)


def conditions(painter, prompt=PROMPT, negative=""):
    return (painter.encoders.condition([text]) for text in (prompt, negative))


SAMPLERS = {
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": True}, "leading"),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, "leading"),
    "dpmpp_2m": (
        "DPMSolverMultistepScheduler",
        {"timestep_spacing": "trailing", "final_sigmas_type": "zero"},
        "trailing",
    ),
    "euler_ancestral": ("DDPMScheduler", {"clip_sample": False}, "leading"),
}


def with_scheduler(pipeline, sampler):
    """Their pipeline with the scheduler that is our sampler."""
    import diffusers

    name, settings, _ = SAMPLERS[sampler]
    prediction = pipeline.scheduler.config.prediction_type
    pipeline.scheduler = (
        getattr(diffusers, name)(**SD_BETAS, prediction_type=prediction, steps_offset=1, **settings)
        if name != "DDPMScheduler"
        else diffusers.DDPMScheduler(**SD_BETAS, prediction_type=prediction, **settings)
    )
    return pipeline


@pytest.fixture
def fixed_noise(monkeypatch):
    """DDPM's draws from the generators that our painter uses."""

    def use(noise):
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda shape, **_: noise()
        )

    return use


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("family", ["sd", "sd2"])
def test_ten_guided_steps_in_latents_are_those_of_the_pipeline(
    folders, family, sampler, fixed_noise, parity
):
    from diffusers import StableDiffusionPipeline

    folder = folders(family)
    painter = load(folder, device="cpu", dtype="float32")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    with_scheduler(pipeline, sampler)
    stage = painter.stages[0]
    if sampler == "euler_ancestral":  # their DDPM begins at timestep 900, without an offset
        from dataclasses import replace

        stage = replace(stage, timestep_plan=replace(stage.timestep_plan, steps_offset=0))
    settings = painter.resolve(
        None,
        {"steps": 10, "sampler": sampler, "grid": SAMPLERS[sampler][2], "guidance_scale": 5.0},
    )["base"]
    cond, uncond = conditions(painter)
    found = final(stage.paint(cond, uncond, [0], settings))

    noise = noise_of(painter)
    start = noise()
    fixed_noise(noise)
    expected = pipeline(
        PROMPT,
        height=16,
        width=16,
        num_inference_steps=10,
        guidance_scale=5.0,
        latents=start,
        output_type="latent",
    ).images
    name = {"sd": "SD 1.x (eps)", "sd2": "SD 2.x (v)"}[family]
    parity(f"{name}, {SAMPLERS[sampler][0]}, 10 steps", found, expected)
    if sampler == "ddim":
        shown = pipeline.vae.decode(expected / pipeline.vae.config.scaling_factor).sample
        parity(f"{name}, decoded", stage.pictures(found), shown.detach())


def test_painting_a_diffusers_folder_gives_pictures_that_say_how(folders):
    painter = load(folders("sd"), device="cpu", dtype="float32")
    assert painter.settings["base"].sampler == "dpmpp_2m"
    (picture,) = painter.paint(PROMPT, steps=2)
    assert picture.size == (16, 16)
    assert np.asarray(picture).std() > 0
    assert painter.name in picture.info["bottega"]
