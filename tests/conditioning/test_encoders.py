import json
import shutil

import pytest
import torch
import torch.nn.functional as F

from bottega.conditioning import load_clip_image, load_clip_text, load_t5
from bottega.errors import CheckpointError, InputError


@pytest.fixture(params=["t5", "clip_text"])
def encoder(request, encoders):
    return encoders.texts[request.param]


def test_every_text_takes_the_same_number_of_tokens(encoder):
    stream = encoder.encode(["a cat", "a red cat to the left of a blue dog"]).stream
    assert stream.tokens.shape == (2, encoder.max_tokens, encoder.width)
    assert stream.mask.shape == (2, encoder.max_tokens)
    used = stream.mask.sum(dim=1)
    assert used[0] < used[1] < encoder.max_tokens


def test_features_of_padding_are_zero_and_of_real_tokens_are_not(encoder):
    stream = encoder.encode(["a red cat"]).stream
    assert (stream.tokens[~stream.mask] == 0).all()
    assert (stream.tokens[stream.mask].abs().sum(dim=-1) > 0).all()


def test_a_text_is_the_same_to_the_last_bit_in_any_company(encoder, texts):
    alone = encoder.encode([texts[3]]).stream
    together = encoder.encode(texts[:7]).stream
    assert torch.equal(together.tokens[3], alone.tokens[0])
    assert torch.equal(together.mask[3], alone.mask[0])
    if alone.pooled is not None:
        assert torch.equal(together.pooled[3], alone.pooled[0])


def test_encoding_many_at_once_differs_by_rounding_only(encoder, texts):
    one, many = encoder.encode(texts[:9]).stream, encoder.encode(texts[:9], rows=4).stream
    torch.testing.assert_close(many.tokens, one.tokens, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("blank", ["", "   ", "\n"])
def test_a_blank_text_says_nothing(encoder, blank):
    stream = encoder.encode(["a cat", blank]).stream
    assert not stream.mask[1].any()
    assert (stream.tokens[1] == 0).all()
    if stream.pooled is not None:
        assert (stream.pooled[1] == 0).all()


def test_no_texts_give_an_empty_stream(encoder):
    assert encoder.encode([]).stream.tokens.shape == (0, encoder.max_tokens, encoder.width)


def test_offsets_point_at_the_letters_of_each_token(encoder):
    text = "A  Red umbrela,\tleft of 🍕 dogs"
    encoded = encoder.encode([text])
    spans = [span for span in encoded.offsets[0] if span != (0, 0)]
    assert len(encoded.offsets[0]) == encoder.max_tokens
    covered = {at for start, end in spans for at in range(start, end)}
    assert covered == {at for at, letter in enumerate(text) if not letter.isspace()}
    assert all(text[start:end].strip() == text[start:end] for start, end in spans)
    assert [text[a:b] for a, b in spans][:2] == ["A", "Red"]


def test_what_was_cut_off_is_counted_exactly(encoder):
    words = 40
    tokenized = encoder.tokenize(["a cat", "cat " * words])
    specials = 1 if encoder.name == "t5" else 2
    assert tokenized.truncated == (0, words - (encoder.max_tokens - specials))
    assert tokenized.mask[1].all()


def test_a_very_long_text_is_cut_and_still_ends(encoder):
    encoded = encoder.encode(["cat " * 10_000])
    assert encoded.stream.mask.all()
    assert encoded.truncated[0] > 9_900
    assert encoded.offsets[0][-1] == (0, 0)  # the end token is kept


def test_rows_below_one_are_refused(encoder, encoders):
    with pytest.raises(InputError, match="rows"):
        encoder.encode(["a cat"], rows=0)
    with pytest.raises(InputError, match="rows"):
        encoders.image.encode(torch.zeros(1, 3, 16, 16), rows=0)


def test_t5_features_are_those_of_transformers(encoders, t5_folder, t5_tokenizer):
    from transformers import T5EncoderModel

    model = T5EncoderModel.from_pretrained(t5_folder, dtype=torch.float32).eval()
    inputs = t5_tokenizer(["a red cat"], padding="max_length", return_tensors="pt")
    with torch.inference_mode():
        expected = model(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask
        ).last_hidden_state
    stream = encoders.texts["t5"].encode(["a red cat"]).stream
    real = inputs.attention_mask.bool()
    assert torch.equal(stream.mask, real)
    torch.testing.assert_close(stream.tokens[real], expected[real])
    assert stream.pooled is None


@pytest.mark.parametrize("layer", ["last", "penultimate"])
def test_clip_features_are_those_of_transformers(clip_folder, clip_tokenizer, layer):
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(clip_folder, dtype=torch.float32).eval()
    ids = clip_tokenizer(["a red cat"], padding="max_length", return_tensors="pt").input_ids
    with torch.inference_mode():
        output = model.text_model(input_ids=ids, output_hidden_states=True)
        vector = model.get_text_features(input_ids=ids).pooler_output
        hidden = model.text_model.final_layer_norm(output.hidden_states[-2])
    expected = output.last_hidden_state if layer == "last" else hidden
    stream = load_clip_text(clip_folder, layer=layer).encode(["a red cat"]).stream
    torch.testing.assert_close(stream.tokens[stream.mask], expected[stream.mask])
    torch.testing.assert_close(F.normalize(stream.pooled), F.normalize(vector))
    torch.testing.assert_close(stream.pooled.square().mean(dim=1), torch.ones(1))


def test_pictures_are_encoded_as_transformers_does(encoders, clip_folder):
    from transformers import CLIPModel

    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = CLIPModel.from_pretrained(clip_folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = model.get_image_features(pixel_values=images).pooler_output
    stream = encoders.image.encode(images)
    assert stream.mask.all()
    torch.testing.assert_close(F.normalize(stream.pooled), F.normalize(expected))
    assert torch.equal(stream.tokens[:, 0], stream.pooled)


def test_a_picture_is_the_same_to_the_last_bit_in_any_company(encoders):
    images = torch.rand(5, 3, 40, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    together, alone = encoders.image.encode(images), encoders.image.encode(images[2:3])
    assert torch.equal(together.tokens[2], alone.tokens[0])


def test_digests_follow_weights_and_settings(t5_folder, clip_folder, tmp_path):
    first = load_t5(t5_folder)
    assert load_t5(t5_folder).digest == first.digest
    assert load_t5(t5_folder, max_tokens=12).digest != first.digest
    assert load_clip_text(clip_folder).digest != load_clip_image(clip_folder).digest
    assert load_clip_text(clip_folder).digest != load_clip_text(clip_folder, layer="last").digest
    copy = tmp_path / "copy"
    shutil.copytree(t5_folder, copy)
    assert load_t5(copy).digest == first.digest
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert load_t5(copy).digest != first.digest
    for load, folder in ((load_t5, t5_folder), (load_clip_image, clip_folder)):
        encoder = load(folder)
        exact = encoder.digest
        rounded = encoder.to(dtype=torch.bfloat16).digest
        assert rounded == load(folder, dtype=torch.bfloat16).digest != exact
        assert encoder.to(dtype=torch.float32).digest == exact


def test_what_encoders_say_can_be_trained_on(encoders):
    streams = encoders.condition(["a cat"], pictures=[torch.zeros(3, 16, 16)]).streams
    for stream in streams.values():
        layer = torch.nn.Linear(stream.tokens.shape[2], 1)
        layer(stream.tokens).sum().backward()  # refused for tensors made in inference mode
        assert layer.weight.grad is not None
        assert not stream.tokens.requires_grad


def test_pickled_weights_are_refused(t5_folder, tmp_path):
    from safetensors.torch import load_file

    copy = tmp_path / "t5"
    shutil.copytree(t5_folder, copy)
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read as a T5EncoderModel"):
        load_t5(copy)


def test_moving_an_encoder_changes_what_it_computes_in_and_not_what_it_returns(t5_folder):
    encoder = load_t5(t5_folder)
    exact = encoder.encode(["a cat"]).stream.tokens
    rounded = encoder.to(dtype=torch.bfloat16).encode(["a cat"]).stream.tokens
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.1, rtol=0.1)


def test_lengths_that_the_encoder_cannot_read_are_refused(t5_folder, clip_folder):
    with pytest.raises(InputError, match="between 2 and 20"):
        load_clip_text(clip_folder, max_tokens=21)
    with pytest.raises(InputError, match="max_tokens"):
        load_t5(t5_folder, max_tokens=1)


def test_a_tokenizer_that_states_no_limit_gives_t5_its_usual_length(t5_folder, tmp_path):
    shutil.copytree(t5_folder, tmp_path / "t5")
    path = tmp_path / "t5" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["model_max_length"]
    path.write_text(json.dumps(settings))
    assert load_t5(tmp_path / "t5").max_tokens == 113


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        load_t5(tmp_path / "nowhere")


def test_damaged_weights_are_refused(t5_folder, tmp_path):
    copy = tmp_path / "t5"
    shutil.copytree(t5_folder, copy)
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="cannot be read as a T5EncoderModel"):
        load_t5(copy)


def test_missing_weights_are_refused_and_named(clip_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "clip"
    shutil.copytree(clip_folder, copy)
    weights = load_file(copy / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="text_projection"):
        load_clip_text(copy)
    load_clip_image(copy)  # the other tower is whole


def test_a_folder_without_a_tokenizer_is_refused(t5_folder, tmp_path):
    copy = tmp_path / "t5"
    shutil.copytree(t5_folder, copy)
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_t5(copy)


def test_a_tokenizer_without_padding_is_refused(t5_folder, tmp_path):
    copy = tmp_path / "t5"
    shutil.copytree(t5_folder, copy)
    path = copy / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"pad_token": "<pad>"', '"pad_token": null'))
    with pytest.raises(CheckpointError, match="padding token"):
        load_t5(copy)


def test_reading_an_encoder_prints_nothing(t5_folder, clip_folder, capfd):
    load_t5(t5_folder)
    load_clip_text(clip_folder)
    load_clip_image(clip_folder)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_old_clip_tokenizer_files_are_read_too(clip_folder, tmp_path):
    copy = tmp_path / "clip"
    shutil.copytree(clip_folder, copy)
    (copy / "tokenizer.json").unlink()
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(c + "</w>" for c in letters), "ca", "cat</w>"]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (copy / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (copy / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 20}
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["eos_token_id"] = words.index("<|endoftext|>")
    (copy / "config.json").write_text(json.dumps(config))
    encoded = load_clip_text(copy).encode(["a Cat"])
    assert [span for span in encoded.offsets[0] if span != (0, 0)] == [(0, 1), (2, 5)]
    assert encoded.stream.mask.sum() == 4
