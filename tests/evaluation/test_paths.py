"""Paths are those of the atlas, controls know what they should and no more, and planted classes are told apart."""

import pytest
import torch
from routed_model import routed_folder, routed_painter
from tiny_model import tiny_network

from bottega.data.emoji_world import vocabulary
from bottega.errors import InputError
from bottega.evaluation.boosting import Boosting
from bottega.evaluation.paths import (
    NUM_UNTRAINED,
    WordTable,
    gates_of,
    tell_apart,
    untrained_gates,
    word_table,
)
from bottega.evaluation.route_atlas import atlas, network_and_encoders
from bottega.evaluation.route_sentences import (
    ADJECTIVES,
    FRAMES,
    Sentence,
    make_sentences,
)
from bottega.models import UNet
from bottega.seeding import generator

__all__ = ["routed_folder", "routed_painter"]

THINGS = vocabulary("core")
NOUNS = [thing.name for thing in THINGS[:5]]
QUICK = Boosting(rounds=4, depth=3)


@pytest.fixture(scope="module")
def asked(routed_painter):
    return network_and_encoders(routed_painter)


@pytest.mark.parametrize(("kind", "words"), [("nouns", NOUNS), ("adjectives", ADJECTIVES)])
def test_every_sentence_says_its_word_where_it_claims(kind, words):
    sentences = make_sentences(kind, words, THINGS, 30)
    assert len(sentences) == 30 * len(words)
    for sentence in sentences:
        assert sentence.text[sentence.start : sentence.end] == words[sentence.label]
        assert "{" not in sentence.text and "\x00" not in sentence.text
    texts = {sentence.text for sentence in sentences}
    assert len(texts) > 0.9 * len(sentences)


def test_each_word_is_said_in_the_same_frames():
    sentences = make_sentences("nouns", NOUNS, THINGS, len(FRAMES) + 3)
    frames = [[s.frame for s in sentences if s.label == label] for label in range(len(NOUNS))]
    assert all(frame == frames[0] for frame in frames)
    assert set(frames[0]) == set(range(len(FRAMES)))


def test_a_thing_is_not_compared_with_itself():
    for sentence in make_sentences("nouns", NOUNS, THINGS, 50):
        assert sentence.text.split().count(NOUNS[sentence.label]) <= 1


def test_colours_are_said_of_things_and_of_backgrounds():
    red = ADJECTIVES.index("red")
    own = [s for s in make_sentences("adjectives", ADJECTIVES, THINGS, 100) if s.label == red]
    after = {s.text[s.end :].split()[0].strip(",") for s in own}
    assert "background" in after
    assert len(after) > 20


def test_sentences_are_a_function_of_their_seed_and_word():
    first = make_sentences("nouns", NOUNS, THINGS, 10)
    assert first == make_sentences("nouns", NOUNS, THINGS, 10)
    assert first != make_sentences("nouns", NOUNS, THINGS, 10, seed=1)
    fewer = make_sentences("nouns", NOUNS[:2], THINGS, 10)
    assert fewer == first[:20]


@pytest.mark.parametrize("given", [(NOUNS[:1], 3), (["pizza", "pizza"], 3), (NOUNS, 0)])
def test_sentences_of_nothing_are_refused(given):
    with pytest.raises(InputError, match="at least 2 different words"):
        make_sentences("nouns", given[0], THINGS, given[1])


def test_a_path_is_that_of_the_words_last_token_in_the_atlas(asked, routed_painter):
    network, encoders = asked
    text = "two apples on a blue background"
    sentence = Sentence(text=text, start=4, end=10, label=0, frame=0)
    table = word_table(network, encoders, [sentence])
    seen = atlas(routed_painter, text, routed_painter.settings["base"], looks=(1.0,)).routes
    expected = []
    for stream in ("t5", "clip_text"):
        own = [token for token in seen.tokens if token.stream == stream and token.word == 1]
        expected += own[-1].experts
    assert table.paths[0].tolist() == expected


def test_the_tokens_are_the_encoders_own_features(asked):
    network, encoders = asked
    sentence = Sentence(text="a red car", start=6, end=9, label=0, frame=0)
    table = word_table(network, encoders, [sentence], streams=("clip_text",))
    encoded = encoders.encode_texts(["a red car"])["clip_text"]
    last = max(i for i, (_, end) in enumerate(encoded.offsets[0]) if end == 9)
    assert torch.allclose(table.tokens[0], encoded.stream.tokens[0, last], atol=1e-5)
    assert table.paths.shape == (1, 2)
    both = word_table(network, encoders, [sentence])
    assert both.tokens.shape[1] == 2 * table.tokens.shape[1]
    assert torch.equal(both.paths[:, 2:], table.paths)
    assert len(both.untrained) == NUM_UNTRAINED
    first = untrained_gates(gates_of(network))
    rows, _, _, segments = network.reader(
        encoders.condition(["a red car"]), network.stem.weight.detach()
    )
    key = {name: start for name, start, _ in segments}["clip_text"] + last
    expected = [int(gate(rows[0, key]).argmax()) for gate in first]
    assert table.untrained[0][0].tolist() == expected


def test_untrained_gates_are_other_gates_and_the_trained_ones_stay(asked):
    network, _ = asked
    gates = gates_of(network)
    before = [p.clone() for gate in gates for p in gate.parameters()]
    blank, again = untrained_gates(gates), untrained_gates(gates)
    after = [p for gate in gates for p in gate.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    own = [p for gate in blank for p in gate.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, own, strict=True))
    same = [p for gate in again for p in gate.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(own, same, strict=True))


def test_sentences_cut_off_before_their_word_are_left_out_and_counted(asked):
    network, encoders = asked
    long = "a red car and " * 20 + "a dog"
    sentences = [
        Sentence(text="a red car", start=6, end=9, label=0, frame=0),
        Sentence(text=long, start=len(long) - 3, end=len(long), label=1, frame=1),
    ]
    table = word_table(network, encoders, sentences)
    assert (len(table.paths), table.left_out) == (1, 1)
    assert table.labels.tolist() == [0]
    with pytest.raises(InputError, match="cut every sentence off"):
        word_table(network, encoders, sentences[1:])


def test_planted_paths_are_told_apart_and_noise_is_not():
    draw = generator(0)
    labels = torch.arange(6).repeat_interleave(20)
    code = torch.stack([labels % 3, labels // 3], dim=1).float()
    noise = torch.randint(0, 4, (120, 5), generator=draw).float()
    table = WordTable(
        paths=torch.cat([code, noise], dim=1),
        untrained=(torch.cat([noise, noise[:, :2]], dim=1),),
        tokens=labels[:, None].float() + 0.1 * torch.randn(120, 1, generator=draw),
        labels=labels,
        frames=torch.arange(120) % 20,
        left_out=0,
    )
    found = tell_apart(table, [str(i) for i in range(6)], Boosting(rounds=15, depth=4))
    for shares in (found.mixed, found.new_frames):
        assert shares["paths"].value > 0.8
        assert shares["tokens"].value > 0.8
        assert shares["untrained gates 1"].value < 0.45
    assert found.chance == pytest.approx(1 / 6)
    assert found.sentences == 120
    assert found.distinct_paths == len({tuple(row) for row in table.paths.tolist()})


def test_a_network_without_word_experts_and_an_unknown_stream_are_refused(asked):
    network, encoders = asked
    sentence = Sentence(text="a red car", start=6, end=9, label=0, frame=0)
    with pytest.raises(InputError, match="space-MoE"):
        word_table(UNet(tiny_network()), encoders, [sentence])
    with pytest.raises(InputError, match="no text stream 'clip'"):
        word_table(network, encoders, [sentence], streams=("clip",))
