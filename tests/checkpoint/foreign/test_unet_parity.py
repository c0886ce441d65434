"""Networks saved by diffusers' own class, read as ours: the same picture out, the same file back."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from bottega.checkpoint.foreign import ForeignInfo, load_foreign_unet, save_foreign_unet
from bottega.config import from_json, to_json
from bottega.errors import CheckpointError
from bottega.models import UNet, UNetConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"
FAMILIES = ["SD 1.x (eps)", "SD 2.x (v)", "SDXL base", "SDXL refiner", "IF stage I", "IF stage II"]


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 16)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_call_gives_what_diffusers_gives(foreign_parity, pairs, family, shape):
    pair, _ = pairs(family)
    assert foreign_parity.difference(pair, shape, masked=False) < 1e-5
    if foreign_parity.can_mask(foreign_parity.FAMILIES[family]):
        assert foreign_parity.difference(pair, shape, masked=True) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_changes_the_picture_where_it_is_honoured(foreign_parity, pairs, family):
    pair, _ = pairs(family)
    if foreign_parity.can_mask(foreign_parity.FAMILIES[family]):
        free = foreign_parity.both_say(pair, (2, 16, 16), masked=False)[0]
        assert not torch.allclose(free, foreign_parity.both_say(pair, (2, 16, 16), masked=True)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_export_after_import_is_tensor_for_tensor_equal(pairs, family, tmp_path):
    from diffusers import UNet2DConditionModel

    pair, folder = pairs(family)
    save_foreign_unet(pair.ours, pair.info, tmp_path / "out")
    before, after = load_file(folder / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "out/config.json").read_text()) == dict(pair.info.config)
    again = UNet2DConditionModel.from_pretrained(tmp_path / "out")
    state = pair.theirs.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_plan_and_settings_survive_json(pairs, family):
    pair, _ = pairs(family)
    plan = pair.ours.config
    assert from_json(UNetConfig, json.loads(json.dumps(to_json(plan)))) == plan
    info = ForeignInfo(config=json.loads(json.dumps(pair.info.config)))
    assert info.settings == pair.info.settings


def test_what_the_info_says(pairs):
    eps, enlarges = pairs("SD 1.x (eps)")[0].info, pairs("IF stage II")[0].info
    assert (eps.stream, eps.sample_size, eps.learns_variance) == ("clip_text", 64, False)
    assert (enlarges.stream, enlarges.sample_size, enlarges.learns_variance) == ("t5", 256, True)


def test_shards_and_half_precision_are_read_too(foreign_parity, pairs, tmp_path):
    pair, _ = pairs("IF stage I")
    pair.theirs.save_pretrained(tmp_path / "shards", max_shard_size="300KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    sharded, _ = load_foreign_unet(tmp_path / "shards")
    state = pair.ours.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in sharded.state_dict().items())
    half = foreign_parity.random_unet(foreign_parity.SD1).to(torch.bfloat16)
    half.save_pretrained(tmp_path / "half", variant="bf16")
    assert load_foreign_unet(tmp_path / "half")[0].dtype == torch.bfloat16
    assert load_foreign_unet(tmp_path / "half", dtype=torch.float32)[0].dtype == torch.float32


def test_what_needs_no_copy_stays_in_the_file(small):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no list of mapped files here")
    network, _ = load_foreign_unet(small)
    assert str(small / WEIGHTS) in maps.read_text()
    with torch.no_grad():  # and yet it may be trained: what is changed is ours alone
        before = load_file(small / WEIGHTS)["time_embedding.linear_1.weight"].clone()
        network.embed_noise.linear_in.weight.add_(1)
    assert torch.equal(load_file(small / WEIGHTS)["time_embedding.linear_1.weight"], before)


class CopiesMade(TorchDispatchMode):
    """Every tensor of several dimensions that did not share its memory with what it was made from."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.ndim > 1 and made.device.type == "cpu":
            given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
            if made.untyped_storage().data_ptr() not in given:
                self.copies.append((made.dtype, made.numel()))
        return made


def test_converted_weights_are_never_held_in_the_type_of_the_file(foreign_parity, pairs):
    _, folder = pairs("IF stage I")
    with CopiesMade() as made:
        unet, _ = load_foreign_unet(folder, dtype=torch.bfloat16)
    assert {dtype for dtype, _ in made.copies} == {torch.bfloat16}
    joined = sum(
        parameter.numel()
        for name, parameter in unet.named_parameters()
        if name.endswith(("qkv.weight", "kv.weight"))
    )
    weights = sum(parameter.numel() for parameter in unet.parameters() if parameter.ndim > 1)
    # What is stacked is converted in parts and then put together; all else is copied once.
    assert sum(count for _, count in made.copies) == weights + joined


@pytest.mark.parametrize("family", ["SD 1.x (eps)", "SDXL base", "IF stage II"])
def test_converted_while_read_or_afterwards_is_the_same(pairs, family):
    pair, folder = pairs(family)
    halves = load_foreign_unet(folder, dtype=torch.bfloat16)[0].state_dict()
    for name, tensor in pair.ours.state_dict().items():
        half = halves[name]
        assert torch.equal(half, tensor.bfloat16()), name
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        assert half.is_contiguous(memory_format=layout), name


def test_export_refuses_another_network_and_a_folder_in_use(small, tmp_path):
    network, info = load_foreign_unet(small)
    with pytest.raises(CheckpointError, match="is not empty"):
        save_foreign_unet(network, info, small)
    other = ForeignInfo(config={**info.config, "act_fn": "gelu"})
    with pytest.raises(CheckpointError, match="cannot be exported"):
        save_foreign_unet(network, other, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        save_foreign_unet(network, info, tmp_path / "file" / "unet")
    (tmp_path / "empty").mkdir()
    save_foreign_unet(network, info, tmp_path / "empty")
    assert sorted(p.name for p in (tmp_path / "empty").iterdir()) == ["config.json", WEIGHTS]


def test_a_network_that_has_learned_is_exported_as_it_is(foreign_parity, pairs, tmp_path):
    pair, _ = pairs("IF stage II")
    network = UNet(pair.ours.config)
    network.load_state_dict(pair.ours.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.01)
        network.low_res_stem.bias.add_(0.1)
    save_foreign_unet(network, pair.info, tmp_path / "out")
    again, info = load_foreign_unet(tmp_path / "out")
    said = [
        foreign_parity.both_say(
            foreign_parity.Pair(pair.theirs, one, info), (1, 16, 16), masked=False
        )
        for one in (again, network.eval())
    ]
    apart = (said[0][0] - said[1][0]).abs().max() / said[0][0].abs().max()
    assert apart < 1e-4  # two biases of one convolution have become one
    assert not torch.allclose(said[0][0], said[0][1], rtol=1e-2)
