"""Tiny random models of the real classes, saved by diffusers and transformers as their own pipelines save them."""

import json
from pathlib import Path
from typing import Any

import torch

WIDTH = 32
WORDS = [
    "a",
    "the",
    "of",
    "to",
    "on",
    "in",
    "and",
    "left",
    "right",
    "red",
    "blue",
    "dog",
    "cat",
    "pizza",
    "car",
    "apple",
    "forest",
    "lake",
    "night",
    "day",
]

SD_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def randomized(module: Any, seed: int, spread: float = 0.05) -> Any:
    """The module with every parameter moved, so that what begins at zero says something too."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data += spread * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def clip_tokenizer(pad: str = "<|endoftext|>") -> Any:
    """A CLIP tokenizer that knows a few words, and all letters."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    vocab = {token: i for i, token in enumerate([*letters, *(f"{c}</w>" for c in letters)])}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
                vocab.setdefault("".join(pair), len(vocab))
            pieces = ["".join(pair), *pieces[2:]]
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocab[token] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77)


def write_old_clip_tokenizer(folder: Path, tokenizer: Any) -> None:
    """The files that the folders of 2022 hold: a vocabulary and merges, no tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    (folder / "vocab.json").write_text(json.dumps(state["model"]["vocab"]))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in state["model"]["merges"])]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "pad_token": str(tokenizer.pad_token),
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "add_prefix_space": False,
        "do_lower_case": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def t5_tokenizer() -> Any:
    """A T5 tokenizer that knows a few words, and all small letters."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(f"\u2581{word}", -3.0) for word in WORDS]
    known = {piece for piece, _ in pieces}
    pieces += [(c, -6.0) for c in "abcdefghijklmnopqrstuvwxyz,." if c not in known]
    return T5Tokenizer(vocab=pieces, extra_ids=4, model_max_length=77)


def clip_text_model(tokenizer: Any, seed: int, *, projection: bool = False, layers: int = 2) -> Any:
    """The text tower of Stable Diffusion, or with a projection that of SDXL's second encoder."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=37,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def t5_encoder(tokenizer: Any, seed: int) -> Any:
    """The encoder half of a T5 v1.1."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    torch.manual_seed(seed)
    return T5EncoderModel(config).eval()


def autoencoder(seed: int = 3) -> Any:
    """An AutoencoderKL whose latents are half as wide as its pictures."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=16,
        scaling_factor=0.18215,
    ).eval()


def sd_unet(seed: int = 1, **changes: Any) -> Any:
    """A U-Net of Stable Diffusion's kind for latents of 8 x 8."""
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
    }
    torch.manual_seed(seed)
    return randomized(UNet2DConditionModel(**{**settings, **changes}), seed)


def save_sd(folder: Path, *, scheduler: Any = None, prediction: str = "epsilon") -> Path:
    """A StableDiffusionPipeline of 1.x, or with v_prediction of 2.x."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    tokenizer = clip_tokenizer()
    changes = {} if prediction == "epsilon" else {"use_linear_projection": True}
    if scheduler is None:
        scheduler = PNDMScheduler(
            **SD_BETAS, skip_prk_steps=True, steps_offset=1, prediction_type=prediction
        )
    StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=clip_text_model(tokenizer, 5),
        tokenizer=tokenizer,
        unet=sd_unet(**changes),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_sdxl(folder: Path, *, refiner: bool = False) -> Path:
    """A StableDiffusionXLPipeline, or the img2img pipeline of its refiner."""
    from diffusers import (
        EulerDiscreteScheduler,
        StableDiffusionXLImg2ImgPipeline,
        StableDiffusionXLPipeline,
    )

    tokenizers = (clip_tokenizer(), clip_tokenizer(pad="!"))
    numbers = 5 if refiner else 6
    width = WIDTH if refiner else 2 * WIDTH
    unet = sd_unet(
        cross_attention_dim=width,
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * numbers + WIDTH,
    )
    parts: dict[str, Any] = {
        "vae": autoencoder(),
        "text_encoder": None if refiner else clip_text_model(tokenizers[0], 5),
        "tokenizer": None if refiner else tokenizers[0],
        "text_encoder_2": clip_text_model(tokenizers[1], 6, projection=True, layers=3),
        "tokenizer_2": tokenizers[1],
        "unet": unet,
        "scheduler": EulerDiscreteScheduler(**SD_BETAS, steps_offset=1, timestep_spacing="leading"),
    }
    if refiner:
        StableDiffusionXLImg2ImgPipeline(**parts, requires_aesthetics_score=True).save_pretrained(
            folder
        )
    else:
        StableDiffusionXLPipeline(**parts).save_pretrained(folder)
    return folder


def if_unet(stage: int, seed: int = 1) -> Any:
    """A U-Net of DeepFloyd IF's first or second stage."""
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": 16 if stage == 1 else 32,
        "layers_per_block": 1,
        "block_out_channels": [32, 64],
        "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "in_channels": 3,
        "out_channels": 6,
        "cross_attention_dim": WIDTH,
        "encoder_hid_dim": WIDTH,
        "attention_head_dim": 8,
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 2,
        "cross_attention_norm": "group_norm",
        "resnet_time_scale_shift": "scale_shift",
        "act_fn": "gelu",
    }
    if stage == 2:
        settings |= {
            "in_channels": 6,
            "class_embed_type": "timestep",
            "mid_block_scale_factor": 1.414,
            "resnet_skip_time_act": True,
            "resnet_out_scale_factor": 1.414,
            "time_embedding_act_fn": "gelu",
            "only_cross_attention": [True, False],
        }
    torch.manual_seed(seed)
    unet = randomized(UNet2DConditionModel(**settings), seed)
    # As smooth as a trained network: else ten steps at guidance 7 make 1e-2 of a rounding, in diffusers alone too.
    unet.conv_out.weight.data *= 0.2
    return unet


def if_scheduler(cap: float, variance_type: str = "learned_range") -> Any:
    """The scheduler of IF's stages: cosine, thresholded."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=cap,
        variance_type=variance_type,
    )


def save_if(folder: Path, *, stage: int = 1, variance_type: str = "learned_range") -> Path:
    """An IFPipeline, or the IFSuperResolutionPipeline after it, which comes without a text encoder."""
    from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline

    nothing = {
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
        "requires_safety_checker": False,
    }
    if stage == 1:
        tokenizer = t5_tokenizer()
        IFPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_encoder(tokenizer, 7),
            unet=if_unet(1),
            scheduler=if_scheduler(1.5, variance_type),
            **nothing,
        ).save_pretrained(folder)
    else:
        IFSuperResolutionPipeline(
            tokenizer=None,
            text_encoder=None,
            unet=if_unet(2, seed=2),
            scheduler=if_scheduler(1.0, variance_type),
            image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            **nothing,
        ).save_pretrained(folder)
    return folder
