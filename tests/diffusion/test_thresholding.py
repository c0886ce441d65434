import pytest
import torch

from bottega.diffusion import Dynamic, Static, guided, thresholded
from bottega.errors import ConfigError


def pictures(batch: int = 3, spread: float = 1.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    factors = torch.linspace(0.1, spread, batch)[:, None, None, None]
    return factors * torch.randn(batch, 3, 16, 16, generator=generator)


def test_static_clips_every_value():
    x = pictures()
    assert torch.equal(Static()(x), torch.clip(x, -1, 1))


@pytest.mark.parametrize("threshold", [Static(), Dynamic(), Dynamic(percentile=0.9, cap=1.5)])
def test_pictures_within_range_stay_as_they_are(threshold):
    x = pictures().clamp(-1, 1)
    assert torch.equal(threshold(x), x)


@pytest.mark.parametrize("percentile", [0.5, 0.95, 0.995, 1.0])
@pytest.mark.parametrize("cap", [None, 1.2, 50.0])
def test_the_result_is_always_within_range(percentile, cap):
    x = 40 * pictures()
    assert float(Dynamic(percentile=percentile, cap=cap)(x).abs().max()) <= 1


@pytest.mark.parametrize("percentile", [0.3, 0.95, 0.995, 0.9999, 1.0])
def test_the_limit_is_the_quantile_of_each_picture(percentile):
    x = 3 * pictures()
    expected = []
    for picture in x:
        limit = torch.quantile(picture.abs().flatten().double(), percentile).clamp(min=1)
        expected.append(picture.double().clamp(-limit, limit) / limit)
    assert torch.allclose(
        Dynamic(percentile=percentile)(x).double(), torch.stack(expected), atol=1e-6
    )


def test_the_whole_range_divides_by_the_largest_value():
    x = 3 * pictures()
    largest = x.abs().flatten(1).amax(1).clamp(min=1)[:, None, None, None]
    assert torch.allclose(Dynamic(percentile=1.0)(x), x / largest)


def test_the_cap_is_the_most_a_picture_is_scaled_down_by():
    x = 10 * pictures()
    assert torch.allclose(Dynamic(percentile=0.95, cap=1.5)(x)[-1], (x[-1] / 1.5).clamp(-1, 1))
    assert torch.equal(Dynamic(cap=1e6)(x), Dynamic()(x))


@pytest.mark.parametrize("percentile", [0.95, 0.995])
def test_a_picture_does_not_depend_on_its_neighbours(percentile):
    x, threshold = pictures(), Dynamic(percentile=percentile)
    alone = torch.cat([threshold(x[i : i + 1]) for i in range(3)])
    assert torch.equal(threshold(x), alone)
    assert torch.equal(threshold(x[:2]), alone[:2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_thresholded_in_float32(dtype):
    x = pictures().to(dtype)
    result = Dynamic()(x)
    assert result.dtype == dtype
    assert torch.equal(result, Dynamic()(x.float()).to(dtype))


@pytest.mark.parametrize(("percentile", "cap"), [(0.95, 1.5), (0.995, 2.0)])
def test_diffusers_thresholds_alike(percentile, cap):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=percentile, sample_max_value=cap
    )
    x = 3 * pictures()
    theirs = scheduler._threshold_sample(x)
    assert torch.allclose(Dynamic(percentile=percentile, cap=cap)(x), theirs, atol=1e-6)


@pytest.mark.parametrize("cap", [1.0, 0.5, float("nan"), float("inf")])
def test_a_cap_that_makes_dynamic_static_is_refused(cap):
    with pytest.raises(ConfigError, match="Static"):
        Dynamic(cap=cap)


@pytest.mark.parametrize("percentile", [0.0, -0.5, 99.5, float("nan")])
def test_a_percentile_is_a_share(percentile):
    with pytest.raises(ConfigError, match="share"):
        Dynamic(percentile=percentile)


def test_the_guided_estimate_is_what_is_thresholded():
    x = torch.zeros(1, 3, 4, 4)
    denoise = thresholded(guided(lambda x, s: x + 0.9, lambda x, s: x - 0.9, 5.0), Static())
    assert torch.equal(denoise(x, torch.ones(1)), torch.ones_like(x))


def test_thresholds_change_nothing_they_were_given():
    x = 3 * pictures()
    kept = x.clone()
    Dynamic()(x)
    Static()(x)
    assert torch.equal(x, kept)


def test_pictures_of_one_pixel_can_be_thresholded():
    assert torch.equal(Dynamic()(torch.full((2, 1, 1, 1), 5.0)), torch.ones(2, 1, 1, 1))
