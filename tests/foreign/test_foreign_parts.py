"""Autoencoders and text encoders of diffusers folders say what diffusers' own pipelines make them say."""

import json
import shutil

import pytest
import torch
from foreign_models import clip_tokenizer, write_old_clip_tokenizer
from safetensors.torch import load_file, save_file

from bottega.checkpoint.foreign_files import read_weights
from bottega.conditioning.foreign_text import ForeignTextEncoder, text_part
from bottega.errors import CheckpointError, InputError
from bottega.pipelines.latent import open_autoencoder, read_autoencoder

PROMPTS = ["a red apple on the left", "", "a " * 100]


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_latents_are_encoded_and_decoded_as_diffusers_does(folders, pictures, parity):
    from diffusers import AutoencoderKL

    folder = folders("sd") / "vae"
    theirs = AutoencoderKL.from_pretrained(folder)
    space = read_autoencoder(folder)
    assert (space.channels, space.factor) == (4, 2)
    with torch.no_grad():
        latents = theirs.encode(pictures).latent_dist.mean * theirs.config.scaling_factor
        back = theirs.decode(latents / theirs.config.scaling_factor).sample
    parity("AutoencoderKL, encoded", space.encode(pictures), latents, 1e-9)
    parity("AutoencoderKL, decoded", space.decode(latents), back, 1e-9)
    assert space.preview(latents).shape == (2, 3, 8, 8)


def test_large_pictures_are_decoded_in_tiles_where_memory_is_short(folders):
    folder = folders("sd") / "vae"
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    whole = read_autoencoder(folder).decode(latents)
    tiled = read_autoencoder(folder, tiled=True).decode(latents)
    assert whole.shape == tiled.shape == (1, 3, 32, 32)
    assert not torch.equal(whole, tiled)
    small = latents[:, :, :8, :8]
    assert torch.equal(
        read_autoencoder(folder).decode(small), read_autoencoder(folder, tiled=True).decode(small)
    )


def test_an_autoencoder_with_the_names_of_2022_is_the_same(folders, pictures, tmp_path):
    folder = folders("sd") / "vae"
    shutil.copytree(folder, tmp_path / "vae")
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    old = {}
    for name, tensor in load_file(path).items():
        for new, before in {
            "to_q": "query",
            "to_k": "key",
            "to_v": "value",
            "to_out.0": "proj_attn",
        }.items():
            name = name.replace(f".{new}.", f".{before}.") if ".attentions." in name else name
        old[name] = tensor
    assert any(".query." in name for name in old)
    save_file(old, path)
    assert torch.equal(
        read_autoencoder(tmp_path / "vae").encode(pictures),
        read_autoencoder(folder).encode(pictures),
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_class_name": "AutoencoderTiny"}, "supported is AutoencoderKL"),
        ({"a_new_setting": 3}, "a_new_setting=3, which is not supported"),
        ({"latents_mean": [0.0] * 4}, "latents_mean and latents_std go together"),
        ({"latents_mean": [0.0] * 4, "latents_std": [1.0] * 3}, "go together"),
        ({"latents_mean": [0.0] * 4, "latents_std": [1.0, 0.0, 1.0, 1.0]}, "above 0"),
        ({"latent_channels": 8}, "instead of"),
        ({"layers_per_block": 2}, "missing"),
    ],
)
def test_an_autoencoder_whose_settings_do_not_fit_is_refused(folders, tmp_path, change, words):
    shutil.copytree(folders("sd") / "vae", tmp_path / "vae")
    path = tmp_path / "vae" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=words):
        read_autoencoder(tmp_path / "vae")
        open_autoencoder(tmp_path / "vae")


def parts(folder, *endings, classes):
    return [
        text_part(
            folder / f"text_encoder{ending}",
            folder / f"tokenizer{ending}",
            kind,
            dtype=torch.float32,
        )
        for ending, kind in zip(endings, classes, strict=True)
    ]


def test_stable_diffusion_hears_what_its_pipeline_hears(folders, parity):
    from diffusers import StableDiffusionPipeline

    folder = folders("sd")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    encoder = ForeignTextEncoder("clip_text", parts(folder, "", classes=["CLIPTextModel"]))
    encoded = encoder.encode(PROMPTS, rows=3)
    expected, _ = pipeline.encode_prompt(PROMPTS, "cpu", 1, False)
    parity("CLIPTextModel (SD)", encoded.stream.tokens, expected, 1e-5)
    assert bool(encoded.stream.mask.all())
    assert encoded.stream.pooled is None
    assert encoded.truncated[0] == 0 and encoded.truncated[2] > 0


def test_sdxl_hears_both_encoders_and_zeros_for_an_empty_text(folders, parity):
    from diffusers import StableDiffusionXLPipeline

    folder = folders("sdxl")
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    encoder = ForeignTextEncoder(
        "clip_text",
        parts(folder, "", "_2", classes=["CLIPTextModel", "CLIPTextModelWithProjection"]),
        layer="before_last",
        silent=True,
    )
    said = encoder.encode(["a dog on the right", ""]).stream
    tokens, zeros, pooled, _ = pipeline.encode_prompt("a dog on the right")
    parity("CLIPTextModel and CLIPTextModelWithProjection (SDXL)", said.tokens[:1], tokens, 1e-5)
    parity("CLIPTextModelWithProjection (SDXL), pooled", said.pooled[:1], pooled, 1e-5)
    assert torch.equal(said.tokens[1:], zeros) and not said.pooled[1:].any()
    assert bool(said.mask.all())


def test_if_hears_what_its_pipeline_hears(folders, parity):
    from diffusers import IFPipeline

    folder = folders("if1")
    pipeline = IFPipeline.from_pretrained(folder, safety_checker=None, watermarker=None)
    encoder = ForeignTextEncoder("t5", parts(folder, "", classes=["T5EncoderModel"]), max_tokens=77)
    texts = ["A red APPLE on the left", ""]
    expected, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)
    said = encoder.encode(texts, rows=2).stream
    parity("T5EncoderModel (IF)", said.tokens, expected, 1e-5)
    assert bool(said.mask.all())


def test_a_tokenizer_without_tokenizer_json_is_read_from_its_words_and_merges(folders, tmp_path):
    folder = folders("sd")
    write_old_clip_tokenizer(tmp_path / "tokenizer", clip_tokenizer())
    shutil.copytree(folder / "text_encoder", tmp_path / "text_encoder")
    old = ForeignTextEncoder("clip_text", parts(tmp_path, "", classes=["CLIPTextModel"]))
    new = ForeignTextEncoder("clip_text", parts(folder, "", classes=["CLIPTextModel"]))
    text = ["a red dog, and 3 cats"]
    assert torch.equal(old.encode(text).stream.tokens, new.encode(text).stream.tokens)
    assert old.digest != new.digest


def test_text_encoders_refuse_what_they_cannot_be(folders, tmp_path):
    folder = folders("sd")
    with pytest.raises(CheckpointError, match="GPT2Model, which is not supported"):
        parts(folder, "", classes=["GPT2Model"])
    with pytest.raises(InputError, match="max_tokens"):
        ForeignTextEncoder("t5", parts(folder, "", classes=["CLIPTextModel"]), max_tokens=1)
    mixed = parts(folders("sdxl"), "", classes=["CLIPTextModel"])
    mixed += parts(folders("if1"), "", classes=["T5EncoderModel"])
    with pytest.raises(CheckpointError, match="knows other words"):
        ForeignTextEncoder("clip_text", mixed)
    shutil.copytree(folder / "text_encoder", tmp_path / "text_encoder")
    shutil.copytree(folder / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "text_encoder" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="lacks the number hidden_size"):
        ForeignTextEncoder("x", parts(tmp_path, "", classes=["CLIPTextModel"]))


def test_weights_are_mapped_from_one_file_or_from_shards(folders, tmp_path):
    whole = read_weights(folders("sd") / "vae")
    names = sorted(whole)
    shards = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, held in shards.items():
        save_file({name: whole[name].clone() for name in held}, tmp_path / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    path = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps(index))
    found = read_weights(tmp_path)
    assert sorted(found) == names
    assert all(torch.equal(found[name], whole[name]) for name in names)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks the shard b\.safetensors"):
        read_weights(tmp_path)
    path.write_text(json.dumps({"weight_map": {"x": "../a.safetensors"}}))
    with pytest.raises(CheckpointError, match="is no file beside it"):
        read_weights(tmp_path)


def test_a_pickle_is_refused_under_any_name_and_never_opened(tmp_path):
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    marker = tmp_path / "ran"
    torch.save({"x": Bomb(str(marker))}, path)
    with pytest.raises(CheckpointError, match=r"is a pickle.*weights_only=True"):
        read_weights(tmp_path)
    torch.save({"x": Bomb(str(marker))}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="is a pickle"):
        read_weights(tmp_path)
    path.rename(tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="only as a pickle"):
        read_weights(tmp_path)
    assert not marker.exists()


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-10], "cut off"),
        (lambda data: data + b"x", "too long"),
        (lambda data: data[:4], "no safetensors"),
        (lambda data: data[:8] + b"?" + data[9:], "no safetensors"),
        (lambda data: data[:9] + b"?" + data[10:], "header is no list"),
    ],
)
def test_damaged_weights_are_named_in_one_line(tmp_path, damage, words):
    path = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(100)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=words):
        read_weights(tmp_path)


def test_a_folder_without_weights_or_with_too_many_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_weights(tmp_path)
    for variant in ("fp16", "ema"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"model.{variant}.safetensors")
    with pytest.raises(CheckpointError, match="several variants"):
        read_weights(tmp_path)
    (tmp_path / "model.ema.safetensors").unlink()
    assert list(read_weights(tmp_path)) == ["x"]
