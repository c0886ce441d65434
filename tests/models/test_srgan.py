"""The enlarging network is Real-ESRGAN's, sees exactly as far as it says, and its critic is spectrally normalised."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm

from bottega.errors import ConfigError, InputError
from bottega.models.srgan import (
    RRDBNet,
    RRDBNetConfig,
    SpectralConv,
    SrGan,
    UNetDiscriminator,
    repeat_pixels,
)

SMALL = RRDBNetConfig(width=4, num_blocks=1, grow=2)


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights large enough that every path matters."""
    draws = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        spread = 0.4 / max(1, parameter[0].numel()) ** 0.5
        parameter.data = torch.randn(parameter.shape, generator=draws) * spread + 0.05
    return network.eval()


def pictures(height: int, width: int, count: int = 1) -> torch.Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, height, width, generator=draws) * 2 - 1


def published_forward(state: dict, x: torch.Tensor, blocks: int) -> torch.Tensor:
    """Real-ESRGAN's generator written out from the paper, on pictures in [0, 1]."""

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def dense(name: str, x: torch.Tensor) -> torch.Tensor:
        x1 = F.leaky_relu(conv(f"{name}.conv1", x), 0.2)
        x2 = F.leaky_relu(conv(f"{name}.conv2", torch.cat((x, x1), 1)), 0.2)
        x3 = F.leaky_relu(conv(f"{name}.conv3", torch.cat((x, x1, x2), 1)), 0.2)
        x4 = F.leaky_relu(conv(f"{name}.conv4", torch.cat((x, x1, x2, x3), 1)), 0.2)
        return conv(f"{name}.conv5", torch.cat((x, x1, x2, x3, x4), 1)) * 0.2 + x

    feat = conv("conv_first", x)
    h = feat
    for i in range(blocks):
        inner = h
        for j in (1, 2, 3):
            inner = dense(f"body.{i}.rdb{j}", inner)
        h = inner * 0.2 + h
    feat = feat + conv("conv_body", h)
    for name in ("conv_up1", "conv_up2"):
        feat = F.leaky_relu(conv(name, feat.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
    return conv("conv_last", F.leaky_relu(conv("conv_hr", feat), 0.2))


def test_the_generator_is_real_esrgans():
    network = lively(RRDBNet(RRDBNetConfig(width=6, num_blocks=2, grow=3)))
    images = pictures(7, 9, 2)
    ours = network(images)
    theirs = published_forward(dict(network.state_dict()), (images + 1) / 2, 2) * 2 - 1
    assert ours.shape == (2, 3, 28, 36)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_published_size_has_the_published_names_and_number_of_weights():
    with torch.device("meta"):
        network = RRDBNet(RRDBNetConfig())
    names = set(network.state_dict())
    assert {"conv_first.weight", "body.22.rdb3.conv5.bias", "conv_up2.weight"} <= names
    assert len(names) == 702  # 351 convolutions
    assert sum(p.numel() for p in network.parameters()) == 16_697_987


@pytest.mark.parametrize(("scale", "size"), [(1, 8), (2, 8), (4, 8)])
def test_a_smaller_scale_folds_pixels_first(scale: int, size: int):
    network = RRDBNet(RRDBNetConfig(scale=scale, width=4, num_blocks=1, grow=2))
    assert network(pictures(size, size)).shape[-1] == size * scale
    assert network.conv_first.weight.shape[1] == 3 * (4 // scale) ** 2
    if scale < 4:
        with pytest.raises(InputError, match="multiples of"):
            network(pictures(7, 8))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_network_can_begin_by_repeating_pixels_and_learns_with_all_its_channels(scale: int):
    network = RRDBNet(RRDBNetConfig(scale=scale, width=6, num_blocks=1, grow=2))
    repeat_pixels(network)
    images = pictures(8, 12)
    made = network(images)
    expected = F.interpolate(F.avg_pool2d(images, 4 // scale), scale_factor=4)
    assert torch.allclose(made, expected, atol=1e-5)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    (network(images) - 0.1).square().sum().backward()
    optimizer.step()  # the last convolution lets the others in
    optimizer.zero_grad()
    (network(images) - 0.1).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    with pytest.raises(ConfigError, match="width of at least 3"):
        repeat_pixels(RRDBNet(RRDBNetConfig(width=2, num_blocks=1, grow=2)))


def test_the_network_sees_exactly_as_far_as_it_says():
    network = lively(RRDBNet(SMALL)).double()
    reach = network.body_reach + network.paint_reach
    side = 2 * reach + 5
    images = pictures(side, side).double().requires_grad_()
    middle = side // 2
    block = network.paint(network.features(images))[..., middle * 4 : middle * 4 + 4, :]
    block[..., middle * 4 : middle * 4 + 4].sum().backward()
    touched = (images.grad.abs().sum((0, 1)) > 0).nonzero()
    assert touched.min(0).values.tolist() == [middle - reach] * 2
    assert touched.max(0).values.tolist() == [middle + reach] * 2


def test_maps_reach_as_far_as_the_body_alone():
    network = lively(RRDBNet(SMALL)).double()
    reach = network.body_reach
    side = 2 * reach + 3
    images = pictures(side, side).double().requires_grad_()
    network.features(images)[..., side // 2, side // 2].sum().backward()
    touched = (images.grad.abs().sum((0, 1)) > 0).nonzero()
    assert touched.min(0).values.tolist() == [side // 2 - reach] * 2


def test_a_network_in_bfloat16_paints_float32():
    network = lively(RRDBNet(SMALL))
    exact = network(pictures(8, 8))
    rough = network.to(torch.bfloat16)(pictures(8, 8))
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.02 * exact.abs().max()


def test_a_spectral_convolution_is_torchs_in_value_in_gradient_and_over_steps():
    ours = SpectralConv(3, 5, 4, stride=2)
    plain = nn.Conv2d(3, 5, 4, stride=2, padding=1, bias=False)
    theirs = spectral_norm(plain)
    theirs.load_state_dict(ours.state_dict())
    x = pictures(8, 8)
    for training in (True, True, False):
        ours.train(training)
        theirs.train(training)
        a, b = ours(x), theirs(x)
        assert torch.allclose(a, b, atol=1e-6)
        for module, out in ((ours, a), (theirs, b)):
            module.zero_grad()
            out.square().sum().backward()
        assert torch.allclose(ours.weight_orig.grad, theirs.weight_orig.grad, atol=1e-5)
        assert torch.allclose(ours.weight_u, theirs.weight_u)


def test_the_norm_comes_to_one_and_two_calls_share_one_backward():
    conv = SpectralConv(4, 6)
    for _ in range(50):
        conv(torch.zeros(1, 4, 4, 4))
    flat = conv.weight_orig.detach().flatten(1)
    largest = torch.linalg.matrix_norm(flat, 2)
    assert conv.weight_u @ (flat @ conv.weight_v) == pytest.approx(float(largest), rel=1e-3)
    x = torch.ones(1, 4, 4, 4)
    (conv(x).sum() + conv(x).sum()).backward()
    assert conv.weight_orig.grad.isfinite().all()
    rough = conv.to(torch.bfloat16)
    rough.weight_u, rough.weight_v = rough.weight_u.float(), rough.weight_v.float()
    assert rough(x.to(torch.bfloat16)).dtype == torch.bfloat16


def test_the_critic_judges_every_pixel_by_the_names_of_the_published_one():
    critic = UNetDiscriminator(4)
    assert critic(pictures(16, 24, 2)).shape == (2, 1, 16, 24)
    names = set(critic.state_dict())
    assert {"conv0.weight", "conv0.bias", "conv3.weight_orig", "conv8.weight_u"} <= names
    assert {"conv9.bias", "conv1.weight_v"} <= names and "conv1.bias" not in names
    with pytest.raises(InputError, match="multiples of 8"):
        critic(pictures(12, 16))


def test_both_are_one_module_to_train_and_the_generator_paints():
    both = SrGan(SMALL, 2)
    images = pictures(8, 8)
    assert torch.equal(both(images), both.generator(images))
    names = {name.split(".")[0] for name, _ in both.named_parameters()}
    assert names == {"generator", "discriminator"}


def test_settings_that_make_no_network_are_refused():
    for setting in ({"width": 0}, {"num_blocks": 0}, {"grow": -1}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            RRDBNetConfig(**setting)
    with pytest.raises(ConfigError, match="discriminator_width"):
        SrGan(SMALL, 0)
