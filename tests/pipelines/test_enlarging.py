"""Tiles come out as the whole picture does, in memory that they alone decide; strangers' weights load or say why."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bottega.checkpoint import save_module
from bottega.config import to_json
from bottega.errors import CheckpointError, InputError
from bottega.models.srgan import RRDBNet, RRDBNetConfig
from bottega.pipelines.enlarging import ENLARGER, Enlarger, bicubic, load_enlarger
from bottega.pipelines.provenance import parse_provenance

SMALL = RRDBNetConfig(width=4, num_blocks=1, grow=2)  # sees 17 + 2 positions far


def generator(config: RRDBNetConfig = SMALL, seed: int = 0) -> RRDBNet:
    """Weights whose far paths count, and whose pictures are neither flat nor clipped."""
    network = RRDBNet(config)
    draws = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        spread = 1.5 / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.0
        parameter.data = torch.randn(parameter.shape, generator=draws) * spread
    return network.eval().requires_grad_(False)


def enlarger(config: RRDBNetConfig = SMALL, seed: int = 0) -> Enlarger:
    network = generator(config, seed)
    found = Enlarger(network=network, name="toy", digest="d", device=torch.device("cpu"))
    made = network(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1)
    network.conv_last.weight.data /= made.std() * 2
    network.conv_last.bias.data += 0.5
    return found


def picture(width: int, height: int) -> Image.Image:
    draws = np.random.default_rng(3)
    return Image.fromarray(draws.integers(0, 256, (height, width, 3), np.uint8))


def levels_of_the_whole(one: Enlarger, small: Image.Image) -> np.ndarray:
    fold = one.network.config.fold
    pixels = np.asarray(small)
    pad = ((0, -pixels.shape[0] % fold), (0, -pixels.shape[1] % fold), (0, 0))
    padded = np.pad(pixels, pad, mode="edge")
    images = torch.from_numpy(padded.transpose(2, 0, 1).copy())[None].float() / 127.5 - 1
    whole = ((one.whole(images)[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return whole[: small.height * one.scale, : small.width * one.scale]


def difference(a: Image.Image, b: np.ndarray) -> int:
    return int(np.abs(np.asarray(a, np.int16) - b.astype(np.int16)).max())


@pytest.mark.parametrize(
    ("scale", "size", "tile_px"), [(4, (53, 41), 16), (4, (20, 70), 64), (2, (51, 46), 12)]
)
def test_tiles_come_out_as_the_whole_picture_does(scale: int, size: tuple, tile_px: int):
    one = enlarger(RRDBNetConfig(scale=scale, width=4, num_blocks=1, grow=2))
    small = picture(*size)
    whole = levels_of_the_whole(one, small)
    tiled = one.enlarge(small, tile_px=tile_px)
    assert tiled.size == (size[0] * scale, size[1] * scale)
    assert whole.std() > 20
    assert (
        difference(tiled, whole) <= 1
    )  # the last bits of float32 may fall to either side of a level
    assert np.mean(np.asarray(tiled) != whole) < 1e-3


def test_with_less_of_its_surroundings_a_tile_differs_and_less_so_the_more_it_sees():
    one = enlarger()
    small = picture(48, 48)
    whole = levels_of_the_whole(one, small).astype(np.float64)
    errors = []
    for halo in (0, 4, one.halo_px):
        tiled = np.asarray(one.enlarge(small, tile_px=16, halo_px=halo), np.float64)
        errors.append(np.sqrt(np.mean((tiled - whole) ** 2)))
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] > 0.05 and errors[2] < 0.05


def test_memory_is_a_matter_of_the_tile_and_not_of_the_picture(monkeypatch):
    one = enlarger()
    seen, painted = [], []
    features, paint = one.network.features, one.network.paint
    monkeypatch.setattr(one.network, "features", lambda x: seen.append(x.shape[-2:]) or features(x))
    monkeypatch.setattr(one.network, "paint", lambda x: painted.append(x.shape[-2:]) or paint(x))
    one.enlarge(picture(300, 100), tile_px=40, halo_px=10)
    assert max(max(sides) for sides in seen) == 40 + 2 * (10 + 2)
    assert max(max(sides) for sides in painted) == 40 + 2 * 2
    seen.clear(), painted.clear()
    one.enlarge(picture(300, 20), tile_px=300, halo_px=10)
    assert [tuple(sides) for sides in seen] == [(20, 300)]
    assert max(max(sides) for sides in painted) <= 128 + 2 * 2


def test_progress_counts_tiles_and_the_picture_is_not_changed():
    one, small, told = enlarger(), picture(30, 20), []
    before = small.tobytes()
    one.enlarge(
        small, tile_px=16, halo_px=0, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert small.tobytes() == before


def test_what_makes_no_sense_is_refused():
    one = enlarger()
    for setting in ({"tile_px": 0}, {"halo_px": -1}):
        with pytest.raises(InputError, match="a tile is at least 1 px"):
            one.enlarge(picture(8, 8), **setting)
    with pytest.raises(InputError, match="40000 x 4000 pixels, more than 64,000,000"):
        one.enlarge(Image.new("RGB", (10_000, 1000)))


def write_own(folder: Path, network: RRDBNet, kind: str = ENLARGER) -> Path:
    save_module(
        folder, network.state_dict(), kind=kind, config=to_json(network.config), name=ENLARGER
    )
    return folder


def test_an_exported_enlarger_is_read_again(tmp_path):
    network = generator()
    one = load_enlarger(write_own(tmp_path / "e", network))
    assert one.network.config == SMALL and one.scale == 4 and one.halo_px == 17
    x = torch.zeros(1, 3, 8, 8)
    assert torch.allclose(one.whole(x), network(x).clamp(-1, 1), atol=1e-5)
    rough = load_enlarger(tmp_path / "e", dtype="bfloat16")
    assert rough.network.conv_hr.weight.dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match="holds a judge, not an enlarger"):
        load_enlarger(write_own(tmp_path / "j", network, "judge"))


@pytest.mark.parametrize("wrapping", ["", "params_ema.", "params.", "module."])
def test_real_esrgans_names_load_whatever_wraps_them(tmp_path, wrapping: str):
    config = RRDBNetConfig(scale=2, width=6, num_blocks=2, grow=3)
    network = generator(config)
    state = {f"{wrapping}{name}": tensor for name, tensor in network.state_dict().items()}
    if wrapping == "params_ema.":  # a file may hold the weights as they were too
        state |= {f"params.{k}": torch.zeros_like(v) for k, v in network.state_dict().items()}
    save_file(state, tmp_path / "x2.safetensors")
    one = load_enlarger(tmp_path / "x2.safetensors")
    assert one.network.config == config and one.name == "x2"
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_files_of_other_kinds_are_refused_by_name(tmp_path):
    torch.save({"params_ema": {}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="is a pickle, which could run code"):
        load_enlarger(tmp_path / "a.pth")
    save_file({"body.0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "vgg.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no RRDBNet.*SRVGGNet"):
        load_enlarger(tmp_path / "vgg.safetensors")
    state = generator().state_dict()
    save_file(
        {**state, "conv_first.weight": torch.zeros(4, 5, 3, 3)}, tmp_path / "five.safetensors"
    )
    with pytest.raises(CheckpointError, match="its first convolution reads 5"):
        load_enlarger(tmp_path / "five.safetensors")
    del state["body.0.rdb2.conv3.bias"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=r"missing body\.0\.rdb2\.conv3\.bias"):
        load_enlarger(tmp_path / "part.safetensors")
    state = generator().state_dict()
    far = {**state, "body.900.rdb1.conv1.weight": torch.zeros(1)}
    save_file(far, tmp_path / "far.safetensors")
    with pytest.raises(CheckpointError, match="numbers 901 blocks and holds 2"):
        load_enlarger(tmp_path / "far.safetensors")
    whole = {name: tensor.to(torch.int32) for name, tensor in state.items()}
    save_file(whole, tmp_path / "int.safetensors")
    with pytest.raises(CheckpointError, match=r"holds int32, no weights"):
        load_enlarger(tmp_path / "int.safetensors")
    with pytest.raises(InputError, match="there is no folder or file 'gone'"):
        load_enlarger("gone")


def test_weights_that_paint_no_numbers_are_refused():
    one = enlarger()
    one.network.conv_hr.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="toy paints values that are not finite"):
        one.enlarge(picture(5, 3))


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 3), (5, 7)])
@pytest.mark.parametrize("scale", [2, 4])
def test_pictures_smaller_than_a_tile_and_of_odd_sides_are_enlarged(scale: int, size: tuple):
    one = enlarger(RRDBNetConfig(scale=scale, width=4, num_blocks=1, grow=2))
    small = picture(*size)
    large = one.enlarge(small)
    assert large.size == (size[0] * scale, size[1] * scale)
    assert difference(large, levels_of_the_whole(one, small)) <= 1


def test_pictures_of_any_mode_are_seen_as_a_viewer_shows_them():
    one, flat = enlarger(), Image.new("RGB", (6, 4), "white")
    clear = Image.new("RGBA", (6, 4), (200, 0, 0, 0))
    assert one.enlarge(clear).tobytes() == one.enlarge(flat).tobytes()
    grey = picture(6, 4).convert("L")
    assert one.enlarge(grey).tobytes() == one.enlarge(grey.convert("RGB")).tobytes()
    lying = picture(6, 4)
    upright = one.enlarge(lying.transpose(Image.Transpose.ROTATE_270))
    lying.getexif()[0x0112] = 6
    assert one.enlarge(lying).tobytes() == upright.tobytes()
    assert lying.size == (6, 4) and lying.getexif()[0x0112] == 6


def test_a_shipped_enlarger_that_is_not_here_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setattr("bottega.pipelines.enlarging.files", lambda package: tmp_path)
    with pytest.raises(CheckpointError, match="train them with bottega train piccolo-srgan"):
        load_enlarger("piccolo-srgan")


def test_bicubic_enlarging_keeps_flat_pictures_and_stays_in_range():
    flat = torch.full((1, 3, 4, 4), 0.25)
    assert torch.allclose(bicubic(flat, 4), torch.full((1, 3, 16, 16), 0.25))
    checks = (torch.arange(16) % 2 * 2.0 - 1).expand(1, 3, 16, 16).contiguous()
    assert bicubic(checks, 4).abs().max() <= 1


def test_an_enlarged_picture_is_not_replayed_but_says_what_it_came_from():
    note = json.dumps({"kind": "enlarged", "picture": "abcdef" * 4})
    with pytest.raises(InputError, match="enlarged from a picture of SHA-256 abcdefabcdef"):
        parse_provenance(note)
