"""Folders that are no network of a kind we read: one clear line each, and nothing is executed."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bottega.checkpoint.foreign import load_foreign_unet
from bottega.errors import CheckpointError

WEIGHTS = "diffusion_pytorch_model.safetensors"
KEPT = (
    "_class_name",
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "up_block_types",
    "cross_attention_dim",
)


def respell(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def spoil(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def test_settings_that_old_folders_leave_out_have_their_defaults(small):
    path = small / "config.json"
    network, _ = load_foreign_unet(small)
    kept = {k: v for k, v in json.loads(path.read_text()).items() if k in KEPT}
    path.write_text(json.dumps(kept))
    assert load_foreign_unet(small)[0].config == network.config


def test_unknown_settings_that_do_nothing_are_let_through(small):
    respell(small, a_setting_of_tomorrow=None, another=False, _note="hello")
    load_foreign_unet(small)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"_class_name": "FluxTransformer2DModel"}, "FluxTransformer2DModel"),
        ({"attention_typo": "x"}, "attention_typo='x'.*did you mean attention_type"),
        ({"act_fn": "mish"}, "act_fn='mish' is not supported"),
        ({"class_embed_type": "projection"}, "class_embed_type='projection'"),
        ({"addition_embed_type": "image"}, "addition_embed_type='image'"),
        ({"time_cond_proj_dim": 256}, "time_cond_proj_dim=256"),
        ({"norm_eps": 1e-6}, "norm_eps=1e-06"),
        ({"layers_per_block": "two"}, "layers_per_block expects"),
        ({"layers_per_block": 10**9}, "layers_per_block 1000000000 is no size"),
        ({"transformer_layers_per_block": 10**9}, "at most 64 is read"),
        ({"block_out_channels": [10**9, 10**9]}, "is no size"),
        ({"cross_attention_dim": -1}, "cross_attention_dim -1 is no size"),
        ({"layers_per_block": [1, 1, 1]}, "layers_per_block .* must name 2 levels"),
        ({"block_out_channels": [32, 64, 64]}, "same levels"),
        ({"block_out_channels": [33, 66]}, "even width"),
        ({"block_out_channels": [34, 66]}, "heads do not divide"),
        ({"block_out_channels": [40, 64]}, "does not divide a width of 40"),
        ({"down_block_types": ["ResnetDownsampleBlock2D", "DownBlock2D"]}, "cannot stand with"),
        ({"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}, "same levels"),
        ({"attention_head_dim": 7}, "7 heads do not divide"),
        ({"cross_attention_dim": [24, 32]}, "one width for all levels"),
        ({"transformer_layers_per_block": [1, [1, 2]]}, "transformer_layers_per_block"),
        ({"reverse_transformer_layers_per_block": [2, 2]}, "must mirror"),
        ({"norm_num_groups": None}, "norm_num_groups must be a number"),
        ({"only_cross_attention": True}, "only_cross_attention"),
        ({"resnet_skip_time_act": True}, "activate the time embedding once"),
        ({"encoder_hid_dim_type": "text_proj"}, "needs encoder_hid_dim"),
        ({"addition_embed_type": "text_time"}, "needs addition_time_embed_dim"),
        ({"class_embed_type": "timestep", "in_channels": 3}, "even number of in_channels"),
        ({"layers_per_block": 2}, "missing .*resnets.1"),
        (
            {"addition_embed_type": "text", "addition_embed_type_num_heads": 4},
            "missing add_embedding",
        ),
        ({"block_out_channels": [32, 96]}, "instead of"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_are_not_understood_or_contradict_the_tensors_are_refused(
    small, changes, said
):
    respell(small, **changes)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_foreign_unet(small)
    assert "\n" not in str(caught.value)


def test_missing_surplus_and_misshapen_tensors_are_named(small):
    spoil(small, lambda tensors: tensors.pop("conv_in.bias"))
    with pytest.raises(CheckpointError, match=r"missing conv_in\.bias"):
        load_foreign_unet(small)
    spoil(small, lambda tensors: tensors.update({"conv_in.bias": torch.zeros(31)}))
    with pytest.raises(CheckpointError, match=r"conv_in\.bias is \[31\] instead of \[32\]"):
        load_foreign_unet(small)
    spoil(
        small,
        lambda tensors: tensors.update({"conv_in.bias": torch.zeros(32), "lora.up": torch.ones(1)}),
    )
    with pytest.raises(CheckpointError, match=r"surplus lora\.up"):
        load_foreign_unet(small)
    whole = torch.zeros(32, dtype=torch.int64)
    spoil(small, lambda tensors: (tensors.pop("lora.up"), tensors.update({"conv_in.bias": whole})))
    with pytest.raises(CheckpointError, match=r"conv_in\.bias holds torch\.int64"):
        load_foreign_unet(small)


def test_damaged_files_pickles_and_other_folders_are_refused_in_one_line(small, tmp_path):
    weights = small / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match="is cut off"):
        load_foreign_unet(small)
    torch.save({"conv_in.bias": torch.zeros(32)}, weights)
    with pytest.raises(CheckpointError, match=r"is a pickle.*weights_only=True"):
        load_foreign_unet(small)
    weights.unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_foreign_unet(small)
    (small / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_foreign_unet(small)
    with pytest.raises(CheckpointError, match="is no folder"):
        load_foreign_unet(tmp_path / "nothing")
