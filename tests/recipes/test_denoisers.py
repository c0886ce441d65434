"""What a denoiser's task comes to: in which form it learns, and how it is sampled then."""

import dataclasses

import pytest
import torch
from tiny_latents import EPS
from torch import nn

from bottega.cli.main import run as run_command
from bottega.diffusion import Denoiser, EDMPrecond, Static, TimestepDenoiser
from bottega.models.autoencoder import AutoencoderConfig, build_autoencoder
from bottega.pipelines import StageSettings
from bottega.recipes import latents, recipe
from bottega.recipes.denoisers import denoiser_objective, denoiser_of, settings_for
from bottega.recipes.run import DenoiserTask
from bottega.training.denoiser_objective import DenoiserObjective
from bottega.training.timestep_objective import TimestepObjective

PIXELS = StageSettings(steps=7, sigma_min=0.02, sigma_max=40.0, thresholding=Static())


def task(name: str = "lab-latent", **changes) -> DenoiserTask:
    found = recipe(name).task
    assert isinstance(found, DenoiserTask)
    return dataclasses.replace(found, **changes)


def test_pixels_in_edms_form_are_sampled_as_they_are():
    assert settings_for(task("lab"), PIXELS) == PIXELS


def test_latents_are_sampled_without_bounds_and_from_noise_that_drowns_them():
    settings = settings_for(task(), PIXELS)
    assert settings.thresholding is None
    assert (settings.sigma_min, settings.sigma_max) == (0.04, 80.0)
    assert (settings.steps, settings.sampler) == (7, PIXELS.sampler)
    narrow = task(precond=EDMPrecond(sigma_data=0.25))
    assert settings_for(narrow, PIXELS).sigma_max == 20.0


def test_timesteps_are_walked_by_ddim_from_the_last():
    settings = settings_for(task("lab", timestep_plan=EPS), PIXELS)
    assert (settings.sampler, settings.grid, settings.steps) == ("ddim", "trailing", 7)
    assert settings.sigma_max == pytest.approx(14.6146, rel=1e-4)  # Stable Diffusion's own
    assert settings.thresholding == Static()


def test_the_form_of_the_loss_is_the_form_of_the_denoiser():
    edm, eps = task("lab"), task("lab", timestep_plan=EPS)
    assert isinstance(denoiser_objective(edm, None), DenoiserObjective)
    assert isinstance(denoiser_objective(eps, None), TimestepObjective)
    network = nn.Identity()
    assert isinstance(denoiser_of(edm, network), Denoiser)
    assert isinstance(denoiser_of(eps, network), TimestepDenoiser)


@pytest.mark.parametrize("plan", [None, EPS])
def test_what_is_only_there_to_learn_from_can_be_left_out(plan):
    given = task("lab", timestep_plan=plan)
    learning, asked = (
        denoiser_objective(given, None),
        denoiser_objective(given, None, dropout=False),
    )
    name = "dropout" if plan is None else "condition_dropout"
    assert getattr(learning, name) is not None and getattr(asked, name) is None


def test_a_network_sees_latents_where_there_are_some():
    assert (recipe("lab-latent").network_size, recipe("lab").network_size) == (16, 32)


def test_show_says_in_whose_latents_a_recipe_learns(capsys):
    assert run_command(["show", "lab-latent"]) == 0
    said = capsys.readouterr().out
    assert "in the latents of  runs/piccolo-autoencoder" in said and "at 16 x 16" in said


def test_a_missing_autoencoder_is_one_line_and_nothing_is_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = run_command(["train", "lab-latent"])
    said = capsys.readouterr()
    assert code == 2 and said.err.count("\n") == 1
    assert "task.latents.autoencoder" in said.err and "train piccolo-autoencoder" in said.err
    assert not list(tmp_path.rglob("config.json"))


def test_encoding_says_how_far_it_is_when_it_takes_long(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 31.0, 31.0, 40.0])
    monkeypatch.setattr(latents.time, "perf_counter", lambda: next(clock))
    say = latents._Encoding()
    for done in (256, 512, 768):
        say(done, 50_000)
    assert capsys.readouterr().err == "encoding 512/50,000 pictures\n"


def test_the_default_autoencoder_has_the_shapes_that_it_says():
    config = AutoencoderConfig()
    with torch.device("meta"):
        module = build_autoencoder(config, 64)
        pictures = torch.zeros(2, 3, 64, 64)
        latent = module.encode(pictures).mean
    assert latent.shape == (2, config.latent_channels, 16, 16) and config.factor == 4
