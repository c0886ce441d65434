"""A tiny model whose network has experts, with gates that have made up their minds."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_network, tiny_unet, write_tiny_model

from bottega.models.moe_config import SpaceMoEConfig, TimeMoEConfig
from bottega.models.unet_config import ExpertTransformer, Middle
from bottega.pipelines import (
    DenoiserConfig,
    Painter,
    StageEntry,
    StageSettings,
    assemble,
    load,
    save_denoiser,
)

EXPERTS = ExpertTransformer(
    depth=2,
    head_width=16,
    time=TimeMoEConfig(experts=3, ratio=1.0, gate_width=8),
    space=SpaceMoEConfig(experts=4, ratio=1.0, gate_width=8),
)


def write_routed_model(folder: Path, plan: ExpertTransformer = EXPERTS) -> Path:
    """Write a model that paints 8 px with experts in its middle, and one more stage that enlarges without any."""
    write_tiny_model(folder)
    network = replace(tiny_network(), middle=Middle(attention=plan))
    unet = tiny_unet(network, seed=3)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if ".gate." in name:
                parameter.mul_(12)
    save_denoiser(folder / "routed", unet.state_dict(), DenoiserConfig(network=network))
    settings = StageSettings(steps=3)
    assemble(
        folder,
        name="routed",
        stages=[
            StageEntry(name="base", folder="routed", size=8, settings=settings),
            StageEntry(
                name="sr16",
                folder="sr16",
                size=16,
                low_res_from="base",
                settings=replace(settings, steps=2, low_res_sigma=0.1),
            ),
        ],
        encoders={"t5": "t5", "clip": "clip"},
    )
    return folder


@pytest.fixture(scope="session")
def routed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model on disk, to be read only."""
    return write_routed_model(tmp_path_factory.mktemp("routed"))


@pytest.fixture(scope="session")
def routed_painter(routed_folder: Path) -> Painter:
    """The model, opened."""
    return load(str(routed_folder), device="cpu", dtype="float32")
