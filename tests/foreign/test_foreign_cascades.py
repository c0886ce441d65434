"""SDXL, its refiner and DeepFloyd IF's cascade paint here what their pipelines paint from the same noise and texts."""

from dataclasses import replace

import pytest
import torch
from foreign_models import SD_BETAS, if_scheduler

from bottega.condition import Condition
from bottega.pipelines import load
from bottega.pipelines.convert import import_model
from bottega.seeding import ImageNoise

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' own

PROMPT = "a red dog on the left"


def final(walk):
    return list(walk)[-1].x


def told(painter, text):
    return painter.encoders.condition([text])


def noise_for(stage, purpose="", shape=None):
    return ImageNoise([0], purpose=stage.name + purpose, shape=shape or stage.shape)


def test_sdxl_is_told_sizes_and_hears_two_encoders_as_in_its_pipeline(folders, parity):
    from diffusers import StableDiffusionXLPipeline

    folder = folders("sdxl")
    painter = load(folder, device="cpu", dtype="float32")
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    (stage,) = painter.stages
    settings = painter.resolve(None, {"steps": 10})["base"]
    found = final(stage.paint(told(painter, PROMPT), told(painter, ""), [0], settings))
    expected = pipeline(
        PROMPT,
        height=16,
        width=16,
        num_inference_steps=10,
        latents=noise_for(stage)(),
        output_type="latent",
    ).images
    parity("SDXL base, EulerDiscreteScheduler, 10 steps", found, expected)


def test_the_refiner_paints_from_noise_as_its_network_does_in_diffusers(folders, parity):
    """Its pipeline only changes pictures, so its parts are called in a loop."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline

    folder = folders("refiner")
    painter = load(folder, device="cpu", dtype="float32")
    pipeline = StableDiffusionXLImg2ImgPipeline.from_pretrained(folder)
    (stage,) = painter.stages
    settings = painter.resolve(None, {"steps": 10})["base"]
    found = final(stage.paint(told(painter, PROMPT), told(painter, "a car"), [0], settings))

    tokens, apart, pooled, pooled_apart = pipeline.encode_prompt(PROMPT, negative_prompt="a car")
    numbers = torch.tensor([[16.0, 16, 0, 0, 2.5], [16, 16, 0, 0, 6.0]])
    scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(10)
    z = noise_for(stage)() * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            uncond, cond = pipeline.unet(
                scheduler.scale_model_input(torch.cat([z, z]), t),
                t,
                encoder_hidden_states=torch.cat([apart, tokens]),
                added_cond_kwargs={
                    "text_embeds": torch.cat([pooled_apart, pooled]),
                    "time_ids": numbers,
                },
            ).sample.chunk(2)
            z = scheduler.step(uncond + 5.0 * (cond - uncond), t, z).prev_sample
    parity("SDXL refiner, EulerDiscreteScheduler, 10 steps", found, z)


@pytest.fixture
def fixed_noise(monkeypatch):
    """Draws of theirs from generators of ours, in both places where they draw."""

    def use(scheduler, pipeline=None):
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda shape, **_: scheduler()
        )
        for name in ("pipeline_if", "pipeline_if_superresolution"):
            monkeypatch.setattr(
                f"diffusers.pipelines.deepfloyd_if.{name}.randn_tensor",
                lambda shape, **_: pipeline(),
            )

    return use


@pytest.mark.parametrize(
    ("variance", "sampler"), [("learned_range", "ddpm"), ("fixed_small", "euler_ancestral")]
)
def test_if_paints_its_two_stages_thresholded_and_augmented_as_its_pipelines_do(
    folders, tmp_path, fixed_noise, parity, variance, sampler
):
    """With the variance that its networks learned, and with DDPM's smaller one."""
    from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline

    first, second = folders("if1"), folders("if2")
    import_model(first, tmp_path / "if", then=[second])
    painter = load(tmp_path / "if", device="cpu", dtype="float32")
    base, sr = painter.stages
    assert {chosen.sampler for chosen in painter.settings.values()} == {"ddpm"}
    settings = painter.resolve(None, {"steps": 10, "sampler": sampler})
    assert settings["base"].thresholding.cap == 1.5
    cond, uncond = told(painter, PROMPT), told(painter, "")

    small = final(base.paint(cond, uncond, [0], settings["base"]))
    theirs = IFPipeline.from_pretrained(first, safety_checker=None, watermarker=None)
    theirs.scheduler = if_scheduler(1.5, variance)
    theirs.set_progress_bar_config(disable=True)
    draws = noise_for(base)
    fixed_noise(draws, draws)
    expected = theirs(
        PROMPT, height=16, width=16, num_inference_steps=10, output_type="pt", clean_caption=False
    ).images
    parity(f"IF stage I (cap 1.5), DDPMScheduler {variance}, 10 steps", small, expected)

    large = final(sr.paint(cond, uncond, [0], settings["sr"], low_res=expected.clamp(-1, 1)))
    embeds, apart = theirs.encode_prompt(PROMPT)
    upscaler = IFSuperResolutionPipeline.from_pretrained(
        second, safety_checker=None, watermarker=None
    )
    upscaler.scheduler = if_scheduler(1.0, variance)
    upscaler.set_progress_bar_config(disable=True)
    assert isinstance(upscaler.image_noising_scheduler, DDPMScheduler)
    draws = noise_for(sr)
    extra = noise_for(sr, "/low_res", (3, 32, 32))
    order = iter([draws, extra])
    fixed_noise(draws, lambda: next(order)())
    expected = upscaler(
        image=expected.clamp(-1, 1),
        prompt_embeds=embeds,
        negative_prompt_embeds=apart,
        height=32,
        width=32,
        num_inference_steps=10,
        noise_level=250,
        output_type="pt",
    ).images
    parity(f"IF stage II (augmented), DDPMScheduler {variance}, 10 steps", large, expected)


def test_a_walk_by_the_learned_variance_differs_from_one_without_and_guidance_leaves_it_alone(
    folders,
):
    """Outside the interval of guidance the network is asked once, and what it says of the variance still counts."""
    painter = load(folders("if1"), device="cpu", dtype="float32")
    (stage,) = painter.stages
    cond, uncond = told(painter, PROMPT), told(painter, "")

    def paint(**changes):
        settings = painter.resolve(None, {"steps": 2, **changes})["base"]
        return final(stage.paint(cond, uncond, [0], settings))

    assert not torch.equal(paint(), paint(sampler="euler_ancestral"))
    alone = paint(guidance_interval=(1e-4, 2e-4))
    assert torch.allclose(alone, paint(guidance_scale=1.0), atol=1e-5)


def test_changing_the_words_or_the_small_picture_changes_what_the_second_stage_paints(
    folders, tmp_path
):
    import_model(folders("if1"), tmp_path / "if", then=[folders("if2")])
    painter = load(tmp_path / "if", device="cpu", dtype="float32")
    settings = painter.resolve(None, {"steps": 2})["sr"]
    sr = painter.stages[1]
    dark, light = torch.full((1, 3, 16, 16), -0.5), torch.full((1, 3, 16, 16), 0.5)
    empty = told(painter, "")

    def paint(condition: Condition, low_res, chosen=settings):
        return final(sr.paint(condition, empty, [0], chosen, low_res=low_res))

    usual = paint(told(painter, PROMPT), dark)
    assert not torch.equal(paint(told(painter, PROMPT), light), usual)
    assert not torch.equal(paint(told(painter, "a car"), dark), usual)
    stronger = replace(settings, low_res_sigma=5.0)
    assert not torch.equal(paint(told(painter, PROMPT), dark, stronger), usual)


@pytest.mark.parametrize(
    "sampler", ["deis", "deis_kutta", "dpmpp_2m_sde", "heun", "imagen_ancestral"]
)
def test_every_sampler_and_grid_walks_a_foreign_network(folders, sampler):
    painter = load(folders("sd"), device="cpu", dtype="float32")
    (picture,) = painter.paint(PROMPT, steps=2, sampler=sampler, guidance_interval=(0.5, 5.0))
    assert picture.size == (16, 16)
    schedule = painter.stages[0].timestep_plan.schedule
    betas = SD_BETAS["beta_start"]
    assert schedule.sigma_min == pytest.approx((betas / (1 - betas)) ** 0.5, rel=1e-6)
