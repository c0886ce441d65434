"""What the tests of the mathematics share: a small smooth network, and pictures to start from."""

import pytest
import torch
from torch import nn


class SmoothNetwork(nn.Module):
    """A random network with the calling convention of every bottega network; smooth, so walks converge."""

    def __init__(self, channels: int = 3, out_channels: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.second = nn.Conv2d(8, out_channels, 3, padding=1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 6
            parameter.requires_grad_(False)
        self.seen_dtypes: list[torch.dtype] = []

    def prepare(self, condition):
        return ("prepared", condition)

    def forward(self, x, c_noise, context=None):
        self.seen_dtypes.append(x.dtype)
        hidden = torch.tanh(self.first(x) + c_noise.to(x.dtype)[:, None, None, None] / 4)
        return self.second(hidden)


@pytest.fixture
def network() -> SmoothNetwork:
    return SmoothNetwork()


@pytest.fixture
def make_network() -> type[SmoothNetwork]:
    return SmoothNetwork


@pytest.fixture
def eps() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
