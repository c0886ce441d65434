import random

import pytest
import torch
import torch.nn.functional as F

from bottega.conditioning import (
    TinyClipConfig,
    TinyT5Config,
    TokenizerConfig,
    build_clip,
    build_t5,
    train_tokenizer,
)
from bottega.conditioning.pictures import PicturePreparation
from bottega.data import Batch
from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig, SceneMixture, WorldSource
from bottega.errors import ConfigError
from bottega.training.encoder_objectives import (
    SIDES,
    ClipContrast,
    SpanCorruption,
    hidden_spans,
    stated_sides,
)

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (30, 40, 220),
    "white": (240, 240, 240),
}
CAPTIONS_SIDES = ("left", "right")
CAPTIONS = [f"a {colour} square on the {side}" for colour in COLOURS for side in CAPTIONS_SIDES]
T5 = TinyT5Config(d_model=32, num_heads=2, d_ff=48, num_layers=1, num_decoder_layers=1)
CLIP = TinyClipConfig(
    text_width=32,
    text_layers=1,
    text_heads=2,
    text_ff=48,
    vision_width=32,
    vision_layers=1,
    vision_heads=2,
    vision_ff=48,
    image_size_px=16,
    patch_px=8,
    projection=16,
)


PAIRS = SceneMixture(
    single=0.0, pair=1.0, together=0.0, count=0.0, between=0.0, corner=0.0, sizes=0.0, several=0.0, words=0.0,
    tint=0.0, style=0.0, short_caption=0.0, long_caption=0.0, varied_phrasing=0.0,
)  # fmt: skip


def draw(caption):
    words = caption.split()
    image = torch.full((3, 16, 16), 110, dtype=torch.uint8)
    columns = slice(0, 8) if words[-1] == "left" else slice(8, 16)
    image[:, :, columns] = torch.tensor(COLOURS[words[1]], dtype=torch.uint8)[:, None, None]
    return image


def batch_of(captions):
    return Batch(
        images=torch.stack([draw(caption) for caption in captions]),
        captions=tuple(captions),
        indices=tuple(range(len(captions))),
    )


@pytest.fixture(scope="module")
def t5_tokenizer():
    return train_tokenizer(CAPTIONS * 20, "t5", TokenizerConfig(vocab_size=512, max_tokens=16))


@pytest.fixture(scope="module")
def clip_tokenizer():
    return train_tokenizer(CAPTIONS * 20, "clip", TokenizerConfig(vocab_size=512, max_tokens=16))


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def train(network, objective, batch, steps, lr=3e-3):
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    for step in range(steps):
        loss = objective(network, batch, gen(step))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    with torch.no_grad():
        return objective(network, batch, gen(steps))


@pytest.mark.parametrize("length", [2, 5, 12, 31, 200])
def test_spans_hide_the_wanted_share_in_pieces_of_the_wanted_length(length):
    rng = random.Random(0)
    spans = 0
    for _ in range(50):
        mask = hidden_spans(length, rng, hidden_frac=0.15, mean_span=3.0, max_spans=16)
        assert len(mask) == length
        assert sum(mask) == max(round(length * 0.15), 1)
        spans = sum(now and not before for before, now in zip([False, *mask], mask, strict=False))
        assert spans == max(round(sum(mask) / 3), 1)


def test_every_place_is_hidden_sometimes():
    rng = random.Random(1)
    masks = [
        hidden_spans(9, rng, hidden_frac=0.15, mean_span=3.0, max_spans=16) for _ in range(400)
    ]
    times = [sum(mask[place] for mask in masks) for place in range(9)]
    assert sum(times) == 400
    assert min(times) > 20  # 44 expected


def test_texts_of_no_or_one_token_are_hidden_whole():
    rng = random.Random(2)
    assert hidden_spans(0, rng, hidden_frac=0.15, mean_span=3.0, max_spans=4) == []
    assert hidden_spans(1, rng, hidden_frac=0.15, mean_span=3.0, max_spans=4) == [True]


def test_spans_are_never_more_than_the_sentinels():
    mask = hidden_spans(400, random.Random(3), hidden_frac=0.5, mean_span=1.0, max_spans=4)
    assert sum(now and not before for before, now in zip([False, *mask], mask, strict=False)) <= 4


def test_what_the_encoder_reads_and_what_the_decoder_writes_make_the_text_again(t5_tokenizer):
    objective = SpanCorruption(t5_tokenizer, hidden_frac=0.4, mean_span=1.5)
    rng = random.Random(4)
    for _ in range(20):
        inputs, labels = objective.corrupt(CAPTIONS, rng)
        for row, caption in enumerate(CAPTIONS):
            seen = [t for t in inputs[row].tolist() if t != t5_tokenizer.pad_token_id]
            said = [t for t in labels[row].tolist() if t != -100]
            assert seen.pop() == said.pop() == t5_tokenizer.eos_token_id
            sentinels = [t for t in seen if "extra_id" in t5_tokenizer.convert_ids_to_tokens(t)]
            assert sentinels == [t for t in said if t in sentinels]
            pieces = {}
            for token in said:
                if token in sentinels:
                    current = pieces.setdefault(token, [])
                else:
                    current.append(token)
            whole = [t for token in seen for t in pieces.get(token, [token])]
            assert t5_tokenizer.decode(whole).strip() == caption


def test_t5_learns_to_fill_in_what_is_hidden(t5_tokenizer):
    network = build_t5(T5, t5_tokenizer)
    objective = SpanCorruption(t5_tokenizer, misspelt_frac=0.0)
    batch = batch_of(CAPTIONS * 2)
    with torch.no_grad():
        before = objective(network, batch, gen())
    after = train(network, objective, batch, 60)
    assert after.total < before.total / 3
    assert after.metrics["token_accuracy"] > 0.7


def test_the_sides_that_a_caption_states_are_those_of_the_picture():
    world = EmojiWorld(EmojiWorldConfig(mixture=SceneMixture(single=0.3, pair=0.7)))
    seen = set()
    for index in range(300):
        example = world[index]
        for start, end, side in stated_sides(example):
            phrase = next(p for p in example.phrases if (p.start, p.end) == (start, end))
            placed = example.plan.objects[phrase.objects[0]]
            is_there = {
                "left": placed.x < 0.5,
                "right": placed.x > 0.5,
                "top": placed.y < 0.5,
                "bottom": placed.y > 0.5,
            }
            assert is_there[SIDES[side]], example.caption
            seen.add(SIDES[side])
        if not example.plan.relations:
            assert stated_sides(example) == []
    assert seen == set(SIDES)


def test_marking_sides_teaches_the_features_of_a_thing_who_is_where():
    """A denoiser reads who is where from the features of the nouns, so there it has to be written."""
    world = EmojiWorld(EmojiWorldConfig(num_things=4, mixture=PAIRS))
    tokenizer = train_tokenizer(
        [world[i].caption for i in range(200)], "t5", TokenizerConfig(vocab_size=512, max_tokens=32)
    )
    source = WorldSource(world, 16)
    network = build_t5(T5, tokenizer)
    objective = SpanCorruption(tokenizer, misspelt_frac=0.0)
    unseen = source.batch(range(9000, 9200))
    with torch.no_grad():
        before = objective(network, unseen, gen()).metrics["side_accuracy"]
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for step in range(70):
        loss = objective(network, source.batch(range(24 * step, 24 * step + 24)), gen(step))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    with torch.no_grad():
        after = objective(network, unseen, gen()).metrics["side_accuracy"]
    assert before < 0.6
    assert after > 0.9
    assert side_accuracy(network, tokenizer, list(unseen.examples)) > 0.9


def side_accuracy(network, tokenizer, examples):
    """How often a linear map of the first noun's feature tells its side; fitted on half of the examples."""
    features, wanted = [], []
    for example in examples:
        encoded = tokenizer(example.caption, return_offsets_mapping=True, return_tensors="pt")
        spans = encoded.pop("offset_mapping")[0].tolist()
        _, end, side = stated_sides(example)[0]
        token = next(k for k, span in enumerate(spans) if span[1] == end)
        with torch.no_grad():
            features.append(network.encoder(**encoded).last_hidden_state[0, token])
        wanted.append(side)
    x = torch.cat([torch.stack(features), torch.ones(len(features), 1)], dim=1).double()
    y = F.one_hot(torch.tensor(wanted), len(SIDES)).double()
    half = len(examples) // 2
    ridge = 1e-2 * torch.eye(x.shape[1], dtype=torch.double)
    weights = torch.linalg.solve(x[:half].T @ x[:half] + ridge, x[:half].T @ y[:half])
    said = (x[half:] @ weights).argmax(dim=1)
    return (said == torch.tensor(wanted[half:])).double().mean().item()


def test_clip_learns_which_caption_belongs_to_which_picture(clip_tokenizer):
    network = build_clip(CLIP, clip_tokenizer)
    objective = ClipContrast(
        clip_tokenizer, PicturePreparation(image_size_px=16), misspelt_frac=0.0
    )
    after = train(network, objective, batch_of(CAPTIONS), 150)
    assert after.metrics["accuracy"] >= 0.8
    assert after.per_image.shape == (len(CAPTIONS),)
    torch.testing.assert_close(after.per_image.mean(), after.total)


def test_without_twins_the_contrast_is_clips_own_loss(clip_tokenizer):
    network = build_clip(CLIP, clip_tokenizer)
    objective = ClipContrast(
        clip_tokenizer, PicturePreparation(image_size_px=16), misspelt_frac=0.0
    )
    batch = batch_of(CAPTIONS)
    inputs = clip_tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = network(
            input_ids=inputs.input_ids, pixel_values=batch.clean(), return_loss=True
        ).loss
        found = objective(network, batch, gen()).total
    torch.testing.assert_close(found, expected)


def test_twins_are_not_told_apart(clip_tokenizer):
    """Equal captions: the best loss there is spreads evenly, and every twin counts as right."""
    network = build_clip(CLIP, clip_tokenizer)
    objective = ClipContrast(
        clip_tokenizer, PicturePreparation(image_size_px=16), misspelt_frac=0.0
    )
    with torch.no_grad():
        loss = objective(network, batch_of([CAPTIONS[0]] * 4), gen())
    torch.testing.assert_close(loss.total, torch.tensor(4.0).log())
    assert loss.metrics["accuracy"] == 1


def test_the_temperature_is_capped(clip_tokenizer):
    network = build_clip(CLIP, clip_tokenizer)
    network.logit_scale.data.fill_(9.0)
    objective = ClipContrast(clip_tokenizer, PicturePreparation(image_size_px=16))
    with torch.no_grad():
        loss = objective(network, batch_of(CAPTIONS), gen())
    torch.testing.assert_close(loss.metrics["scale"], torch.tensor(100.0))


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_the_generator_alone_decides_the_loss(kind, t5_tokenizer, clip_tokenizer):
    if kind == "t5":
        network = build_t5(T5, t5_tokenizer)
        objective = SpanCorruption(t5_tokenizer, texts=["square", "red"], misspelt_frac=0.5)
    else:
        network = build_clip(CLIP, clip_tokenizer)
        preparation = PicturePreparation(image_size_px=16)
        objective = ClipContrast(clip_tokenizer, preparation, misspelt_frac=0.5)
    network.train()
    batch = batch_of(CAPTIONS)
    with torch.no_grad():
        losses = [objective(network, batch, gen(seed)).total for seed in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_networks_in_bf16_give_losses_in_float32(kind, t5_tokenizer, clip_tokenizer):
    if kind == "t5":
        network, objective = build_t5(T5, t5_tokenizer), SpanCorruption(t5_tokenizer)
    else:
        preparation = PicturePreparation(image_size_px=16)
        network = build_clip(CLIP, clip_tokenizer)
        objective = ClipContrast(clip_tokenizer, preparation)
    loss = objective(network.to(torch.bfloat16), batch_of(CAPTIONS), gen())
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_names_and_keywords_join_the_captions(t5_tokenizer):
    seen = []

    class Spy(SpanCorruption):
        def corrupt(self, texts, rng):
            seen.extend(texts)
            return super().corrupt(texts, rng)

    objective = Spy(t5_tokenizer, texts=["zebra", "lion"], texts_frac=0.5, misspelt_frac=0.0)
    with torch.no_grad():
        objective(build_t5(T5, t5_tokenizer), batch_of(CAPTIONS), gen())
    assert seen[:8] == CAPTIONS
    assert len(seen) == 12
    assert set(seen[8:]) <= {"zebra", "lion"}


def test_a_share_of_the_texts_is_misspelt(clip_tokenizer):
    objective = ClipContrast(
        clip_tokenizer, PicturePreparation(image_size_px=16), misspelt_frac=1.0
    )
    network = build_clip(CLIP, clip_tokenizer)
    plain = ClipContrast(clip_tokenizer, PicturePreparation(image_size_px=16), misspelt_frac=0.0)
    with torch.no_grad():
        losses = [o(network, batch_of(CAPTIONS), gen()).total for o in (objective, plain)]
    assert not torch.equal(*losses)


def test_blank_captions_do_not_break_the_loss(t5_tokenizer):
    batch = Batch(
        images=torch.zeros(2, 3, 16, 16, dtype=torch.uint8), captions=("", " "), indices=(0, 1)
    )
    with torch.no_grad():
        loss = SpanCorruption(t5_tokenizer)(build_t5(T5, t5_tokenizer), batch, gen())
    assert F.relu(loss.total).isfinite()


@pytest.mark.parametrize(
    "settings",
    [
        {"texts_frac": 1.5},
        {"misspelt_frac": -1.0},
        {"sides_weight": -1.0},
        {"hidden_frac": 0.0},
        {"mean_span": 0.5},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, t5_tokenizer):
    with pytest.raises(ConfigError):
        SpanCorruption(t5_tokenizer, **settings)


def test_what_an_objective_cannot_work_with_is_refused(clip_tokenizer):
    with pytest.raises(ConfigError, match="sentinels"):
        SpanCorruption(clip_tokenizer)
    with pytest.raises(ConfigError, match="misspelt_frac"):
        ClipContrast(clip_tokenizer, PicturePreparation(image_size_px=16), misspelt_frac=2.0)
