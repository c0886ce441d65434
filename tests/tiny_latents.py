"""An autoencoder of a few thousand random weights, and toy runs of denoisers in its latents."""

import dataclasses
from pathlib import Path

import pytest
import torch
from toy_runs import toy_base

from bottega.diffusion import EDMPrecond, TimestepPlan
from bottega.models.autoencoder import AutoencoderConfig, build_autoencoder
from bottega.pipelines.latent import write_autoencoder
from bottega.recipes import RunConfig
from bottega.recipes.run import DenoiserTask, LatentSpace

TINY = AutoencoderConfig(widths=(8, 16), norm_groups=2)
SIDE = 16
"""Pixels of the toys' pictures; their latents have 8 positions along each side."""

EPS = TimestepPlan(betas="scaled_linear", beta_start=0.00085, beta_end=0.012)
"""How Stable Diffusion was trained, and by our reading RAPHAEL."""


def write_tiny_autoencoder(folder: Path, config: AutoencoderConfig = TINY, seed: int = 0) -> Path:
    """Write one that has learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_autoencoder(config, SIDE)
    write_autoencoder(
        folder,
        config.settings(SIDE),
        module.state_dict(),
        scale=1.5,
        shift=0.1,
        dtype=torch.float32,
    )
    return folder


@pytest.fixture(scope="session")
def tiny_autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny autoencoder that shrinks by two."""
    return write_tiny_autoencoder(tmp_path_factory.mktemp("latent") / "autoencoder")


def toy_latent(
    encoders: Path, autoencoder: Path, *, plan: TimestepPlan | None = None, cached: bool = False
) -> RunConfig:
    """A base in latents, in EDM's form or at timesteps."""
    config = toy_base(encoders)
    assert isinstance(config.task, DenoiserTask)
    network = dataclasses.replace(config.task.network, in_channels=4, out_channels=4)
    task = dataclasses.replace(
        config.task,
        network=network,
        precond=EDMPrecond(sigma_data=1.0),
        latents=LatentSpace(autoencoder=str(autoencoder), factor=2, cached=cached),
        timestep_plan=plan,
    )
    return dataclasses.replace(config, name="toy-latent", size=SIDE, task=task)


__all__ = ["EPS", "SIDE", "TINY", "tiny_autoencoder", "toy_latent", "write_tiny_autoencoder"]
