import pytest

from bottega.conditioning import find_phrase, phrase_tokens, tokens_of
from bottega.errors import InputError

PROMPT = "A red  cat to the left of a caterpillar, and a Cat"


@pytest.mark.parametrize(
    ("phrase", "occurrence", "found"),
    [("red cat", 0, "red  cat"), ("cat", 0, "cat"), ("CAT", 1, "Cat"), ("left of", 0, "left of")],
)
def test_a_phrase_is_found_as_whole_words_in_any_case_and_spacing(phrase, occurrence, found):
    start, end = find_phrase(PROMPT, phrase, occurrence=occurrence)
    assert PROMPT[start:end] == found
    assert not PROMPT[end : end + 1].isalnum()


def test_a_phrase_that_is_not_there_names_the_words_that_are():
    with pytest.raises(InputError, match="its words are: A, red, cat, to"):
        find_phrase(PROMPT, "dog")
    with pytest.raises(InputError, match="does not occur in the prompt, which has no words"):
        find_phrase("", "dog")


@pytest.mark.parametrize(("phrase", "occurrence"), [("cat", 2), ("cat", -1), (" ", 0)])
def test_phrases_that_mean_nothing_are_refused(phrase, occurrence):
    with pytest.raises(InputError):
        find_phrase(PROMPT, phrase, occurrence=occurrence)


def test_the_tokens_of_a_phrase_spell_it_in_every_stream(encoders):
    prompt = "a dog, a purpel elephant"
    encoded = encoders.encode_texts(["a cat", prompt])
    found = phrase_tokens(prompt, "purpel elephant", encoded, 1)
    assert set(found) == {"t5", "clip_text"}
    for name, tokens in found.items():
        spans = [encoded[name].offsets[1][token] for token in tokens]
        assert "".join(prompt[start:end] for start, end in spans) == "purpelelephant"
        assert encoded[name].stream.mask[1, list(tokens)].all()


def test_a_token_that_shares_no_letter_with_the_phrase_is_not_its_own():
    offsets = [(0, 0), (0, 3), (4, 7), (8, 12), (0, 0)]
    assert tokens_of((4, 7), offsets) == (2,)
    assert tokens_of((2, 9), offsets) == (1, 2, 3)
    assert tokens_of((13, 20), offsets) == ()


def test_a_phrase_that_was_cut_off_is_refused(encoders):
    prompt = "cat " * 30 + "dog"
    encoded = encoders.encode_texts([prompt])
    with pytest.raises(InputError, match="put it earlier"):
        phrase_tokens(prompt, "dog", encoded, 0)
