import json

import pytest
import torch

from bottega.config import dumps, from_json
from bottega.errors import ConfigError
from bottega.models import PAPER_FIGURES, PLANS, UNet, UNetConfig, count_parameters, describe
from bottega.models.unet_config import ConvResample

RANGES = {
    "piccolo_base": (4e6, 7e6),
    "piccolo_sr": (2.5e6, 3.5e6),
    "adm64": (293.5e6, 298.5e6),
    "sd15": (859e6, 860.5e6),
    "imagen_base64": (2.2e9, 2.44e9),
    "imagen_sr256": (0.62e9, 0.67e9),
    "imagen_sr256_listed": (0.45e9, 0.50e9),
    "imagen_sr1024": (0.45e9, 0.50e9),
    "ediffi_base64": (0.70e9, 0.83e9),
    "ediffi_sr256": (0.42e9, 0.49e9),
    "ediffi_sr1024": (0.18e9, 0.22e9),
    "raphael": (2.9e9, 3.1e9),
    "piccolo_raphael": (10e6, 11.5e6),
    "piccolo_raphael_pixels": (10e6, 11.5e6),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_survives_json(name):
    plan = PLANS[name]()
    assert from_json(UNetConfig, json.loads(dumps(plan))) == plan


@pytest.mark.parametrize("name", RANGES)
def test_a_network_is_as_large_as_it_should_be(name):
    low, high = RANGES[name]
    assert low < count_parameters(PLANS[name]()) < high


@pytest.mark.parametrize("name", PAPER_FIGURES)
def test_a_published_size_is_met_within_what_its_note_allows(name):
    figure = PAPER_FIGURES[name]
    assert abs(figure.difference(count_parameters(PLANS[name]()))) <= figure.tolerance


@pytest.mark.parametrize("name", ["imagen_sr1024", "ediffi_sr1024"])
def test_networks_for_1024_px_run_at_any_size(name):
    with torch.device("meta"):
        network = UNet(PLANS[name]())
    for size in (256, 1024):
        description = describe(PLANS[name](), size)
        assert not description.has_self_attention
        assert description.parameters == sum(p.numel() for p in network.parameters())
    # Without self-attention the work grows as the area does.
    assert description.macs == pytest.approx(16 * describe(PLANS[name](), 256).macs, rel=0.01)


def test_multiplications_are_those_of_the_layers():
    config = PLANS["adm64"]()
    small, large = describe(config, 32), describe(config, 64)
    assert large.macs > 4 * small.macs  # convolutions by area, self-attention by its square
    assert large.macs == pytest.approx(109.7e9, rel=0.01)
    assert large.prepare_macs == 0
    assert large.training_flops == 6 * large.macs
    assert large.weight_bytes == 2 * large.parameters


def test_piccolo_fits_a_laptop():
    description = describe(PLANS["piccolo_base"](), 32, tokens={"t5": 32, "clip_text": 32})
    assert description.macs < 0.3e9
    assert description.activation_bytes < 8 * 2**20
    assert [level.size for level in description.levels] == [16, 8, 4]
    assert sum(level.parameters for level in description.levels) < description.parameters


def test_a_size_the_levels_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match="size must be a positive multiple of 8, got 30"):
        describe(PLANS["piccolo_base"](), 30)
    enlarging = PLANS["piccolo_sr"]()  # four pixels folded and three levels: 16; enlarged by 4
    assert describe(enlarging, 16).size == 16
    with pytest.raises(ConfigError, match="size must be a positive multiple of 16, got 24"):
        describe(enlarging, 24)


def test_plans_are_named_as_they_are_called():
    assert all(plan.__name__ == name for name, plan in PLANS.items())


def test_a_setting_of_a_plan_is_refused_by_name():
    data = json.loads(dumps(PLANS["piccolo_base"]()))
    data["levels"][1]["widht"] = 3
    with pytest.raises(ConfigError, match=r"levels\[1\].widht .*did you mean width"):
        from_json(UNetConfig, data)
    data = json.loads(dumps(ConvResample()))
    assert from_json(ConvResample, data) == ConvResample()
