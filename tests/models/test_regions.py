"""Paint with words: the bias is the paper's formula, and touches nothing that it should not."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import awake, some_condition, some_noise, tiny

from bottega.errors import InputError
from bottega.models import LargestLogit, LogitDeviation, PlacedPhrase, PlacedPhrases
from bottega.models.attention import CrossMixer, FusedMixer, KeysValues, Reading
from bottega.models.regions import key_columns, reduce_mask
from bottega.models.unet_config import CrossOnly, FusedAttention, SelfThenCross

KINDS = [FusedAttention(head_width=16), SelfThenCross(head_width=16), CrossOnly(head_width=16)]
WEIGHTS = [LargestLogit(), LargestLogit(per_head=True), LogitDeviation()]
SEGMENTS = (("null", 0, 1), ("t5", 1, 8), ("clip_text", 8, 13))


def left(size: int = 16) -> torch.Tensor:
    mask = torch.zeros(size, size)
    mask[:, : size // 2] = 1
    return mask


def phrase(strength: float = 1.0, mask: torch.Tensor | None = None) -> PlacedPhrase:
    tokens = {"t5": (0, 2), "clip_text": (1,), "elsewhere": (3,)}
    return PlacedPhrase(tokens=tokens, mask=left() if mask is None else mask, strength=strength)


def sigmas(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("kind", [CrossMixer, FusedMixer])
def test_a_layer_computes_the_papers_formula(kind, weight):
    """Against the sum written out token by token, for one picture of two and keys that are padding."""
    torch.manual_seed(0)
    mixer = kind(32, 12, 16)
    torch.nn.init.normal_(mixer.out.weight)
    mixer.layer = 0
    rows, height, width, sigma = torch.randn(2, 12, 32), 3, 4, 5.0
    keys, values = torch.randn(2, 2, 13, 16), torch.randn(2, 2, 13, 16)
    mask = torch.ones(2, 1, 1, 13, dtype=torch.bool)
    mask[1, ..., 11:] = False
    keys[1, :, 11:] = 100.0  # padding, that would be the largest
    bias = PlacedPhrases({1: [phrase(0.7)]}, weight).at(sigmas(sigma, sigma))
    reading = Reading(layers=(KeysValues(keys, values),), mask=mask, bias=bias, segments=SEGMENTS)
    said = mixer(rows, height, width, reading)

    if kind is CrossMixer:
        query, own = mixer.query(rows[1]), None
    else:
        query, own, own_values = mixer.qkv(rows[1]).chunk(3, dim=-1)
    small = reduce_mask(left(), height, width).flatten()
    merged = []
    every = [query[:, h * 16 : h * 16 + 16] @ keys[1, h, :11].T for h in range(2)]
    for h in range(2):
        logits = every[h]
        if isinstance(weight, LogitDeviation):
            factor = math.log(1 + sigma**2) * torch.stack(every).std(correction=0)
        else:
            seen = logits if weight.per_head else torch.stack(every)
            factor = math.log(1 + sigma) * seen.max()
        for column in (1, 3, 9):
            logits[:, column] += 0.7 * factor * small
        seen_values = values[1, h, :11]
        if own is not None:
            logits = torch.cat(
                [logits, query[:, h * 16 : h * 16 + 16] @ own[:, h * 16 : h * 16 + 16].T], dim=1
            )
            seen_values = torch.cat([seen_values, own_values[:, h * 16 : h * 16 + 16]])
        merged.append((logits / 4).softmax(-1) @ seen_values)
        every = [query[:, i * 16 : i * 16 + 16] @ keys[1, i, :11].T for i in range(2)]
    torch.testing.assert_close(said[1], mixer.out(torch.cat(merged, dim=1)), rtol=1e-4, atol=1e-4)
    plain = mixer(rows, height, width, Reading(layers=reading.layers, mask=mask))
    assert torch.equal(said[0], plain[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_pictures_regions_change_it_and_no_other_to_the_last_bit(kind, dtype):
    network = awake(tiny(attention=kind)).to(dtype)
    condition = some_condition(4)
    x, c_noise = some_noise(4)
    context = network.prepare(condition)
    with torch.no_grad():
        plain = network(x, c_noise, context)
        for rows in ([1], [0, 2], [1, 2, 3]):
            phrases = PlacedPhrases({row: [phrase(3.0)] for row in rows}, LargestLogit())
            said = network(x, c_noise, context.with_bias(phrases.at(sigmas(*[9.0] * 4))))
            for row in range(4):
                assert torch.equal(said[row], plain[row]) == (row not in rows)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_region_draws_attention_to_its_words_there_and_away_from_them_when_negative(kind):
    network = awake(tiny(attention=kind))
    x, c_noise = some_noise()

    def share(strength: float) -> tuple[float, float]:
        context = network.prepare(some_condition())
        phrases = PlacedPhrases({0: [phrase(strength)]}, LargestLogit())
        maps = []
        with torch.no_grad():
            network(x, c_noise, context.with_bias(phrases.at(sigmas(20.0, 20.0))), maps=maps)
        inside, outside = 0.0, 0.0
        for seen in maps:
            words = seen.weights[0, :, :, [1, 3, 9]].sum(-1).mean(0).unflatten(0, (seen.height, -1))
            inside += float(words[:, : seen.width // 2].mean()) / len(maps)
            outside += float(words[:, seen.width // 2 :].mean()) / len(maps)
        return inside, outside

    plain, drawn, kept_off = share(0.0), share(2.0), share(-2.0)
    assert drawn[0] > 1.3 * plain[0] > 1.3 * 1.3 * kept_off[0]
    assert drawn[1] == pytest.approx(plain[1], rel=0.3)


def test_nothing_wanted_is_nothing_added():
    full = sigmas(9.0, 9.0)
    for weight in WEIGHTS:
        assert PlacedPhrases({}, weight).at(full) is None
        assert PlacedPhrases({0: []}, weight).at(full) is None
        assert PlacedPhrases({0: [phrase(0.0)]}, weight).at(full) is None
        assert PlacedPhrases({0: [phrase(mask=torch.zeros(16, 16))]}, weight).at(full) is None
        assert PlacedPhrases({0: [phrase()]}, weight).at(sigmas(0.0, 9.0)) is None
        assert PlacedPhrases({0: [phrase()], 1: [phrase()]}, weight).at(sigmas(0, 9)).rows == (1,)


def test_the_effect_grows_with_noise_and_vanishes_without():
    network = awake(tiny())
    x, c_noise = some_noise(1)
    context = network.prepare(some_condition(1))
    phrases = PlacedPhrases({0: [phrase()]}, LargestLogit())
    with torch.no_grad():
        plain = network(x, c_noise, context)
        gaps = [
            (network(x, c_noise, context.with_bias(phrases.at(sigmas(s)))) - plain).norm()
            for s in (1e-4, 0.1, 1.0, 10.0)
        ]
    assert gaps == sorted(gaps)
    assert gaps[0] < 1e-3 * gaps[-1]


def test_a_picture_is_the_same_alone_and_among_others_with_regions():
    network = awake(tiny())
    x, c_noise = some_noise(3)
    condition = some_condition(3)
    context = network.prepare(condition)
    phrases = {row: [phrase(row + 1.0)] for row in range(3)}
    bias = PlacedPhrases(phrases, LargestLogit()).at(sigmas(9, 8, 7))
    with torch.no_grad():
        together = network(x, c_noise, context.with_bias(bias))
        chosen = context.with_bias(bias).select([2, 0])
        assert chosen.bias.rows == (0, 1) and chosen.bias.origins == (2, 0)
        again = network(x[[2, 0]], c_noise[[2, 0]], chosen)
    torch.testing.assert_close(again, together[[2, 0]])
    only = PlacedPhrases({2: [phrase()]}, LargestLogit()).at(sigmas(1, 1, 1))
    assert context.with_bias(only).select([0, 1]).bias is None
    assert context.with_bias(only).select([0, 2]).bias.rows == (1,)


def test_overlapping_regions_of_one_word_do_not_add_up_and_those_of_two_words_stand_side_by_side():
    middle = torch.zeros(4, 4)
    middle[:, 1:3] = 1
    one = PlacedPhrase(tokens={"t5": (0,)}, mask=left(4), strength=1.0)
    same = PlacedPhrase(tokens={"t5": (0,)}, mask=middle, strength=1.0)
    other = PlacedPhrase(tokens={"t5": (1,)}, mask=middle, strength=2.0)
    against = PlacedPhrase(tokens={"t5": (0,)}, mask=middle, strength=-0.5)

    def columns(*phrases: PlacedPhrase) -> torch.Tensor:
        placed = PlacedPhrases({0: phrases}, LargestLogit())
        places = placed.places(0, 4, 4, 4, (("null", 0, 1), ("t5", 1, 4)), torch.device("cpu"))
        return places[0, 0].unflatten(0, (4, 4))[0]

    assert columns(one, same, other)[:, 1].tolist() == [1, 1, 1, 0]
    assert columns(one, same, other)[:, 2].tolist() == [0, 2, 2, 0]
    assert columns(one, against)[:, 1].tolist() == [1, 0.5, -0.5, 0]


def test_masks_are_reduced_by_area_and_once_per_size(monkeypatch):
    mask = torch.zeros(16, 24)
    mask[:, :12] = 1
    for size in ((8, 12), (4, 6), (2, 2)):
        reduced = reduce_mask(mask, *size)
        assert reduced.shape == size
        assert float(reduced.mean()) == pytest.approx(0.5, abs=0.02)
        assert (reduced[:, 0] > 0.8).all() and (reduced[:, -1] < 0.2).all()
    dot = F.pad(torch.ones(1, 1), (7, 8, 7, 8))
    assert float(reduce_mask(dot, 4, 4).sum()) * 16 == pytest.approx(1.0, rel=0.3)
    assert reduce_mask(mask, 16, 24) is mask
    with pytest.raises(InputError, match="at least one pixel"):
        reduce_mask(torch.zeros(0, 3), 2, 2)
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return reduce_mask(*arguments)

    monkeypatch.setattr("bottega.models.regions.reduce_mask", counted)
    network = awake(tiny())
    x, c_noise = some_noise()
    phrases = PlacedPhrases({0: [phrase()]}, LargestLogit())
    context = network.prepare(some_condition())
    for sigma in (3.0, 2.0, 1.0):
        network(x, c_noise, context.with_bias(phrases.at(sigmas(sigma, sigma))))
    assert len(calls) == 1  # every layer with attention is of one size here


def test_pictures_need_not_be_square():
    network = awake(tiny())
    x = torch.randn(2, 3, 8, 24)
    context = network.prepare(some_condition())
    wide = torch.zeros(8, 24)
    wide[:, :12] = 1
    phrases = PlacedPhrases({0: [phrase(mask=wide)]}, LargestLogit())
    with torch.no_grad():
        said = network(x, torch.zeros(2), context.with_bias(phrases.at(sigmas(4.0, 4.0))))
    assert said.shape == x.shape


def test_whoever_watches_sees_masks_and_shares_without_changing_a_bit():
    network = awake(tiny())
    x, c_noise = some_noise()
    context = network.prepare(some_condition())
    for strength in (0.0, 2.0):
        watched = []
        alone = PlacedPhrases({0: [phrase(strength)]}, LargestLogit()).at(sigmas(5.0, 5.0))
        watching = PlacedPhrases({0: [phrase(strength)]}, LargestLogit(), watch=watched.append)
        with torch.no_grad():
            expected = network(x, c_noise, context.with_bias(alone))
            said = network(x, c_noise, context.with_bias(watching.at(sigmas(5.0, 5.0))))
        assert torch.equal(said, expected)
        assert sorted(seen.layer for seen in watched) == list(range(len(context.layers)))
        for seen in watched:
            assert seen.row == 0 and seen.masks.shape == seen.attention.shape == (1, 8, 8)
            assert 0 < float(seen.attention.min()) <= float(seen.attention.max()) <= 1.0001


def test_a_phrase_has_columns_in_the_streams_that_are_read():
    assert key_columns(phrase(), SEGMENTS) == [1, 3, 9]
    assert key_columns(phrase(), (("null", 0, 1), ("clip_text", 1, 6))) == [2]
    assert key_columns(phrase(), (("null", 0, 1),)) == []
