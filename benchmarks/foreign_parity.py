"""Every family of models that we read, theirs against ours: the largest relative difference, as two tables.

The first is of one network call. Each network is tiny and random, made by diffusers' own class with the settings of
the published one (its keys and kinds; widths are scaled down), saved by it, and read by us. The second is of whole
sampling runs, encoders, autoencoders and the way back, as the tests in ``tests/foreign`` compare them; they are run,
and what they found is printed. The difference is max |ours - theirs| / max |theirs|, in float32; of calls it is given
in float64 too, where nothing is left of it that is rounding (some layers of IF's stay in float32 on one of the sides).
"""

import argparse
import copy
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bottega.checkpoint.foreign import ForeignInfo, load_foreign_unet
from bottega.condition import Condition, Stream
from bottega.models import UNet

SD1 = {
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": (32, 64, 64, 96),
    "center_input_sample": False,
    "cross_attention_dim": 24,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
SD2 = SD1 | {
    "attention_head_dim": (1, 2, 4, 4),
    "cross_attention_dim": 32,
    "dual_cross_attention": False,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "use_linear_projection": True,
    "upcast_attention": True,
}
SDXL = SD2 | {
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 16,
    "attention_head_dim": (1, 2, 4),
    "block_out_channels": (32, 64, 96),
    "cross_attention_dim": 40,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "projection_class_embeddings_input_dim": 24 + 6 * 16,
    "transformer_layers_per_block": (1, 2, 3),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "upcast_attention": None,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "sample_size": 128,
}
REFINER = SDXL | {
    "attention_head_dim": (1, 2, 4, 4),
    "block_out_channels": (32, 64, 96, 96),
    "cross_attention_dim": 24,
    "down_block_types": (
        "DownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ),
    "projection_class_embeddings_input_dim": 24 + 5 * 16,
    "transformer_layers_per_block": 4,
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
IF1 = {
    "act_fn": "gelu",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 4,
    "attention_head_dim": 16,
    "block_out_channels": (32, 64, 96, 128),
    "class_embed_type": None,
    "cross_attention_dim": 64,
    "cross_attention_norm": "group_norm",
    "down_block_types": ("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3,
    "encoder_hid_dim": 48,
    "encoder_hid_dim_type": "text_proj",
    "in_channels": 3,
    "layers_per_block": 3,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "only_cross_attention": False,
    "out_channels": 6,
    "resnet_time_scale_shift": "scale_shift",
    "sample_size": 64,
    "up_block_types": ("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
}
IF2 = IF1 | {
    "block_out_channels": (32, 32, 64, 96, 96),
    "class_embed_type": "timestep",
    "down_block_types": ("ResnetDownsampleBlock2D",) * 3 + ("SimpleCrossAttnDownBlock2D",) * 2,
    "in_channels": 6,
    "layers_per_block": (2, 2, 3, 5, 5),
    "mid_block_only_cross_attention": True,
    "mid_block_scale_factor": 1.4142271248762554,
    "only_cross_attention": (False, False, False, False, True),
    "resnet_out_scale_factor": 1.4142271248762554,
    "resnet_skip_time_act": True,
    "sample_size": 256,
    "time_embedding_act_fn": "gelu",
    "up_block_types": ("SimpleCrossAttnUpBlock2D",) * 2 + ("ResnetUpsampleBlock2D",) * 3,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "SD 1.x (eps)": SD1,
    "SD 2.x (v)": SD2,
    "SDXL base": SDXL,
    "SDXL refiner": REFINER,
    "IF stage I": IF1,
    "IF stage II": IF2,
}
SHAPES = ((1, 16, 16), (2, 16, 16), (3, 32, 16), (2, 48, 80))
"""Batch, height and width."""

TOKENS = 77


@dataclass(frozen=True)
class Pair:
    """One network of theirs, and ours read from its folder."""

    theirs: nn.Module
    ours: UNet
    info: ForeignInfo


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    family: str
    shape: tuple[int, int, int]
    masked: bool
    difference: float
    in_double: float


def random_unet(settings: dict[str, Any], seed: int = 0) -> Any:
    """Diffusers' class with no layer silent."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    network = UNet2DConditionModel(**settings)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network.eval()


def make_pair(settings: dict[str, Any], folder: Path) -> Pair:
    """Theirs, saved by diffusers into ``folder``, and ours read from there."""
    theirs = random_unet(settings)
    theirs.save_pretrained(folder)
    return Pair(theirs, *load_foreign_unet(folder))


def can_mask(settings: dict[str, Any]) -> bool:
    """Diffusers fails on a mask where a layer reads text alone: it pads the mask by the picture's positions."""
    return "class_embed_type" not in settings or settings["class_embed_type"] is None


def difference(pair: Pair, shape: tuple[int, int, int], *, masked: bool, seed: int = 1) -> float:
    """How far the two are apart after one call, relative to the largest output."""
    said = both_say(pair, shape, masked=masked, seed=seed)
    return float((said[0] - said[1]).abs().max() / said[1].abs().max())


def in_double(pair: Pair) -> Pair:
    """The same weights in float64: what is left of a difference there is none of rounding."""
    return Pair(copy.deepcopy(pair.theirs).double(), copy.deepcopy(pair.ours).double(), pair.info)


def both_say(
    pair: Pair, shape: tuple[int, int, int], *, masked: bool, seed: int = 1
) -> tuple[Tensor, Tensor]:
    """What ours and theirs answer to the same random question, in the type of theirs."""
    dtype = next(pair.theirs.parameters()).dtype
    settings = pair.info.settings
    batch, height, width = shape
    draw = torch.Generator().manual_seed(seed)

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=draw).to(dtype)

    times = torch.randint(0, 1000, (batch,), generator=draw)
    text_width = pair.ours.config.streams[0].width
    tokens = randn(batch, TOKENS, text_width)
    mask = torch.ones(batch, TOKENS, dtype=torch.bool)
    if masked:
        lengths = torch.randint(1, TOKENS, (batch, 1), generator=draw)
        mask = torch.arange(TOKENS) < lengths
    x = randn(batch, pair.ours.config.in_channels, height, width)
    words: dict[str, Any] = {"encoder_hidden_states": tokens}
    if masked:
        words["encoder_attention_mask"] = mask
    pooled, numbers, low_res, level, channels = None, None, None, None, x
    if settings.addition_embed_type == "text_time":
        count = 5 if settings.projection_class_embeddings_input_dim == 24 + 5 * 16 else 6
        pooled = randn(batch, 24)
        numbers = (1024 * torch.rand(batch, count, generator=draw)).to(dtype)
        words["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": numbers}
    if settings.takes_low_res:
        low_res = randn(*x.shape)
        level = torch.randint(0, 1000, (batch,), generator=draw)
        words["class_labels"] = level
        channels = torch.cat([x, low_res], dim=1)
    condition = Condition(
        streams={pair.info.stream: Stream(tokens=tokens, mask=mask, pooled=pooled)},
        low_res=low_res,
        low_res_sigma=None if level is None else level.float(),
        numbers=numbers,
    )
    with torch.inference_mode():
        ours = pair.ours(x, times.float(), pair.ours.prepare(condition))
        theirs = pair.theirs(channels, times, **words).sample
    return ours, theirs


def rows(shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> Iterator[Row]:
    """The whole table."""
    for family, settings in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            pair = make_pair(settings, Path(folder))
            exact = in_double(pair)
            for shape, masked in itertools.product(shapes, (False, True)):
                if masked and not can_mask(settings):
                    continue
                found = [difference(p, shape, masked=masked) for p in (pair, exact)]
                yield Row(family, shape, masked, *found)


class Found:
    """What the tests found, in their order: what was compared, how far apart it was, and how far it may be."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float]] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called by pytest after every phase of every test."""
        if report.when == "call":
            self.rows += [row for name, row in report.user_properties if name == "parity"]


def run_table() -> list[tuple[str, float, float]]:
    """Everything that the tests compare with diffusers and transformers.

    Raises:
        SystemExit: When one of them fails.
    """
    import pytest

    tests = Path(__file__).parents[1] / "tests" / "foreign"
    files = ["painting", "cascades", "parts"]
    paths = [str(tests / f"test_foreign_{name}.py") for name in files]
    found = Found()
    paths.append(str(tests / "test_import_and_export.py"))
    # What is imported already cannot be given pytest's own assertions, of which it warns.
    quiet = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main([*quiet, *paths], plugins=[found])
    if code != 0:
        raise SystemExit("a test fails, so the table means nothing")
    return found.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the smallest shape")
    parser.add_argument("--calls-only", action="store_true", help="only the first table")
    options = parser.parse_args()
    found = [] if options.calls_only else run_table()
    print_calls(options)
    if found:
        print("\n| what | largest relative difference | allowed |")
        print("|---|---|---|")
        for what, apart, within in found:
            print(f"| {what} | {apart:.1e} | {within:.0e} |")


def print_calls(options: argparse.Namespace) -> None:
    print(
        "| family | batch x height x width | text mask | largest relative difference | in float64 |"
    )
    print("|---|---|---|---|---|")
    for row in rows(SHAPES[:1] if options.quick else SHAPES):
        shape = " x ".join(map(str, row.shape))
        found = f"{row.difference:.1e} | {row.in_double:.1e}"
        print(f"| {row.family} | {shape} | {'yes' if row.masked else 'no'} | {found} |")


if __name__ == "__main__":
    main()
