"""A ControlNet changes nothing until it has learned, and then steers what it was made for."""

from dataclasses import replace

import pytest
import torch
from tiny_networks import awake, some_condition, some_noise, tiny, tiny_sr

from bottega.condition import Condition
from bottega.errors import ConfigError, InputError
from bottega.models import ControlNet, ControlNetConfig, UNet, UNetConfig
from bottega.models.moe_config import SpaceMoEConfig, TimeMoEConfig
from bottega.models.unet_config import (
    BlockResample,
    ConcatSkips,
    ConvResample,
    ExpertTransformer,
    FusedAttention,
    Transformer,
)

RAPHAEL = ExpertTransformer(
    head_width=16,
    time=TimeMoEConfig(experts=2, ratio=1.0, gate_width=8),
    space=SpaceMoEConfig(experts=3, ratio=1.0, gate_width=8),
)

PLANS = {
    "ours": tiny(),
    "fused": tiny(FusedAttention(head_width=16)),
    "transformer": tiny(Transformer(head_width=16)),
    "raphael": tiny(RAPHAEL),
    "no middle": tiny(middle=None),
    "patches": tiny(patch=2),
    "concatenated": tiny(skips=ConcatSkips()),
    "convolutions": tiny(resample=ConvResample(), skips=ConcatSkips()),
    "blocks": tiny(resample=BlockResample(), skips=ConcatSkips()),
}


def controlnet(plan: UNetConfig, network: UNet, **changes) -> ControlNet:
    torch.manual_seed(5)
    return ControlNet(ControlNetConfig(network=plan, **changes)).copy_from(network).eval()


def wake(net: ControlNet) -> ControlNet:
    """The ControlNet as after some training: no layer is zero."""
    torch.manual_seed(6)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return net


def edges(condition: Condition, size: int = 16, channels: int = 1, seed: int = 3) -> Condition:
    draw = torch.Generator().manual_seed(seed)
    batch = condition.batch_size
    picture = (torch.rand(batch, channels, size, size, generator=draw) > 0.8).float()
    return replace(condition, control=picture)


def steered(network: UNet, net: ControlNet, condition: Condition, scale: float = 1.0):
    x, c_noise = some_noise()
    with torch.no_grad():
        context = network.prepare(condition).with_control(net.control(condition, scale))
        return network(x, c_noise, context)


def alone(network: UNet, condition: Condition):
    x, c_noise = some_noise()
    with torch.no_grad():
        return network(x, c_noise, network.prepare(condition))


@pytest.mark.parametrize("name", PLANS)
def test_an_untrained_controlnet_leaves_every_bit_as_it_is(name: str):
    network = awake(PLANS[name])
    condition = edges(some_condition())
    net = controlnet(PLANS[name], network)
    assert torch.equal(steered(network, net, condition), alone(network, condition))


def test_in_bf16_too():
    network = awake(tiny()).bfloat16()
    condition = edges(some_condition())
    net = controlnet(tiny(), network).bfloat16()
    assert torch.equal(steered(network, net, condition), alone(network, condition))


def test_the_copy_is_the_networks_own_way_down():
    network = awake(tiny())
    net = controlnet(tiny(), network)
    condition = edges(some_condition())
    x, c_noise = some_noise()
    kept: list[torch.Tensor] = []
    network.middle[-1].register_forward_hook(lambda _m, _i, out: kept.append(out))
    with torch.no_grad():
        network(x, c_noise, network.prepare(condition))
        control = net.control(condition)
        deepest, _ = net.tower.descend(x, c_noise, control.context, control.hint)
    assert torch.equal(deepest, kept[0])


def test_a_trained_controlnet_changes_the_picture_with_the_control():
    network = awake(tiny())
    net = wake(controlnet(tiny(), network))
    one, other = (edges(some_condition(), seed=seed) for seed in (3, 4))
    painted = [steered(network, net, condition) for condition in (one, other)]
    assert not torch.allclose(painted[0], alone(network, one), atol=1e-3)
    assert not torch.allclose(painted[0], painted[1], atol=1e-4)


def test_scale_zero_changes_nothing_and_scale_is_how_much():
    network = awake(tiny())
    net = wake(controlnet(tiny(), network))
    condition = edges(some_condition())
    plain = alone(network, condition)
    assert torch.equal(steered(network, net, condition, 0.0), plain)
    little, much = (steered(network, net, condition, scale) for scale in (1e-3, 2e-3))
    ratio = (much - plain).norm() / (little - plain).norm()
    assert ratio == pytest.approx(2, rel=0.02)  # for small scales the answer is linear


def test_two_controls_add_up():
    network = awake(tiny())
    net = wake(controlnet(tiny(), network))
    condition = edges(some_condition())
    x, c_noise = some_noise()
    with torch.no_grad():
        half = net.control(condition, 0.5)
        context = network.prepare(condition).with_control(half).with_control(half)
        twice = network(x, c_noise, context)
    torch.testing.assert_close(twice, steered(network, net, condition), atol=1e-5, rtol=1e-4)


def test_a_picture_of_a_batch_is_steered_as_it_is_alone():
    network = awake(tiny())
    net = wake(controlnet(tiny(), network))
    condition = edges(some_condition())
    x, c_noise = some_noise()
    with torch.no_grad():
        context = network.prepare(condition).with_control(net.control(condition))
        both = network(x, c_noise, context)
        second = network(x[1:], c_noise[1:], context.select([1]))
    torch.testing.assert_close(second[0], both[1], atol=1e-5, rtol=1e-4)


def test_one_control_picture_serves_a_batch():
    network = awake(tiny())
    net = wake(controlnet(tiny(), network))
    condition = some_condition(batch=1)
    x, c_noise = some_noise()
    control = net.control(edges(condition))
    with torch.no_grad():
        context = network.prepare(condition).with_control(control)
        both = network(x, c_noise, context)
        first = network(x[:1], c_noise[:1], context.select([0]))
    torch.testing.assert_close(first[0], both[0], atol=1e-5, rtol=1e-4)


def test_a_control_picture_larger_than_the_latents_is_halved_until_it_fits():
    network = awake(tiny())
    net = wake(controlnet(tiny(), network, scale=4, channels=3))
    condition = edges(some_condition(), size=64, channels=3)
    assert net.control(condition).hint.shape == (2, 16, 16, 16)
    assert steered(network, net, condition).isfinite().all()


def test_a_network_that_enlarges_is_steered_too():
    network = awake(tiny_sr())
    condition = edges(some_condition(low_res=True))
    net = controlnet(tiny_sr(), network)
    assert torch.equal(steered(network, net, condition), alone(network, condition))
    assert not torch.equal(steered(network, wake(net), condition), alone(network, condition))


def test_at_first_only_the_zero_layers_learn_and_then_the_copy_does():
    network = awake(tiny()).requires_grad_(False)
    net = controlnet(tiny(), network).train()
    condition = edges(some_condition())
    x, c_noise = some_noise()

    def slopes() -> set[str]:
        net.zero_grad()
        context = network.prepare(condition).with_control(net.control(condition))
        network(x, c_noise, context).square().mean().backward()
        slopes = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
        return {n.split(".")[0] for n, slope in slopes.items() if slope.abs().sum() > 0}

    assert slopes() == {"zeros", "zero_middle"}
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith("zero"):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    assert slopes() == {"zeros", "zero_middle", "tower", "hint"}
    assert not any(p.grad is not None for p in network.parameters())


def test_a_control_picture_of_another_size_is_refused():
    network = awake(tiny())
    net = controlnet(tiny(), network)
    with pytest.raises(InputError, match=r"is 32 x 32 pixels, what is painted 16 x 16"):
        steered(network, net, edges(some_condition(), size=32))


def test_what_a_controlnet_cannot_read_is_refused():
    network = awake(tiny())
    net = controlnet(tiny(), network)
    with pytest.raises(InputError, match="needs a control picture"):
        net.control(some_condition())
    with pytest.raises(InputError, match="1 channels, got 3"):
        net.control(edges(some_condition(), channels=3))
    with pytest.raises(InputError, match="another plan"):
        controlnet(tiny(time_width=64), network)
    with pytest.raises(ConfigError, match="power of two, got 3"):
        ControlNetConfig(network=tiny(), scale=3)
