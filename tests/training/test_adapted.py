"""Networks that stay as they are, called as one, with what learns beside them."""

import pytest
import torch
from tiny_networks import awake, some_condition, some_noise, tiny

from bottega.errors import ConfigError
from bottega.models import ControlNet, ControlNetConfig
from bottega.models.lora import LoraPlan
from bottega.training.adapted import WithControlNet, WithLora

PLAN = LoraPlan(rank=2)


def test_a_network_may_work_at_both_ends_of_the_noise():
    outer, inner = awake(tiny(), seed=0), awake(tiny(), seed=1)
    both = WithLora([outer, inner, outer], [-0.5, 0.5], PLAN).eval()
    x, _ = some_noise(batch=4)
    c_noise = torch.tensor([0.9, 0.0, -0.9, -0.5])
    condition = some_condition(batch=4)
    with torch.no_grad():
        together = both(x, c_noise, both.prepare(condition))
        for row, owner in enumerate((outer, inner, outer, inner)):
            context = owner.prepare(condition).select([row])
            alone = owner(x[row : row + 1], c_noise[row : row + 1], context)
            torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-4)


def test_all_networks_share_the_matrices_and_each_adds_to_their_gradient():
    networks = [awake(tiny(), seed=seed) for seed in (0, 1)]
    both = WithLora(networks, [0.0], PLAN)
    x, _ = some_noise(batch=2)
    condition = some_condition(batch=2)

    def slopes(c_noise: list[float]) -> dict[str, torch.Tensor]:
        both.zero_grad()
        levels = torch.tensor(c_noise)
        both(x, levels, both.prepare(condition)).square().sum().backward()
        return {n: p.grad.clone() for n, p in both.named_parameters() if p.grad is not None}

    mixed = slopes([-1.0, 1.0])
    assert mixed
    assert all(name.startswith("lora.") for name in mixed)
    low, high = slopes([-1.0, -1.0]), slopes([1.0, 1.0])
    assert any(not torch.equal(low[name], high[name]) for name in mixed)


def test_what_does_not_learn_moves_along_but_is_not_part_of_the_module():
    network = awake(tiny())
    beside = WithLora([network], [], PLAN)
    assert all(name.startswith("lora.") for name in beside.state_dict())
    beside.to(torch.bfloat16)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    beside.train()
    assert network.training
    beside.eval()
    assert not network.training
    assert beside.config == network.config


def test_a_lora_comes_out_by_the_names_that_peft_writes():
    beside = WithLora([awake(tiny())], [], PLAN)
    matrices = WithLora.matrices(beside.state_dict().items())
    assert len(matrices) == len(beside.state_dict())
    for name in matrices:
        assert name.startswith("base_model.model.")
        assert name.endswith((".lora_A.weight", ".lora_B.weight"))


def test_a_controlnet_comes_out_as_it_went_in():
    network = awake(tiny())
    control = ControlNet(ControlNetConfig(network=tiny())).copy_from(network)
    beside = WithControlNet([network], [], control)
    weights = WithControlNet.weights(beside.state_dict().items())
    assert weights.keys() == control.state_dict().keys()


def test_networks_and_bounds_must_match_in_number():
    with pytest.raises(ConfigError, match="2 networks need 1 bounds between them, got 0"):
        WithLora([awake(tiny()), awake(tiny())], [], PLAN)
