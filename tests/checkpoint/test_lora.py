"""A LoRA on disk is peft's: peft reads ours, we read peft's, and both paint with the same weights."""

import json
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_network, tiny_unet
from torch import nn

from bottega.checkpoint import LoraFacts, load_lora, save_lora
from bottega.errors import CheckpointError
from bottega.models import UNet
from bottega.models.lora import LoraPlan, add_lora, check_fits, lora_parameters, merge

PLAN = LoraPlan(rank=3, alpha=6.0)


def network(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return tiny_unet(tiny_network(), seed).eval()


def learned(plan: LoraPlan = PLAN, seed: int = 1) -> UNet:
    """A network whose LoRA has learned something."""
    changed = network()
    add_lora(changed, plan)
    draw = torch.Generator().manual_seed(seed)
    for parameter in lora_parameters(changed).values():
        parameter.data = torch.randn(parameter.shape, generator=draw) * 0.1
    return changed


def write(folder: Path, plan: LoraPlan = PLAN, seed: int = 1) -> Path:
    facts = LoraFacts(stage="base", parts=("1/0",), model="tiny", model_digest="abc", plan=plan)
    save_lora(folder, lora_parameters(learned(plan, seed)), facts, images_seen=7)
    return folder


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def merged(folder: Path, scale: float = 1.0) -> UNet:
    lora = load_lora(folder)
    changed = network()
    check_fits(changed, lora.layers, where=str(folder))
    merge(changed, [(lora.layers, scale)])
    return changed


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        LoraPlan(rank=2, alpha=1.0, targets=("attention", "blocks")),
        LoraPlan(targets=("time",)),
    ],
    ids=["attention", "convolutions", "time"],
)
def test_peft_reads_what_we_wrote_and_merges_to_the_same_weights(tmp_path: Path, plan: LoraPlan):
    from peft import PeftModel

    folder = write(tmp_path / "style", plan)
    theirs = PeftModel.from_pretrained(network(), str(folder)).merge_and_unload()
    ours = weights(merged(folder))
    before = weights(network())
    assert ours.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(ours[name], before[name]) for name in ours)


@pytest.mark.parametrize("stabilised", [False, True])
def test_we_read_what_peft_wrote(tmp_path: Path, stabilised: bool):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4,
        lora_alpha=2,
        use_rslora=stabilised,
        target_modules=["qkv", "text_kv", "conv_in"],
        # In the order in which they stand in the file: the first that matches counts.
        alpha_pattern={"conv_i.": 7, "middle.*(qkv|text_kv)": 3, "text_kv": 5},
        rank_pattern={"qkv": 2},
        init_lora_weights=False,
    )
    model = get_peft_model(network(), config)
    model.save_pretrained(str(tmp_path / "theirs"))
    lora = load_lora(tmp_path / "theirs")
    assert lora.facts is None
    ours = weights(merged(tmp_path / "theirs"))
    theirs = model.merge_and_unload().state_dict()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=1e-5)


def test_what_it_is_for_comes_back(tmp_path: Path):
    lora = load_lora(write(tmp_path / "style"))
    assert lora.name == "style"
    assert lora.facts is not None
    assert (lora.facts.stage, lora.facts.parts) == ("base", ("1/0",))
    assert lora.facts.plan == PLAN
    assert lora.digest != load_lora(write(tmp_path / "other", seed=2)).digest
    assert lora.digest == load_lora(write(tmp_path / "again")).digest


def test_a_lora_is_written_over_an_older_one_and_over_nothing_else(tmp_path: Path):
    write(tmp_path / "style", seed=1)
    write(tmp_path / "style", seed=2)
    (tmp_path / "style" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds other files \(notes.txt\)"):
        write(tmp_path / "style", seed=3)


def test_scales_are_linear_and_several_add_up(tmp_path: Path):
    one, two = (load_lora(write(tmp_path / str(seed), seed=seed)) for seed in (1, 2))
    before, changed = weights(network()), network()
    merge(changed, [(one.layers, 0.5), (two.layers, -1.0)])
    for name in one.layers:
        wanted = one.layers[name].delta() * 0.5 - two.layers[name].delta()
        gained = changed.state_dict()[f"{name}.weight"] - before[f"{name}.weight"]
        torch.testing.assert_close(gained, wanted, atol=1e-6, rtol=1e-4)


def test_a_lora_for_another_network_is_refused_in_one_line(tmp_path: Path):
    lora = load_lora(write(tmp_path / "style"))
    from dataclasses import replace

    other = UNet(replace(tiny_network(), context_width=16))
    with pytest.raises(CheckpointError) as refused:
        check_fits(other, lora.layers, where="style")
    assert "is a LoRA for another network: it changes middle.0" in str(refused.value)
    assert "[64, 32], which here is [64, 16]" in str(refused.value)
    with pytest.raises(CheckpointError, match="which here is missing"):
        check_fits(nn.Linear(2, 2), lora.layers, where="style")


def spoiled(folder: Path, **changes: object) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (folder / "manifest.json").unlink()
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_dora": True}, "use_dora is True; only plain LoRAs"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"lora_alpha": "much"}, "lora_alpha is 'much', no number"),
        ({"lora_alpha": True}, "lora_alpha is True, no number"),
        ({"alpha_pattern": [1]}, "alpha_pattern is no object"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern is no expression"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the model's own weights too"),
    ],
)
def test_more_than_a_lora_is_refused(tmp_path: Path, changes: dict[str, object], words: str):
    with pytest.raises(CheckpointError, match=words):
        load_lora(spoiled(write(tmp_path / "style"), **changes))


def test_damage_is_found(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = write(tmp_path / "style")
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="is damaged: its SHA-256"):
        load_lora(folder)
    path.write_bytes(whole)
    # Copies, since the file that they lie in is written over.
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    spoiled(folder)
    first = next(name for name in tensors if name.endswith("lora_A.weight"))
    save_file({n: t for n, t in tensors.items() if n != first}, path)
    with pytest.raises(CheckpointError, match="only one of its two matrices"):
        load_lora(folder)
    save_file(tensors | {first: torch.zeros(5, 4)}, path)
    with pytest.raises(CheckpointError, match="the matrices of"):
        load_lora(folder)
    save_file(tensors | {"base_model.model.stem.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="which is no part of a LoRA"):
        load_lora(folder)
    save_file({}, path)
    with pytest.raises(CheckpointError, match="holds no LoRA"):
        load_lora(folder)
    nan = torch.full_like(tensors[first], float("nan"))
    for spoilt in (nan, tensors[first].to(torch.int32)):
        save_file(tensors | {first: spoilt}, path)
        with pytest.raises(CheckpointError, match="values that are not finite numbers"):
            load_lora(folder)
    second = first.replace("lora_A", "lora_B")
    thin = {first: tensors[first][:0].clone(), second: tensors[second][:, :0].clone()}
    save_file(tensors | thin, path)
    with pytest.raises(CheckpointError, match="the matrices of"):
        load_lora(folder)
    path.write_bytes(whole[:-8])
    with pytest.raises(CheckpointError, match="is cut off: it has"):
        load_lora(folder)
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_lora(folder)
    path.rename(path.with_suffix(".bin"))
    path.with_suffix(".bin").write_bytes(b"PK\x03\x04 pickled")
    with pytest.raises(CheckpointError, match="is a pickle, which could run code"):
        load_lora(folder)
    path.with_suffix(".bin").rename(path)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="expected an object"):
        load_lora(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_lora(folder)


def test_a_folder_without_a_lora_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="is not a LoRA: it holds no adapter_config"):
        load_lora(tmp_path)
    folder = write(tmp_path / "style")
    manifest = folder / "manifest.json"
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(facts | {"kind": "judge"}))
    with pytest.raises(CheckpointError, match="holds a judge, not a lora"):
        load_lora(folder)
    manifest.write_text(json.dumps(facts | {"config": {"stages": "base"}}))
    with pytest.raises(CheckpointError, match="stages is not a setting of LoraFacts"):
        load_lora(folder)
