import difflib
import random

from bottega.conditioning.misspelling import misspell


def test_one_word_is_spoilt_a_little_and_the_rest_stays():
    text = "a yellow banana left of an elephant"
    for seed in range(200):
        spoilt = misspell(text, random.Random(seed))
        changed = [(a, b) for a, b in zip(text.split(), spoilt.split(), strict=True) if a != b]
        assert len(changed) <= 1
        for before, after in changed:
            assert after[0] == before[0]
            assert abs(len(after) - len(before)) <= 1
            assert difflib.SequenceMatcher(None, before, after).ratio() > 0.6


def test_most_draws_change_something_and_all_kinds_of_slip_occur():
    results = {misspell("banana", random.Random(seed)) for seed in range(300)}
    assert {len(word) for word in results} == {5, 6, 7}
    assert "bnaana" in results


def test_the_same_randomness_makes_the_same_slip():
    text = "three purple umbrellas"
    assert misspell(text, random.Random(5)) == misspell(text, random.Random(5))


def test_texts_without_longer_words_stay():
    assert misspell("a cat", random.Random(0)) == "a cat"
    assert misspell("", random.Random(0)) == ""
