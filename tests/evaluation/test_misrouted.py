"""Other experts cost what they say other than the chosen ones, and nothing where experts are alike."""

import copy

import pytest
import torch
from routed_model import routed_folder, routed_painter

from bottega.diffusion import Denoiser
from bottega.errors import InputError
from bottega.evaluation.probes import misroute
from bottega.evaluation.probes.experts import _Detour
from bottega.evaluation.route_atlas import routed_stage
from bottega.evaluation.routes import network_of, routed

__all__ = ["routed_folder", "routed_painter"]


@pytest.fixture
def denoiser(routed_painter) -> Denoiser:
    """A copy that a test may change."""
    return copy.deepcopy(routed(routed_stage(routed_painter).denoiser))


@pytest.fixture
def asked(routed_painter):
    clean = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return clean, routed_painter.encoders.condition(["a red car", "a dog", "two apples"])


def make_alike(experts) -> None:
    for expert in experts:
        expert.load_state_dict(experts[0].state_dict())


def test_alike_experts_may_be_exchanged_and_others_may_not(denoiser, asked):
    first, second = network_of(denoiser).expert_blocks
    make_alike(first.space.experts)
    make_alike(second.time.experts)
    found = {(one.kind, one.block): one for one in misroute(denoiser, *asked, [0.3, 3.0])}
    alike = {("space", 0), ("time", 1)}
    assert set(found) == alike | {("space", 1), ("time", 0), ("space", None), ("time", None)}
    for place, one in found.items():
        assert (abs(one.growth) < 1e-6) == (place in alike)
        assert one.likely.low <= one.growth <= one.likely.high


def test_all_blocks_at_once_may_be_asked_of_alone(denoiser, asked):
    alone = misroute(denoiser, *asked, [1.0], block_by_block=False)
    assert [one.kind for one in alone] == ["space", "time"]
    assert alone == [one for one in misroute(denoiser, *asked, [1.0]) if one.block is None]


def test_the_same_seed_finds_the_same(denoiser, asked):
    assert misroute(denoiser, *asked, [1.0]) == misroute(denoiser, *asked, [1.0])
    assert misroute(denoiser, *asked, [1.0]) != misroute(denoiser, *asked, [1.0], seed=1)


def test_on_a_detour_nothing_goes_where_it_was_meant_to_and_all_weighs_the_same(denoiser, asked):
    network, draw = network_of(denoiser), torch.Generator().manual_seed(0)
    with torch.no_grad():
        context = network.prepare(asked[1])
        times = network.time_routes(torch.tensor([-0.5, 0.0, 0.5]))
    led = _Detour("space", (1,), draw).of_words(context)
    assert led.routes[0] is context.routes[0]
    before, after = context.routes[1], led.routes[1]
    assert bool((before.expert != after.expert).all())
    assert torch.equal(before.weights.sum(dim=-1), after.weights.sum(dim=-1))
    assert set(after.used) == set(after.expert[after.real].tolist())
    late = _Detour("time", (0,), draw).of_noise(times)
    assert late[1] is times[1] and bool((late[0].expert != times[0].expert).all())


def test_what_has_no_choice_or_no_noise_is_refused(denoiser, asked):
    with pytest.raises(InputError, match="above 0"):
        misroute(denoiser, *asked, [0.0])
    for block in network_of(denoiser).expert_blocks:
        block.space = block.time = None
    with pytest.raises(InputError, match="experts to choose between"):
        misroute(denoiser, *asked, [1.0])
