"""HED with published names says what the published networks say, written out here a second time."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bottega.errors import CheckpointError, InputError
from bottega.models.hed import STAGE_CONVS, HedNetwork, hed_from_weights
from bottega.seeding import generator

WIDTHS = (3, 4, 5, 6, 6)


class Network2015(nn.Module):
    """The network as its converted weights name it."""

    def __init__(self):
        super().__init__()
        before = 3
        for i, (name, width) in enumerate(
            zip(("One", "Two", "Thr", "Fou", "Fiv"), WIDTHS, strict=True)
        ):
            layers = [nn.MaxPool2d(2)] if i else []
            for _ in range(STAGE_CONVS[i]):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            setattr(self, f"netVgg{name}", nn.Sequential(*layers))
            setattr(self, f"netScore{name}", nn.Conv2d(width, 1, 1))
        self.netCombine = nn.Sequential(nn.Conv2d(5, 1, 1), nn.Sigmoid())

    def forward(self, rgb01):
        mean = torch.tensor([104.00698793, 116.66876762, 122.67891434]).view(1, 3, 1, 1)
        x = rgb01[:, [2, 1, 0]] * 255 - mean
        scores = []
        for name in ("One", "Two", "Thr", "Fou", "Fiv"):
            x = getattr(self, f"netVgg{name}")(x)
            score = getattr(self, f"netScore{name}")(x)
            scores.append(F.interpolate(score, size=rgb01.shape[2:], mode="bilinear"))
        return self.netCombine(torch.cat(scores, 1))


class Block(nn.Module):
    def __init__(self, before, width, count):
        super().__init__()
        self.convs = nn.Sequential(
            *(nn.Conv2d(before if i == 0 else width, width, 3, padding=1) for i in range(count))
        )
        self.projection = nn.Conv2d(width, 1, 1)


class NetworkControlNet(nn.Module):
    """ControlNet's own."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Parameter(torch.tensor([110.0, 120.0, 90.0]).view(1, 3, 1, 1))
        before = (3, *WIDTHS)
        for i, count in enumerate(STAGE_CONVS):
            setattr(self, f"block{i + 1}", Block(before[i], WIDTHS[i], count))

    def forward(self, rgb01):
        x = rgb01 * 255 - self.norm
        sides = []
        for i in range(5):
            block = getattr(self, f"block{i + 1}")
            x = F.max_pool2d(x, 2) if i else x
            for conv in block.convs:
                x = F.relu(conv(x))
            sides.append(F.interpolate(block.projection(x), size=rgb01.shape[2:], mode="bilinear"))
        return torch.sigmoid(sum(sides) / 5)


def drawn(kind):
    torch.manual_seed(0)
    return kind()


@pytest.mark.parametrize("kind", [Network2015, NetworkControlNet])
@pytest.mark.parametrize("size", [(32, 48), (17, 21)])
def test_published_weights_give_the_published_edges(kind, size):
    theirs = drawn(kind)
    pictures = torch.rand(2, 3, *size, generator=generator(1))
    with torch.no_grad():
        expected = theirs(pictures)
    found = hed_from_weights(theirs.state_dict())(pictures * 2 - 1)
    assert expected.std() > 0
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_file_of_2018_says_module_where_its_code_says_net():
    theirs = drawn(Network2015).state_dict()
    older = {name.replace("net", "module", 1): tensor for name, tensor in theirs.items()}
    pictures = torch.rand(1, 3, 16, 16, generator=generator(2))
    assert torch.equal(hed_from_weights(older)(pictures), hed_from_weights(theirs)(pictures))


def test_its_default_widths_are_those_of_vgg():
    widths = [len(stage.edges.weight[0]) for stage in HedNetwork(fused=True).stages]
    assert widths == [64, 128, 256, 512, 512]


def test_it_learns_nothing_and_stays_in_evaluation():
    network = hed_from_weights(drawn(NetworkControlNet).state_dict())
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_weights_of_something_else_are_refused_by_name():
    weights = drawn(Network2015).state_dict()
    cut = {name: tensor for name, tensor in weights.items() if "Fiv" not in name}
    with pytest.raises(CheckpointError, match=r"netScoreFiv.bias is missing"):
        hed_from_weights(cut)
    with pytest.raises(CheckpointError, match=r"no tensor netVggOne.9.weight; did you mean"):
        hed_from_weights({**weights, "netVggOne.9.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"block1.*is missing, conv1 is unknown"):
        hed_from_weights({"conv1": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"netVggTwo.3.weight must be of shape"):
        hed_from_weights({**weights, "netVggTwo.3.weight": torch.zeros(4, 4, 1, 1)})


def test_a_picture_too_small_for_the_last_stage_is_refused():
    with pytest.raises(InputError, match="at least 16 px, got 8 x 32"):
        hed_from_weights(drawn(Network2015).state_dict())(torch.zeros(1, 3, 8, 32))
