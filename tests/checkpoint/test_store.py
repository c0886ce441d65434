"""A checkpoint is whole or absent; damage is found by digest and told by name; loading is strict."""

import errno
import json
import os

import pytest
import torch
from torch import nn

import bottega
from bottega.checkpoint import (
    load_manifest,
    load_module,
    load_strictly,
    load_tensors,
    save_checkpoint,
    save_module,
    verify,
)
from bottega.checkpoint import store as store_module
from bottega.errors import CheckpointError


def net(width=4):
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 3, 1))


def save(folder, module=None, **options):
    module = net() if module is None else module
    options = {"kind": "denoiser", "config": {"width": 4}, **options}
    return save_module(folder, module.state_dict(), **options)


def flip_a_bit(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_module_comes_back_bit_for_bit_with_everything_said_about_it(tmp_path):
    module, other = net(), net()
    written = save(
        tmp_path / "x",
        module,
        images_seen=512,
        parent="abc",
        node={"level": 1, "index": 0},
        extra={"ema": 0.05},
    )
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    manifest = load_module(other, tmp_path / "x")
    assert manifest == written == load_manifest(tmp_path / "x") == verify(tmp_path / "x")
    assert manifest.images_seen == 512
    assert manifest.parent == "abc"
    assert manifest.node == {"level": 1, "index": 0}
    assert manifest.extra == {"ema": 0.05}
    assert manifest.config == {"width": 4}
    assert manifest.bottega == bottega.__version__
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key])


def test_only_a_manifest_and_safetensors_lie_in_the_folder(tmp_path):
    save(tmp_path / "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]
    names = sorted(p.name for p in (tmp_path / "x").iterdir())
    assert names == ["denoiser.safetensors", "manifest.json"]


def test_floating_tensors_are_cast_when_asked_and_counters_are_not(tmp_path):
    module = net()
    save(tmp_path / "x", module, dtype=torch.bfloat16)
    tensors = load_tensors(tmp_path / "x")
    assert tensors["0.weight"].dtype == torch.bfloat16
    assert torch.equal(tensors["0.weight"], module[0].weight.bfloat16())
    assert tensors["1.num_batches_tracked"].dtype == torch.int64
    wide = net()
    load_module(wide, tmp_path / "x")
    assert torch.equal(wide[0].weight, module[0].weight.bfloat16().float())


def test_tied_sliced_and_permuted_tensors_are_stored_as_what_they_show(tmp_path):
    base = torch.arange(24.0).view(2, 3, 4)
    group = {
        "a": base,
        "tied": base,
        "slice": base[0],
        "permuted": base.permute(2, 0, 1),
        "last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "empty": torch.zeros(0),
        "other_empty": torch.zeros(0),
        "scalar": torch.tensor(3.0),
    }
    save_checkpoint(tmp_path / "x", {"all": group}, kind="test")
    loaded = load_tensors(tmp_path / "x", "all")
    assert set(loaded) == set(group)
    for name, tensor in group.items():
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize("at", [0, 8, 100, -1])
def test_one_wrong_bit_is_found_and_the_file_named(tmp_path, at):
    save(tmp_path / "x")
    flip_a_bit(tmp_path / "x" / "denoiser.safetensors", at)
    for look in (verify, load_tensors, lambda folder: load_module(net(), folder)):
        with pytest.raises(CheckpointError, match=r"x/denoiser\.safetensors is damaged"):
            look(tmp_path / "x")


def test_a_missing_file_and_an_unknown_name_are_told_apart(tmp_path):
    save(tmp_path / "x")
    with pytest.raises(CheckpointError, match=r"holds no ema\.safetensors; it lists denoiser"):
        load_tensors(tmp_path / "x", "ema")
    (tmp_path / "x" / "denoiser.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"denoiser\.safetensors cannot be read: No such file"
    ):
        verify(tmp_path / "x")


def test_a_file_whose_digest_is_right_but_which_is_no_safetensors_is_refused(tmp_path):
    manifest = save(tmp_path / "x")
    path = tmp_path / "x" / "denoiser.safetensors"
    path.write_bytes(b"not tensors")
    facts = json.loads(manifest.dumps())
    facts["digests"][path.name] = store_module.file_digest(path)
    (tmp_path / "x" / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tensors(tmp_path / "x")


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it holds no manifest\.json"):
        load_manifest(tmp_path)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load_manifest(tmp_path / "nowhere")
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_manifest(tmp_path)


WHOLE = '{"format_version": 1, "kind": "x", "images_seen": 0, "bottega": "0", "parent": null, "digests": {}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format_version": 1,', "is damaged"),
        ("[]", "expected an object, got list"),
        ("[" * 100_000, "is damaged"),
        ('{"images_seen": ' + "1" * 5000 + "}", "is damaged"),
        ('{"config": NaN}', "NaN is no JSON number"),
        (WHOLE.replace("{}", '{"a.safetensors": 3}'), "a digest is not a str"),
        (WHOLE.replace("null", "[]"), "parent is not str"),
        ("{}", "format_version is missing or not int"),
        ('{"format_version": 1}', "kind is missing or not str"),
        ('{"format_version": 9}', "has format 9, this version reads up to 1; upgrade bottega"),
    ],
)
def test_a_damaged_or_newer_manifest_is_refused(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_manifest(tmp_path)


def test_a_manifest_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_manifest(tmp_path)


def test_digests_tell_checkpoints_apart_and_equal_ones_alike(tmp_path):
    a, b = save(tmp_path / "a"), save(tmp_path / "b", images_seen=9)
    assert a.digest == b.digest
    assert a.digest != save(tmp_path / "c", config={"width": 5}).digest
    other = net()
    with torch.no_grad():
        other[0].bias[0] += 1
    assert a.digest != save(tmp_path / "d", other).digest


def test_loading_is_strict_and_names_what_is_wrong_without_touching_the_module():
    module = net()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    good = net(4).state_dict()
    missing = {k: v for k, v in good.items() if k != "0.bias"}
    with pytest.raises(CheckpointError, match=r"here does not fit: missing 0\.bias;"):
        load_strictly(module, missing, where="here")
    with pytest.raises(CheckpointError, match=r"surplus 9\.weight"):
        load_strictly(module, {**good, "9.weight": torch.zeros(1)}, where="here")
    with pytest.raises(
        CheckpointError, match=r"0\.weight is \[8, 3, 3, 3\] instead of \[4, 3, 3, 3\]"
    ):
        load_strictly(module, net(8).state_dict(), where="here")
    with pytest.raises(CheckpointError, match=r"missing .* and 4 more"):
        load_strictly(module, {}, where="here")
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_saving_again_replaces_the_checkpoint(tmp_path):
    save(tmp_path / "x", images_seen=1)
    save(tmp_path / "x", images_seen=2)
    assert verify(tmp_path / "x").images_seen == 2
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "x").mkdir()
    save(tmp_path / "x")
    verify(tmp_path / "x")


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"holds other files \(thesis\.txt\)"):
        save(tmp_path)
    save(tmp_path / "x")
    (tmp_path / "x" / "notes.md").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds other files \(notes\.md\)"):
        save(tmp_path / "x")
    with pytest.raises(CheckpointError, match="is a file"):
        save(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_half_written(tmp_path, monkeypatch):
    save(tmp_path / "x", images_seen=1)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot write the checkpoint .*No space left"):
        save(tmp_path / "x", images_seen=2)
    monkeypatch.undo()
    assert verify(tmp_path / "x").images_seen == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_was_passed_in_is_not_changed(tmp_path):
    state = net().state_dict()
    before = {k: v.clone() for k, v in state.items()}
    save_module(tmp_path / "x", state, kind="a", config=None, dtype=torch.bfloat16)
    for key, tensor in before.items():
        assert torch.equal(state[key], tensor)
        assert state[key].dtype == tensor.dtype


def test_a_whole_model_is_not_called_a_damaged_checkpoint(tmp_path):
    facts = {"format_version": 1, "kind": "cascade", "name": "mine", "stages": []}
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="is a whole model, and one checkpoint is wanted"):
        load_manifest(tmp_path)


def test_what_is_written_can_be_read_by_whoever_may_read_new_files(tmp_path):
    (tmp_path / "ordinary").touch()
    save_module(tmp_path / "m", {"a": torch.zeros(2)}, kind="judge", config={})
    rights = {path.stat().st_mode for path in (tmp_path / "m").iterdir()}
    assert rights == {(tmp_path / "ordinary").stat().st_mode}
