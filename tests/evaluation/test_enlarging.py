"""A comparison of ways to enlarge says which is sharper, exactly where that can be reckoned."""

import pytest
import torch
import torch.nn.functional as F

from bottega.data.emoji_world import EmojiWorldConfig
from bottega.errors import InputError
from bottega.evaluation.enlarging import compare_ways, slope
from bottega.evaluation.features import FeatureMaps, patch_features
from bottega.evaluation.judge import Judge
from bottega.evaluation.judge_network import JudgeConfig, JudgeNetwork
from bottega.evaluation.judge_world import judge_config


@pytest.fixture(scope="module")
def judge() -> Judge:
    config = judge_config(EmojiWorldConfig(num_things=4))
    small = {**vars(config), "widths": (16, 16, 16), "size_px": 16}
    torch.manual_seed(0)
    return Judge(JudgeNetwork(JudgeConfig(**small)))


def truths(count: int = 3, size: int = 32) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, size, size, generator=draws) * 2 - 1 for _ in range(count)]


def small_of(real: list[torch.Tensor]) -> list[torch.Tensor]:
    return [F.avg_pool2d(image, 4) for image in real]


def test_the_truth_itself_has_no_error_and_a_blurred_picture_has_one(judge):
    real = truths()
    small = small_of(real)
    known = {float(s.sum()): r for s, r in zip(small, real, strict=True)}
    ways = {
        "nearest": lambda x: F.interpolate(x, scale_factor=4),
        "oracle": lambda x: known[float(x.sum())],
    }
    told = []
    scores = compare_ways("noise", small, real, ways, judge, lambda *done: told.append(done))
    nearest, oracle = scores
    assert (nearest.source, nearest.way, nearest.better) == ("noise", "nearest", 0.0)
    assert oracle.feature_error == 0 and oracle.better == 1.0 and oracle.distance < 1e-4
    assert oracle.sharpness == pytest.approx(1) and oracle.psnr_db > 100
    assert nearest.feature_error > 0.05 and nearest.sharpness < 0.3 and nearest.distance > 0
    error = torch.cat([ways["nearest"](s) - r for s, r in zip(small, real, strict=True)])
    each = -10 * (error.square().mean((1, 2, 3)) / 4).log10()
    assert nearest.psnr_db == pytest.approx(float(each.mean()), rel=1e-4)
    assert told[-1] == (6, 6)


def test_slopes_are_differences_of_neighbours():
    ramp = torch.arange(8.0).expand(1, 3, 8, 8) * 0.1
    assert float(slope(ramp)) == pytest.approx(0.05)


def test_maps_are_of_pixels_unshrunk_and_lead_back_to_the_picture(judge):
    maps = FeatureMaps(judge)
    image = truths(1, 48)[0].requires_grad_()
    found = maps(image)
    assert [m.shape[-1] for m in found] == [24, 12, 6]
    sum(m.square().sum() for m in found).backward()
    assert image.grad.abs().sum() > 0
    assert all(p.grad is None for p in judge.network.parameters())


def test_squares_are_looked_at_one_by_one_and_what_is_left_over_is_not(judge):
    image = truths(1, 40)[0]
    found = patch_features(judge, image)
    assert found.shape == (4, judge.feature_width)
    assert torch.allclose(found[1], judge.features(image[..., :16, 16:32])[0], atol=1e-5)
    assert torch.allclose(found[2], judge.features(image[..., 16:32, :16])[0], atol=1e-5)
    with pytest.raises(InputError, match="at least 16 px"):
        patch_features(judge, image[..., :8, :8])


def test_comparisons_that_mean_nothing_are_refused(judge):
    real = truths(2)
    small = small_of(real)
    with pytest.raises(InputError, match="needs 2 pictures"):
        compare_ways("x", small[:1], real[:1], {"a": lambda x: x}, judge)
    with pytest.raises(InputError, match="a gives 8 x 8 pixels where 32 x 32 are true"):
        compare_ways("x", small, real, {"a": lambda x: x}, judge)
