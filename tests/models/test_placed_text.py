"""The text that pictures with regions read, made ready once: the same numbers as written out, for less work."""

import pytest
import torch
from tiny_networks import awake, some_condition, some_noise, tiny

from bottega.models import LargestLogit, LogitDeviation, PlacedPhrase, PlacedPhrases
from bottega.models.attention import KeysValues, attend
from bottega.models.placed_text import PlacedText

WEIGHTS = [LargestLogit(), LargestLogit(per_head=True), LogitDeviation()]


def phrase(strength: float = 2.0) -> PlacedPhrase:
    mask = torch.zeros(16, 16)
    mask[:, :8] = 1
    return PlacedPhrase(tokens={"t5": (0, 2), "clip_text": (1,)}, mask=mask, strength=strength)


def levels(count: int, sigma: float = 9.0) -> torch.Tensor:
    return torch.full((count,), sigma)


def some_text(padded: list[int]) -> tuple[KeysValues, torch.Tensor]:
    """Text of 12 keys for some pictures, with so many keys of padding, which would be the largest."""
    torch.manual_seed(0)
    keys, values = torch.randn(len(padded), 2, 12, 16), torch.randn(len(padded), 2, 12, 16)
    mask = torch.ones(len(padded), 1, 1, 12, dtype=torch.bool)
    for row, count in enumerate(padded):
        mask[row, ..., 12 - count :] = False
        keys[row, :, 12 - count :] = 100.0
    return KeysValues(keys, values), mask


@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_made_ready_says_what_the_whole_text_says(weight, dtype):
    """A call that gives its maps has everything written out, over all keys."""
    network = awake(tiny()).to(dtype)
    x, c_noise = some_noise(3)
    context = network.prepare(some_condition(3))
    bias = PlacedPhrases({0: [phrase(8.0)], 2: [phrase(4.0)]}, weight).at(levels(3))
    with torch.no_grad():
        ready = network(x, c_noise, context.with_bias(bias))
        written_out = network(x, c_noise, context.with_bias(bias), maps=[])
        plain = network(x, c_noise, context)
    share = 0.002 if dtype == torch.float32 else 0.5  # of what the regions change
    for row in (0, 2):
        changed = (written_out[row] - plain[row]).norm()
        assert 0 < (ready[row] - written_out[row]).norm() < share * changed


def test_text_is_made_ready_once_per_layer_and_anew_for_another_prompt(monkeypatch):
    made = []
    of = PlacedText.of

    def counted(*arguments):
        made.append(arguments)
        return of(*arguments)

    monkeypatch.setattr(PlacedText, "of", staticmethod(counted))
    network = awake(tiny())
    x, c_noise = some_noise(2)
    phrases = PlacedPhrases({0: [phrase()]}, LargestLogit())
    first, second = network.prepare(some_condition(2)), network.prepare(some_condition(2, seed=2))
    with torch.no_grad():
        for sigma in (9.0, 3.0, 1.0):
            said = network(x, c_noise, first.with_bias(phrases.at(levels(2, sigma))))
        assert len(made) == len(first.layers)
        other = network(x, c_noise, second.with_bias(phrases.at(levels(2, 1.0))))
        assert len(made) == 2 * len(first.layers)
        again = network(x, c_noise, first.with_bias(phrases.at(levels(2, 1.0))))
    assert torch.equal(again, said) and not torch.equal(other, said)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_picture_with_regions_is_the_same_to_the_last_bit_whoever_has_regions_beside_it(dtype):
    network = awake(tiny()).to(dtype)
    x, c_noise = some_noise(4)
    context = network.prepare(some_condition(4))
    with torch.no_grad():
        said = [
            network(
                x,
                c_noise,
                context.with_bias(
                    PlacedPhrases({r: [phrase(r + 1.0)] for r in rows}, LargestLogit()).at(
                        levels(4)
                    )
                ),
            )
            for rows in ([2], [2, 3], [0, 2], [0, 1, 2, 3])
        ]
    for other in said[1:]:
        assert torch.equal(other[2], said[0][2])


@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
def test_pictures_read_together_read_what_each_reads_alone(weight):
    """Together, as on a GPU: one picture's padding is hidden from it where another has a word."""
    text, mask = some_text([2, 6])
    query, places = torch.randn(2, 2, 9, 16), torch.rand(2, 1, 9, 12)
    factors = (1.5, 0.4)
    together = PlacedText.of(text, mask, (0, 1), places)
    assert together.keys.shape[-1] == 10  # what is padding for both is left out
    heads, weights = together.read(query, weight.of, factors)
    everywhere = together.over_all_keys(weights)
    assert torch.equal(everywhere == 0, ~mask.expand_as(everywhere))
    for row in range(2):
        alone = PlacedText.of(text, mask, (row,), places[row : row + 1])
        own, own_weights = alone.read(query[row : row + 1], weight.of, (factors[row],))
        torch.testing.assert_close(heads[row], own[0])
        torch.testing.assert_close(everywhere[row], alone.over_all_keys(own_weights)[0])


def test_a_text_without_padding_is_kept_whole():
    text, mask = some_text([0])
    query, places = torch.randn(1, 2, 9, 16), torch.rand(1, 1, 9, 12)
    whole = PlacedText.of(text, None, (0,), places)
    said, weights = whole.read(query, LargestLogit().of, (1.0,))
    assert whole.over_all_keys(weights) is weights
    masked = PlacedText.of(text, mask, (0,), places).read(query, LargestLogit().of, (1.0,))[0]
    assert torch.equal(said, masked)


def test_a_largest_logit_below_zero_adds_nothing():
    text, mask = some_text([2])
    query = -torch.ones(1, 2, 9, 16)
    text = KeysValues(text.keys.abs(), text.values)
    ready = PlacedText.of(text, mask, (0,), torch.rand(1, 1, 9, 12))
    plain = attend(query, text.keys, text.values, mask)
    torch.testing.assert_close(ready.read(query, LargestLogit().of, (3.0,))[0], plain)


def test_gradients_go_through_regions():
    network = awake(tiny())
    x, c_noise = some_noise(2)
    phrases = PlacedPhrases({1: [phrase()]}, LargestLogit())
    context = network.prepare(some_condition(2)).with_bias(phrases.at(levels(2)))
    said = network(x, c_noise, context)
    with torch.no_grad():
        torch.testing.assert_close(said, network(x, c_noise, context), rtol=1e-4, atol=1e-4)
    said.square().mean().backward()
    for reader in network._text_readers():
        assert reader.text_kv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("positions, keys", [(16, 13), (64, 66), (100, 77)])
def test_a_picture_is_read_alike_alone_and_among_others(dtype, positions, keys):
    """So that pictures beside one with regions can be read without it."""
    torch.manual_seed(0)
    query = torch.randn(4, positions, 3 * 32).to(dtype).unflatten(-1, (3, 32)).transpose(1, 2)
    text = torch.randn(2, 4, 3, keys, 32).to(dtype)
    mask = torch.rand(4, 1, 1, keys) > 0.3
    with torch.no_grad():
        together = attend(query, *text, mask)
        for start in range(4):
            for end in range(start + 1, 5):
                some = slice(start, end)
                alone = attend(query[some], text[0, some], text[1, some], mask[some])
                assert torch.equal(alone, together[some])
