"""What is said of where experts sit agrees with the network itself."""

from dataclasses import replace

import pytest
import torch
from tiny_networks import tiny

from bottega.models import PLANS, UNet, count_parameters
from bottega.models.expert_places import (
    GATES,
    SPACE_EXPERTS,
    TIME_EXPERTS,
    expert_census,
)
from bottega.models.moe_config import SpaceMoEConfig, TimeMoEConfig
from bottega.models.raphael_plans import raphael_arms
from bottega.models.unet_config import ExpertTransformer, PlainFeedForward

SMALL = ExpertTransformer(
    head_width=16,
    depth=2,
    space=SpaceMoEConfig(experts=3, ratio=1.0, gate_width=8),
    time=TimeMoEConfig(experts=2, ratio=1.0, gate_width=8),
    feed_forward=PlainFeedForward(ratio=1.0),
)


@pytest.mark.parametrize("name", ["raphael", "piccolo_raphael"])
def test_raphael_has_sixteen_blocks_of_six_and_four_experts(name: str):
    census = expert_census(PLANS[name]())
    assert census is not None
    assert census.blocks == 16
    for place in census.places:
        assert place.space[0] == 6
        assert place.time[0] == 4
    assert sum(place.down for place in census.places) in (6, 8)


def test_the_full_size_blocks_sit_where_stable_diffusion_s_do():
    census = expert_census(PLANS["raphael"]())
    assert census is not None
    ways = [(place.divisor, place.down, place.middle, place.up) for place in census.places]
    assert ways == [(1, 2, 0, 3), (2, 2, 0, 3), (4, 2, 0, 3), (8, 0, 1, 0)]


def test_shares_are_those_of_the_modules_and_leave_nothing_out():
    config = tiny(SMALL)
    network = UNet(config)
    census = expert_census(config)
    assert census is not None
    assert census.parameters == count_parameters(config)

    def named(part: str) -> int:
        return sum(p.numel() for name, p in network.named_parameters() if part in name)

    assert census.shares[SPACE_EXPERTS] == named(".space.experts.")
    assert census.shares[TIME_EXPERTS] == named(".time.experts.")
    assert census.shares[GATES] == named(".gate.")
    assert census.shares["self-attention"] == named(".self_mix.")
    assert census.shares["cross-attention"] == named(".cross_mix.")
    assert census.shares["feed-forwards"] == named(".feed.")


def test_idle_time_experts_are_all_but_one_a_block():
    census = expert_census(tiny(SMALL))
    assert census is not None
    assert census.idle_time == census.shares[TIME_EXPERTS] // 2
    without = expert_census(tiny(replace(SMALL, time=None)))
    assert without is not None
    assert without.idle_time == 0


def test_a_network_without_experts_has_no_census():
    assert expert_census(PLANS["piccolo_base"]()) is None


def test_counting_costs_no_memory():
    census = expert_census(PLANS["raphael"]())
    assert census is not None
    assert census.parameters > 2.9e9
    with torch.device("meta"):
        assert next(UNet(PLANS["raphael"]()).parameters()).is_meta


def test_the_arms_differ_in_their_experts_alone():
    arms = raphael_arms(active=3.0)
    kinds = {name: expert_census(plan) for name, plan in arms.items()}
    assert kinds["dense"] is None
    has = {
        name: (SPACE_EXPERTS in census.shares, TIME_EXPERTS in census.shares)
        for name, census in kinds.items()
        if census is not None
    }
    assert has == {"both": (True, True), "time": (False, True), "space": (True, False)}
    assert arms["both"] == PLANS["piccolo_raphael_pixels"]()
    dense, both = arms["dense"].levels[1].attention, arms["both"].levels[1].attention
    assert isinstance(dense, ExpertTransformer)
    assert isinstance(both, ExpertTransformer)
    assert dense.feed_forward is not None
    assert both.time is not None
    assert dense.feed_forward.ratio == 4 * both.time.ratio
