import json
import stat

import pytest
import torch

from bottega import config
from bottega.conditioning import (
    TinyClipConfig,
    TinyT5Config,
    TokenizerConfig,
    build_clip,
    build_t5,
    save_t5,
    train_tokenizer,
)
from bottega.errors import ConfigError

SMALL = TinyT5Config(d_model=32, num_heads=2, d_ff=48, num_layers=2, num_decoder_layers=1)


def same_weights(first, second):
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_weights_follow_from_the_seed_and_leave_the_callers_randomness_alone(t5_tokenizer):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = build_t5(SMALL, t5_tokenizer, seed=5)
    assert torch.equal(torch.rand(4), expected)
    assert same_weights(first, build_t5(SMALL, t5_tokenizer, seed=5))
    assert not same_weights(first, build_t5(SMALL, t5_tokenizer, seed=6))


def test_the_shipped_sizes_stay_within_nine_million_weights(texts):
    words = [f"{a}{b}" for a in texts[0].split() for b in range(400)]
    tokenizer = train_tokenizer([*texts, *words], "t5", TokenizerConfig())
    t5 = build_t5(TinyT5Config(), tokenizer)
    clip = build_clip(TinyClipConfig(), train_tokenizer([*texts, *words], "clip"))
    missing = 2 * 256 * (2048 - len(tokenizer))  # as if both vocabularies were full
    total = sum(p.numel() for p in (*t5.encoder.parameters(), *clip.parameters())) + missing
    assert total <= 9e6


def test_what_is_saved_is_the_encoder_in_bf16_readable_by_all(t5_folder, clip_folder):
    from safetensors.torch import load_file

    weights = load_file(t5_folder / "model.safetensors")
    assert not [name for name in weights if "decoder" in name]
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    for folder in (t5_folder, clip_folder):
        for path in folder.iterdir():
            assert path.stat().st_mode & stat.S_IROTH
    preprocessing = json.loads((clip_folder / "preprocessor_config.json").read_text())
    assert preprocessing["crop_size"] == {"height": 16, "width": 16}


def test_saving_leaves_the_trained_model_as_it_was(t5_tokenizer, tmp_path):
    model = build_t5(SMALL, t5_tokenizer)
    before = build_t5(SMALL, t5_tokenizer)
    save_t5(model, t5_tokenizer, tmp_path / "deep" / "t5", dtype=torch.float32)
    assert same_weights(model, before)
    assert next(model.parameters()).dtype == torch.float32


def test_configurations_go_to_json_and_back():
    for original in (TinyT5Config(d_ff=96), TinyClipConfig(patch_px=16)):
        again = config.from_json(type(original), json.loads(config.dumps(original)))
        assert again == original


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: TinyT5Config(d_model=30), "d_model"),
        (lambda: TinyClipConfig(text_width=30), "text_width"),
        (lambda: TinyClipConfig(vision_heads=0), "vision_width"),
        (lambda: TinyClipConfig(patch_px=7), "patch_px"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused(make, name):
    with pytest.raises(ConfigError, match=name):
        make()


def test_half_of_a_new_t5s_heads_looks_back_and_half_ahead(t5_tokenizer):
    """Without a sense of before and after, "a cat left of a dog" and its reverse are one bag of words."""
    model = build_t5(SMALL, t5_tokenizer)
    bias = model.encoder.block[0].layer[0].SelfAttention.compute_bias(9, 9)[0, :, 4]
    for head, logits in enumerate(bias):
        before, after = logits[:4], logits[5:].flip(0)  # both from far to near
        near, away = (before, after) if head % 2 == 0 else (after, before)
        assert (near.diff() > 0).all()
        assert (near.min() > away).all()
    decoder = model.decoder.block[0].layer[0].SelfAttention.compute_bias(9, 9)[0, :, 8]
    assert (decoder.diff(dim=1) > 0).all()
