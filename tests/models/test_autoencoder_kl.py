"""The autoencoder of latents is that of the diffusers library: names, order, untrained weights, and every number."""

import dataclasses

import pytest
import torch

from bottega.errors import ConfigError
from bottega.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig, in_tiles

SETTINGS = {
    "published": {"block_out_channels": (32, 32), "sample_size": 16},
    "piccolo": {
        "block_out_channels": (8, 16, 24),
        "norm_num_groups": 2,
        "layers_per_block": 2,
        "latent_channels": 6,
        "sample_size": 16,
        "mid_block_add_attention": False,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "one level": {"block_out_channels": (32,), "sample_size": 8},
}


def kinds(widths):
    count = len(widths)
    return {
        "down_block_types": ("DownEncoderBlock2D",) * count,
        "up_block_types": ("UpDecoderBlock2D",) * count,
    }


def pair(settings):
    """Theirs and ours, both untrained, from the same seed."""
    from diffusers import AutoencoderKL as Theirs

    settings = settings | kinds(settings["block_out_channels"])
    torch.manual_seed(0)
    theirs = Theirs(**settings).eval()
    torch.manual_seed(0)
    return theirs, AutoencoderKL(AutoencoderKLConfig(**settings)).eval()


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_have_the_same_names_the_same_order_and_the_same_beginning(name):
    theirs, ours = pair(SETTINGS[name])
    before, after = theirs.state_dict(), ours.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert [n for n, _ in theirs.named_parameters()] == [n for n, _ in ours.named_parameters()]


@pytest.mark.parametrize("shape", [(16, 16), (40, 24), (8, 56)])
@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_pictures_become_the_same_latents_and_come_back_the_same(name, shape):
    theirs, ours = pair(SETTINGS[name])
    pictures = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    expected = theirs.encode(pictures).latent_dist
    found = ours.encode(pictures)
    near = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(found.mean, expected.mean, **near)
    torch.testing.assert_close(found.log_variance, expected.logvar, **near)
    torch.testing.assert_close(ours.decode(found.mean), theirs.decode(expected.mean).sample, **near)
    torch.testing.assert_close(ours(pictures), theirs(pictures).sample, **near)
    theirs.enable_tiling()
    tiled = ours.encode(pictures, tiled=True).mean
    torch.testing.assert_close(tiled, theirs.encode(pictures).latent_dist.mean, **near)
    back = ours.decode(found.mean, tiled=True)
    torch.testing.assert_close(back, theirs.decode(expected.mean).sample, **near)


def test_tiles_of_what_acts_position_by_position_leave_no_trace():
    pictures = torch.rand(1, 1, 13, 30, dtype=torch.float64)
    tiled = in_tiles(lambda x: 3 * x - 1, pictures, 8, 8)
    torch.testing.assert_close(tiled, 3 * pictures - 1, rtol=0, atol=1e-12)


def test_no_tile_is_larger_than_was_asked():
    seen = []

    def note(x):
        seen.append(max(x.shape[2:]))
        return x

    in_tiles(note, torch.zeros(1, 1, 64, 40), 16, 16)
    assert max(seen) == 16 and len(seen) > 12


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"block_out_channels": ()}, "multiples of norm_num_groups 32"),
        ({"block_out_channels": (33,)}, "multiples of norm_num_groups 32"),
        ({"norm_num_groups": 0}, "norm_num_groups"),
        ({"layers_per_block": 0}, "layers_per_block must be at least 1"),
        ({"act_fn": "mish"}, "'mish' is not supported"),
        ({"down_block_types": ("AttnDownEncoderBlock2D",)}, "must be DownEncoderBlock2D for each"),
        ({"up_block_types": ()}, "must be UpDecoderBlock2D for each"),
        ({"latents_std": (1.0,)}, "latents_mean and latents_std go together"),
        ({"scaling_factor": 0.0}, "scaling_factor must be above 0"),
        ({"scaling_factor": float("nan")}, "scaling_factor must be above 0"),
        ({"sample_size": ()}, "sample_size must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        AutoencoderKLConfig(**wrong)
    assert dataclasses.replace(AutoencoderKLConfig(), act_fn="swish").tile == 32
