"""The atlas says what the network does: the same experts, the same masks, the same choice of noise."""

import json
from dataclasses import replace

import pytest
import torch
from routed_model import EXPERTS, routed_folder, routed_painter
from tiny_model import tiny_network

from bottega.config import to_json
from bottega.diffusion import Denoiser, TimestepPlan
from bottega.ensemble import Mixture
from bottega.ensemble.mixture import Expert
from bottega.ensemble.tree import parse_part
from bottega.errors import ConfigError, InputError
from bottega.evaluation.route_atlas import atlas, routed_stage, some_of, words_in
from bottega.evaluation.route_page import colour_of, heat_of, routes_page
from bottega.evaluation.routes import (
    Reach,
    blocks_of,
    network_of,
    routed,
    time_choices,
)
from bottega.models import UNet
from bottega.models.unet_config import Middle

__all__ = ["routed_folder", "routed_painter"]

PROMPT = "a red car on a blue background"


@pytest.fixture(scope="module")
def traced(routed_painter):
    settings = routed_painter.settings["base"]
    return atlas(routed_painter, PROMPT, settings, seed=5, looks=(0.3, 3.0))


@pytest.fixture(scope="module")
def denoiser(routed_painter):
    return routed(routed_stage(routed_painter).denoiser)


def context_of(painter, denoiser, prompt=PROMPT):
    with torch.no_grad():
        return network_of(denoiser).prepare(painter.encoders.condition([prompt]))


def test_every_token_has_the_experts_that_the_network_sends_it_to(traced, routed_painter, denoiser):
    context = context_of(routed_painter, denoiser)
    space = [route for route in context.routes if route is not None]
    assert len(traced.routes.space_blocks) == len(space) == 2
    for token in traced.routes.tokens:
        assert token.experts == tuple(int(route.expert[0, token.key]) for route in space)
        assert all(0.25 <= p <= 1 for p in token.probabilities)  # the likeliest of four
    assert len({token.experts for token in traced.routes.tokens}) > 1


def test_real_tokens_are_listed_once_and_in_order(traced, routed_painter, denoiser):
    context = context_of(routed_painter, denoiser)
    keys = [token.key for token in traced.routes.tokens]
    assert keys == context.mask[0, 0, 0].nonzero()[:, 0].tolist()
    assert traced.routes.tokens[0].text == "(null)"
    ends = [token.stream for token in traced.routes.tokens if token.text == "(end)"]
    assert ends == ["t5", "clip_text"]


def test_tokens_know_their_words(traced):
    assert traced.routes.words == ("a", "red", "car", "on", "a", "blue", "background")
    for stream in ("t5", "clip_text"):
        own = [token for token in traced.routes.tokens if token.stream == stream]
        for number, word in enumerate(traced.routes.words):
            spelled = "".join(token.text for token in own if token.word == number)
            assert spelled == word


def test_a_word_acts_where_the_networks_own_mask_says(traced, routed_painter, denoiser):
    """Maps taken from the network by its other door, and the cover of the space-MoE itself."""
    network, context = network_of(denoiser), context_of(routed_painter, denoiser)
    stage = routed_stage(routed_painter)
    x = None
    condition = routed_painter.encoders.condition([PROMPT])
    for step in stage.paint(condition, condition.null(), [5], routed_painter.settings["base"]):
        x = step.x
    from bottega.seeding import generator

    eps = torch.randn(x.shape, generator=generator(5, "probe", "routes"))
    sigma = torch.tensor([3.0])
    scale = denoiser.precond(sigma)
    maps = []
    with torch.no_grad():
        network((x + 3.0 * eps) * scale.input, scale.noise, context, maps=maps)
    by_layer = {seen.layer: seen for seen in maps}
    for place, block in enumerate(network.expert_blocks):
        looked = by_layer[block.cross_mix.layer].weights.mean(dim=1)
        own = {r.key: r for r in traced.routes.reaches if (r.sigma, r.block) == (3.0, place)}
        for key, reach in own.items():
            mask = looked[0, :, key] >= 0.2 * looked[0, :, key].max()
            assert torch.equal(reach.cells().flatten(), mask)
            assert reach.share == pytest.approx(mask.float().mean().item())
        route = context.routes[place]
        cover = block.space.cover(looked, route)[0]
        real = context.mask[0, 0, 0]
        for expert in range(4):
            sent = (route.expert[0] == expert) & real
            acts = torch.zeros(len(cover), dtype=torch.bool)
            for key in sent.nonzero()[:, 0].tolist():
                acts |= own[key].cells().flatten()
            assert bool((cover[acts, expert] > 0).all())


def test_noise_takes_the_expert_that_the_network_takes(routed_painter, denoiser, traced):
    network = network_of(denoiser)
    sigmas = [choice.sigma for choice in traced.routes.times]
    assert sigmas == [
        s for s in routed_stage(routed_painter).sigmas(routed_painter.settings["base"]) if s > 0
    ]
    for choice in traced.routes.times:
        routes = network.time_routes(torch.tensor([choice.sigma]).log() / 4)
        assert choice.experts == tuple(int(route.expert[0]) for route in routes)
    many = time_choices(denoiser, [0.01, 0.1, 1.0, 10.0])
    assert [choice.sigma for choice in many] == [0.01, 0.1, 1.0, 10.0]


def test_a_network_of_timesteps_is_asked_at_its_own_timesteps(denoiser):
    plan = TimestepPlan(betas="scaled_linear", beta_start=0.00085, beta_end=0.012)
    timed = plan.denoiser(network_of(denoiser))
    (found,) = time_choices(timed, [1.5])
    routes = network_of(denoiser).time_routes(plan.schedule.timestep(torch.tensor([1.5])))
    assert found.experts == tuple(int(route.expert[0]) for route in routes)


def test_routes_become_json_as_they_stand(traced):
    facts = json.loads(json.dumps(to_json(traced.routes), allow_nan=False))
    assert facts["words"][2] == "car"
    assert facts["tokens"][1]["experts"] == list(traced.routes.tokens[1].experts)
    assert set(facts["reaches"][0]["rows"][0]) <= {"0", "1"}
    assert [block["space_experts"] for block in facts["blocks"]] == [4, 4]


def test_painting_the_same_prompt_again_gives_the_same_atlas(traced, routed_painter):
    settings = routed_painter.settings["base"]
    again = atlas(routed_painter, PROMPT, settings, seed=5, looks=(0.3, 3.0))
    assert again.routes == traced.routes
    assert again.picture.tobytes() == traced.picture.tobytes()


def test_heat_is_the_share_of_blocks_in_which_any_token_of_a_word_acts(traced):
    keys = [token.key for token in traced.routes.tokens if token.word == 2]
    heat = heat_of(traced.routes, keys, 3.0, 8, 8)
    expected = torch.zeros(8, 8)
    for block in (0, 1):
        own = [
            reach.cells()
            for reach in traced.routes.reaches
            if reach.sigma == 3.0 and reach.block == block and reach.key in keys
        ]
        acts = torch.stack(own).any(dim=0)
        times = 8 // acts.shape[0]
        expected += acts.float().repeat_interleave(times, 0).repeat_interleave(times, 1) / 2
    assert torch.allclose(heat, expected)
    with pytest.raises(InputError, match="nobody looked"):
        heat_of(traced.routes, keys, 99.0, 8, 8)


def test_the_page_shows_every_token_in_the_colour_of_its_expert(traced):
    page = routes_page(traced.routes, traced.picture)
    shown = {
        page.getpixel((x, y)) for x in range(0, page.width, 3) for y in range(0, page.height, 3)
    }
    wanted = {expert for token in traced.routes.tokens for expert in token.experts}
    wanted |= {expert for choice in traced.routes.times for expert in choice.experts}
    for expert in wanted:
        colour = colour_of(expert)
        assert tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) in shown


def test_a_page_without_time_experts_has_no_times_and_one_of_nothing_is_refused(traced):
    silent = replace(traced.routes, times=())
    assert (
        routes_page(silent, traced.picture).height
        < routes_page(traced.routes, traced.picture).height
    )
    nothing = replace(silent, blocks=(), tokens=(), reaches=())
    with pytest.raises(InputError, match="nothing to draw"):
        routes_page(nothing, traced.picture)


def test_blocks_without_one_kind_of_expert_are_counted_so():
    network = UNet(replace(tiny_network(), middle=Middle(attention=replace(EXPERTS, space=None))))
    assert [(b.space_experts, b.time_experts) for b in blocks_of(network)] == [(0, 3), (0, 3)]
    dense = UNet(replace(tiny_network(), middle=Middle(attention=replace(EXPERTS, time=None))))
    assert time_choices(Denoiser(dense), [1.0]) == ()
    assert [(b.space_experts, b.time_experts) for b in blocks_of(dense)] == [(4, 0), (4, 0)]


def test_a_reach_is_read_back_from_its_rows():
    reach = Reach(sigma=1.0, block=0, key=3, share=0.5, rows=("01", "10"))
    assert reach.cells().tolist() == [[False, True], [True, False]]


def test_words_and_looks_are_chosen_plainly():
    assert words_in("a cat's top-hat, red") == ((0, 1), (2, 7), (8, 15), (17, 20))
    assert some_of([80.0, 40.0, 20.0, 10.0, 5.0, 1.0, 0.1]) == [80.0, 20.0, 5.0, 0.1]
    assert some_of([2.0]) == [2.0]


def test_what_has_no_routes_is_refused(routed_painter, denoiser):
    plain = Denoiser(UNet(tiny_network()))
    with pytest.raises(InputError, match="no experts inside"):
        routed(plain)
    parts = [Expert(name=p, part=parse_part(p), denoiser=denoiser) for p in ("1/0", "1/1")]
    from bottega.diffusion import LogNormal

    with pytest.raises(InputError, match="several expert denoisers"):
        routed(Mixture(parts, LogNormal()))
    with pytest.raises(InputError, match="sr16 enlarges"):
        routed_stage(routed_painter, "sr16")
    with pytest.raises(ConfigError, match="no stage 'bse'"):
        routed_stage(routed_painter, "bse")
    with pytest.raises(InputError, match="has none"):
        atlas(routed_painter, " ... ", routed_painter.settings["base"])
    with pytest.raises(InputError, match="above 0"):
        time_choices(denoiser, [0.0])
    with pytest.raises(InputError, match="noise above 0"):
        atlas(routed_painter, PROMPT, routed_painter.settings["base"], looks=(0.0,))
