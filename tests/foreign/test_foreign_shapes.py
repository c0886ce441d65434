"""Pictures that are no squares are those of diffusers' pipelines at the same height and width."""

import pytest
import torch
from foreign_models import SD_BETAS

from bottega.errors import InputError
from bottega.pipelines import Canvas, load
from bottega.seeding import ImageNoise

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' own

PROMPT = "a red dog on the left"


def ours(painter, canvas: Canvas, guidance: float):
    """Latents after four steps, and the unit noise that they began with."""
    stage = painter.stages[0].at(canvas)
    settings = painter.resolve(
        None,
        {"steps": 4, "sampler": "ddim", "grid": "leading", "guidance_scale": guidance},
    )["base"]
    cond, uncond = (painter.encoders.condition([text]) for text in (PROMPT, ""))
    found = list(stage.paint(cond, uncond, [0], settings))[-1].x
    return found, ImageNoise([0], purpose=stage.name, shape=stage.shape)()


def with_ddim(pipeline):
    from diffusers import DDIMScheduler

    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler(
        **SD_BETAS,
        prediction_type=pipeline.scheduler.config.prediction_type,
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=True,
    )
    return pipeline


@pytest.mark.parametrize(
    ("family", "name"), [("sd", "StableDiffusionPipeline"), ("sdxl", "StableDiffusionXLPipeline")]
)
def test_latents_of_a_wide_picture_are_those_of_the_pipeline(folders, family: str, name: str):
    import diffusers

    folder = folders(family)
    painter = load(folder, device="cpu", dtype="float32")
    canvas = Canvas(height=16, width=24)
    found, noise = ours(painter, canvas, 5.0)
    more = {"safety_checker": None} if family == "sd" else {"add_watermarker": False}
    pipeline = with_ddim(getattr(diffusers, name).from_pretrained(folder, **more))
    expected = pipeline(
        PROMPT,
        height=canvas.height,
        width=canvas.width,
        num_inference_steps=4,
        guidance_scale=5.0,
        latents=noise,
        output_type="latent",
    ).images
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


def test_an_imported_model_paints_its_multiples_and_names_them(folders):
    painter = load(folders("sd"), device="cpu", dtype="float32")
    unit = painter.stages[0].multiple
    (picture,) = painter.paint(PROMPT, steps=2, size=(unit, 2 * unit))
    assert picture.size == (2 * unit, unit)
    with pytest.raises(InputError, match=f"multiples of {unit} px"):
        painter.paint(PROMPT, steps=2, size=(unit + 1, unit))


def test_a_network_that_is_told_sizes_paints_otherwise_when_they_are_others(folders):
    painter = load(folders("sdxl"), device="cpu", dtype="float32")
    stage = painter.stages[0]
    canvas = Canvas(height=stage.multiple, width=2 * stage.multiple)
    there = stage.at(canvas)
    assert there.numbers[:2] == there.numbers[4:] == (canvas.height, canvas.width)
    cond = painter.encoders.condition([PROMPT])
    settings = painter.resolve(None, {"steps": 1, "guidance_scale": 1.0})["base"]
    told, square = (
        list(one.paint(cond, cond.null(), [0], settings))[-1].x
        for one in (there, _with(there, stage.numbers))
    )
    assert not torch.equal(told, square)


def _with(stage, numbers):
    from dataclasses import replace

    return replace(stage, numbers=numbers)
