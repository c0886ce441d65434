import json

import pytest

from bottega.conditioning import TokenizerConfig, train_tokenizer
from bottega.conditioning.tokenizers import load_tokenizer, sentinel
from bottega.errors import ConfigError


def pieces(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return tokenizer.convert_ids_to_tokens(ids)


def test_the_same_texts_always_give_the_same_tokenizer(texts, t5_tokenizer):
    again = train_tokenizer(texts, "t5", TokenizerConfig(vocab_size=512, max_tokens=16))
    first, second = (json.loads(t.backend_tokenizer.to_str()) for t in (t5_tokenizer, again))
    assert first["model"] == second["model"]


@pytest.mark.parametrize("word", ["elephant", "umbrella", "banana", "pizza"])
def test_a_word_that_is_often_read_is_one_piece(clip_tokenizer, word):
    assert len(pieces(clip_tokenizer, word)) == 1


@pytest.mark.parametrize(
    ("slip", "word"), [("elefant", "elephant"), ("umbrela", "umbrella"), ("bananna", "banana")]
)
def test_a_misspelt_word_has_pieces_that_spell_it_and_none_is_unknown(t5_tokenizer, slip, word):
    found = pieces(t5_tokenizer, f"a {slip}")
    assert t5_tokenizer.unk_token not in found
    assert "".join(found).replace("Ġ", " ").strip() == f"a {slip}"
    longest = max((piece.strip("Ġ") for piece in found), key=len)
    assert len(longest) >= 2
    assert longest in word


@pytest.mark.parametrize("text", ["naïve 猫 🍕", "tab\tand\nline", "1234!?", "\u200b"])
def test_no_text_is_unknown(t5_tokenizer, clip_tokenizer, text):
    for tokenizer in (t5_tokenizer, clip_tokenizer):
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids


def test_case_and_spacing_do_not_matter(clip_tokenizer):
    assert pieces(clip_tokenizer, "  A RED\n cat ") == pieces(clip_tokenizer, "a red cat")


def test_t5_ends_texts_and_clip_brackets_them(t5_tokenizer, clip_tokenizer):
    assert t5_tokenizer("cat").input_ids[-1] == t5_tokenizer.eos_token_id
    ids = clip_tokenizer("cat").input_ids
    assert (ids[0], ids[-1]) == (clip_tokenizer.bos_token_id, clip_tokenizer.eos_token_id)
    # transformers pools at the largest id instead of the end token when that is number 2
    assert clip_tokenizer.eos_token_id != 2


def test_sentinels_are_single_tokens(t5_tokenizer):
    assert pieces(t5_tokenizer, sentinel(3)) == [sentinel(3)]


def test_a_saved_tokenizer_reads_the_same(tmp_path, texts, t5_tokenizer):
    t5_tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert again(texts[:50]).input_ids == t5_tokenizer(texts[:50]).input_ids
    assert again.model_max_length == 16
    assert again.pad_token_id == t5_tokenizer.pad_token_id


@pytest.mark.parametrize(
    ("setting", "value"), [("vocab_size", 300), ("max_tokens", 3), ("num_sentinels", 0)]
)
def test_sizes_that_cannot_work_are_refused_by_name(setting, value):
    with pytest.raises(ConfigError, match=setting):
        TokenizerConfig(**{setting: value})
