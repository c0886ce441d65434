"""The small encoders of piccolo: configurations, and the untrained transformers models they describe."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bottega.conditioning.pretrained import quiet
from bottega.errors import ConfigError
from bottega.rundir import as_others

_AWAY = -3.0  # what a logit of T5 loses at first on the side its head does not look to
_SLOPES = (1.0, 0.25)  # what it loses per unit of log distance, for one pair of heads and the next


@dataclass(frozen=True, kw_only=True)
class TinyT5Config:
    """A T5 v1.1 small enough for a laptop: an encoder, and a shallow decoder that only training uses."""

    d_model: int = 256
    num_heads: int = 4
    d_ff: int = 512
    num_layers: int = 4
    num_decoder_layers: int = 2

    def __post_init__(self) -> None:
        _check_heads(self.d_model, self.num_heads, "d_model")


@dataclass(frozen=True, kw_only=True)
class TinyClipConfig:
    """A CLIP small enough for a laptop: a text tower and an image tower that meet in one space."""

    text_width: int = 256
    text_layers: int = 4
    text_heads: int = 4
    text_ff: int = 512
    vision_width: int = 192
    vision_layers: int = 6
    vision_heads: int = 4
    vision_ff: int = 768
    image_size_px: int = 64
    patch_px: int = 16
    projection: int = 256

    def __post_init__(self) -> None:
        _check_heads(self.text_width, self.text_heads, "text_width")
        _check_heads(self.vision_width, self.vision_heads, "vision_width")
        if self.image_size_px % self.patch_px:
            raise ConfigError(
                f"image_size_px must be a multiple of patch_px, got {self.image_size_px} and {self.patch_px}"
            )


def build_t5(config: TinyT5Config, tokenizer: Any, *, seed: int = 0) -> Any:
    """An untrained ``T5ForConditionalGeneration``; its encoder is what is kept after training.

    Dropout is off, so that every random draw of training comes from the objective's generator.
    """
    from transformers import T5Config, T5ForConditionalGeneration

    make_config: Any = T5Config  # its signature leaves out what it takes for every model
    settings = make_config(
        vocab_size=len(tokenizer),
        d_model=config.d_model,
        d_kv=config.d_model // config.num_heads,
        d_ff=config.d_ff,
        num_layers=config.num_layers,
        num_decoder_layers=config.num_decoder_layers,
        num_heads=config.num_heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=False,
        decoder_start_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    with _seeded(seed):
        model: Any = T5ForConditionalGeneration(settings)
    for stack in (model.encoder, model.decoder):
        _look_one_way(stack.block[0].layer[0].SelfAttention)
    return model


@torch.no_grad()
def _look_one_way(attention: Any) -> None:
    """Start every other head with a preference for what came before, the rest for what comes after, near things first.

    These biases are all that T5 knows of order. Drawn near zero they hardly move in a few thousand steps of AdamW, and
    the encoder stays a bag of words; from here, who stands left of whom is learned within minutes. In a decoder, which
    has nothing after, all heads look back.
    """
    table = attention.relative_attention_bias.weight  # buckets, heads
    reach = attention.relative_attention_max_distance
    buckets = attention.relative_attention_num_buckets
    both = not attention.is_decoder
    distance = torch.arange(-reach, reach + 1 if both else 1)
    bucket = attention._relative_position_bucket(distance[:, None], both, buckets, reach)[:, 0]
    for head in range(table.shape[1]):
        away = distance > 0 if head % 2 == 0 else distance < 0
        start = -_SLOPES[head // 2 % len(_SLOPES)] * distance.abs().add(1).log()
        if both:
            start = start.masked_fill(away, _AWAY)
        # a bucket of many distances begins at the mean of what they begin at
        sums = torch.zeros(buckets).index_add(0, bucket, start)
        counts = torch.zeros(buckets).index_add(0, bucket, torch.ones_like(start))
        table[:, head] = sums / counts.clamp(min=1)


def build_clip(config: TinyClipConfig, tokenizer: Any, *, seed: int = 0) -> Any:
    """An untrained ``CLIPModel`` with both towers."""
    from transformers import CLIPConfig, CLIPModel

    make_config: Any = CLIPConfig  # its signature leaves out what it takes for every model
    settings = make_config(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": config.text_width,
            "intermediate_size": config.text_ff,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": config.text_heads,
            "max_position_embeddings": tokenizer.model_max_length,
            "projection_dim": config.projection,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "hidden_size": config.vision_width,
            "intermediate_size": config.vision_ff,
            "num_hidden_layers": config.vision_layers,
            "num_attention_heads": config.vision_heads,
            "image_size": config.image_size_px,
            "patch_size": config.patch_px,
            "projection_dim": config.projection,
        },
        projection_dim=config.projection,
        attn_implementation="eager",
    )
    with _seeded(seed):
        return CLIPModel(settings)


def save_t5(
    model: Any, tokenizer: Any, folder: Path | str, *, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write the encoder of a T5 and its tokenizer as a Hugging Face folder; the decoder is left out."""
    from transformers import T5Config, T5EncoderModel

    settings = T5Config.from_dict({**model.config.to_dict(), "architectures": ["T5EncoderModel"]})
    encoder = T5EncoderModel(settings)
    encoder.encoder.load_state_dict(model.encoder.state_dict())
    encoder.shared.load_state_dict(model.shared.state_dict())
    _save(encoder, tokenizer, folder, dtype)


def save_clip(
    model: Any, tokenizer: Any, folder: Path | str, *, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write both towers of a CLIP, its tokenizer and its picture preprocessing as a Hugging Face folder."""
    import json

    from transformers import CLIPModel

    copy = CLIPModel(model.config)
    copy.load_state_dict(model.state_dict())
    _save(copy, tokenizer, folder, dtype)
    size = int(model.config.vision_config.image_size)
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_convert_rgb": True,
    }
    text = json.dumps(preprocessing, indent=2) + "\n"
    (Path(folder) / "preprocessor_config.json").write_text(text, encoding="utf-8")


def _save(model: Any, tokenizer: Any, folder: Path | str, dtype: torch.dtype) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    with quiet():
        model.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for path in Path(folder).iterdir():
        as_others(path)


def _check_heads(width: int, heads: int, name: str) -> None:
    if heads < 1 or width % heads:
        raise ConfigError(f"{name} must be a multiple of its {heads} heads, got {width}")


@contextmanager
def _seeded(seed: int) -> Generator[None, None, None]:
    """Weights drawn inside depend on the seed alone, and the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


__all__ = ["TinyClipConfig", "TinyT5Config", "build_clip", "build_t5", "save_clip", "save_t5"]
