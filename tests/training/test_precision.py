"""Weights in bfloat16 with float32 masters: what is exact stays exact, and nothing is lost on the way."""

import pytest
import torch
from torch import nn

from bottega.errors import ConfigError
from bottega.training.precision import Masters, clip_gradients


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1))


def test_masters_hold_the_exact_weights_and_the_network_their_rounding():
    network = net()
    exact = {n: p.detach().clone() for n, p in network.named_parameters()}
    masters = Masters(network, "bf16")
    for name, parameter in network.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(parameter.detach(), exact[name].bfloat16())
        assert torch.equal(masters.by_name()[name], exact[name])


def test_with_fp32_the_masters_are_the_parameters():
    network = net().bfloat16()
    masters = Masters(network, "fp32")
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert all(a is b for a, b in zip(masters.tensors, network.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_kernels_lie_channels_last(precision):
    network = net()
    Masters(network, precision)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_change_too_small_for_bfloat16_is_kept_by_the_master_until_it_counts():
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    masters = Masters(network, "bf16")
    for _ in range(8):
        masters.tensors[0].add_(0.001)
        masters.publish()
    assert masters.tensors[0].item() == pytest.approx(1.008)
    assert network.weight.item() == 1.0078125


def test_gradients_of_microbatches_add_up_in_float32():
    network, reference = net(), net()
    masters = Masters(network, "bf16")
    x = torch.randn(6, 3, 8, 8)
    masters.clear_gradients()
    for part in x.split(2):
        (network(part.bfloat16()).float().square().mean() / 3).backward()
        masters.collect_gradients()
        assert all(p.grad is None for p in network.parameters())
    reference(x).square().mean().backward()
    for ours, theirs in zip(masters.gradients(), reference.parameters(), strict=True):
        assert ours.dtype == torch.float32
        assert (
            torch.nn.functional.cosine_similarity(ours.flatten(), theirs.grad.flatten(), dim=0)
            > 0.999
        )
    masters.clear_gradients()
    assert masters.gradients() == []


def test_a_parameter_that_took_no_part_has_no_gradient_even_after_one_that_did():
    network = net()
    masters = Masters(network, "bf16")
    network(torch.randn(1, 3, 8, 8).bfloat16()).sum().backward()
    masters.collect_gradients()
    assert len(masters.gradients()) == 4
    masters.clear_gradients()
    network[0](torch.randn(1, 3, 8, 8).bfloat16()).sum().backward()
    masters.collect_gradients()
    assert len(masters.gradients()) == 2


def test_frozen_weights_have_no_master():
    network = net()
    network[0].requires_grad_(False)
    assert Masters(network, "bf16").names == ["2.weight", "2.bias"]
    assert network[0].weight.dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="no parameter that requires a gradient"):
        Masters(network.requires_grad_(False), "bf16")


def test_clipping_bounds_the_joint_length_and_reports_the_length_before():
    gradients = [torch.full((3,), 2.0), torch.full((1,), 2.0)]
    assert clip_gradients(gradients, 1.0).item() == pytest.approx(4.0)
    assert torch.cat(gradients).norm().item() == pytest.approx(1.0, rel=1e-5)
    short = [torch.full((4,), 0.1)]
    assert clip_gradients(short, 1.0).item() == pytest.approx(0.2)
    assert torch.equal(short[0], torch.full((4,), 0.1))
    assert clip_gradients([torch.full((4,), 9.0)], None).item() == pytest.approx(18.0)
    assert clip_gradients([], 1.0).item() == 0
