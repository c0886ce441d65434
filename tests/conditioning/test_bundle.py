import warnings

import pytest
import torch

from bottega.conditioning import Encoders, TruncationWarning
from bottega.errors import ConfigError, InputError


def picture(seed, size=(16, 16)):
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_condition_has_every_stream(encoders):
    condition = encoders.condition(["a cat", "a dog"])
    assert set(condition.streams) == {"t5", "clip_text", "clip_image"} == set(encoders.names)
    for name, stream in condition.streams.items():
        assert stream.tokens.shape[2] == encoders.widths[name]
        width = None if stream.pooled is None else stream.pooled.shape[1]
        assert width == encoders.pooled_widths.get(name)
    assert set(encoders.digests) == set(encoders.names)


def test_without_a_picture_its_stream_is_one_silent_token(encoders):
    stream = encoders.condition(["a cat"]).streams["clip_image"]
    assert stream.tokens.shape[:2] == (1, 1)
    assert not stream.mask.any()
    assert (stream.tokens == 0).all()
    assert (stream.pooled == 0).all()


def test_pictures_of_any_size_stand_beside_absent_ones(encoders):
    pictures = [picture(0), None, picture(1, (40, 24))]
    stream = encoders.condition(["a", "b", "c"], pictures=pictures).streams["clip_image"]
    assert stream.mask[:, 0].tolist() == [True, False, True]
    alone = encoders.condition(["c"], pictures=pictures[2:]).streams["clip_image"]
    assert torch.equal(stream.tokens[2], alone.tokens[0])
    assert torch.equal(stream.pooled[2], alone.pooled[0])
    assert (stream.pooled[1] == 0).all()


def test_streams_that_are_not_used_are_silent_and_not_missing(encoders):
    condition = encoders.condition(["a cat"], pictures=[picture(0)], use=["t5"])
    assert condition.streams["t5"].mask.any()
    for name in ("clip_text", "clip_image"):
        stream = condition.streams[name]
        assert not stream.mask.any()
        assert (stream.tokens == 0).all()
        assert (stream.pooled == 0).all()


def test_using_nothing_is_the_null_condition(encoders):
    nothing, null = encoders.condition(["a cat"], use=[]), encoders.condition(["a cat"]).null()
    for name, stream in nothing.streams.items():
        assert torch.equal(stream.tokens, null.streams[name].tokens)
        assert torch.equal(stream.mask, null.streams[name].mask)


def test_an_empty_prompt_is_the_null_condition(encoders):
    empty, null = encoders.condition([""]), encoders.condition(["a cat"]).null()
    for name, stream in empty.streams.items():
        assert torch.equal(stream.tokens, null.streams[name].tokens)
        assert torch.equal(stream.mask, null.streams[name].mask)


def test_an_unknown_stream_is_refused_with_the_nearest(encoders):
    with pytest.raises(InputError, match="did you mean clip_text"):
        encoders.condition(["a cat"], use=["clip_txt"])


def test_pictures_must_match_the_texts_in_number(encoders):
    with pytest.raises(InputError, match="expected 2 pictures"):
        encoders.condition(["a", "b"], pictures=[None])


def test_a_prompt_that_is_too_long_is_reported_with_how_much_was_cut(encoders):
    with pytest.warns(TruncationWarning, match=r"clip_text.*the last 9,982 are not seen"):
        encoders.condition(["cat " * 10_000], use=["clip_text"])


def test_a_prompt_that_fits_is_not_reported(encoders):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoders.condition(["a red cat"])


def test_cached_streams_and_pictures_make_the_same_condition(encoders):
    pictures = [picture(0), None]
    direct = encoders.condition(["a cat", "a dog"], pictures=pictures)
    texts = {n: e.stream for n, e in encoders.encode_texts(["a cat", "a dog"]).items()}
    joined = encoders.with_pictures(texts, pictures)
    assert set(joined.streams) == set(direct.streams)
    for name, stream in joined.streams.items():
        torch.testing.assert_close(stream.tokens, direct.streams[name].tokens)


def test_any_encoder_may_be_absent(t5_folder, clip_folder):
    only_t5 = Encoders.load(folder_t5=t5_folder, max_tokens={"t5": 10})
    condition = only_t5.condition(["a cat"])
    assert set(condition.streams) == {"t5"} == set(only_t5.widths) == set(only_t5.digests)
    assert condition.streams["t5"].tokens.shape[1] == 10
    assert only_t5.pooled_widths == {}
    with pytest.raises(InputError, match="no image tower"):
        only_t5.condition(["a cat"], pictures=[picture(0)])
    assert Encoders.load(folder_clip=clip_folder).names == ("clip_text", "clip_image")


def test_moving_moves_every_encoder(t5_folder, clip_folder):
    encoders = Encoders.load(folder_t5=t5_folder, folder_clip=clip_folder)
    assert encoders.to(dtype=torch.bfloat16) is encoders
    models = [encoder.model for encoder in (*encoders.texts.values(), encoders.image)]
    assert all(next(model.parameters()).dtype == torch.bfloat16 for model in models)
    only_t5 = Encoders.load(folder_t5=t5_folder).to("cpu")
    assert only_t5.texts["t5"].device.type == "cpu"


def test_two_encoders_of_one_name_are_refused(encoders):
    with pytest.raises(ConfigError, match="share a name"):
        Encoders([encoders.texts["t5"], encoders.texts["t5"]])
