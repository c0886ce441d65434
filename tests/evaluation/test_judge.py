"""The judge reads back what its targets say, learns a small world, and never mixes pictures up."""

import math
from collections import Counter

import pytest
import torch

from bottega import seeding
from bottega.data import Batch
from bottega.data.emoji_world import EmojiWorld, PlacedObject, PlacedWord, Plan, WorldSource
from bottega.errors import CheckpointError, ConfigError, InputError
from bottega.evaluation import features
from bottega.evaluation.judge import Judge, Reader, _decode
from bottega.evaluation.judge_network import JudgeConfig, JudgeNetwork, Seen
from bottega.evaluation.judge_objective import JudgeObjective, Targets, _losses, targets_of
from bottega.evaluation.judge_world import judge_config, judge_world

SMALL = JudgeConfig(
    things=("cat", "dog", "pizza"),
    backgrounds=("white", "blue"),
    styles=("plain", "ink", "neon"),
    tints=("red", "green"),
    signs=("HI", "STOP"),
    widths=(16, 16, 16),
    size_px=32,
)


def plan(*objects, background="blue", style="plain", word=None):
    return Plan(objects=objects, background=background, shade=(0, 0, 0), style=style, word=word)


def placed(thing, x, y, size, tint=None):
    return PlacedObject(thing=thing, x=x, y=y, size=size, tint=tint)


def sure(targets: Targets, config: JudgeConfig) -> Seen:
    """What a network that knows the targets would say."""

    def logits(index, number):
        known = torch.nn.functional.one_hot(index.clamp(min=0), number).float() * 40
        return known.movedim(-1, 1)

    return Seen(
        centre=torch.where(targets.centres, 20.0, -20.0),
        thing=logits(targets.thing, len(config.things)),
        tint=logits(targets.tint, len(config.tints) + 1),
        offset=targets.offset,
        log_size=targets.log_size,
        background=logits(targets.background, len(config.backgrounds)),
        style=logits(targets.style, len(config.styles)),
        sign=logits(targets.sign, len(config.signs) + 1),
        features=torch.zeros(len(targets.sign), 2),
    )


PLANS = [
    plan(placed("cat", 0.30, 0.52, 0.4, "green"), placed("dog", 0.74, 0.47, 0.45)),
    plan(word=PlacedWord(text="STOP", x=0.5, y=0.5, width=0.8), background="white"),
    plan(placed("pizza", 0.5, 0.5, 0.9), style="neon"),
    plan(*(placed("dog", x, y, 0.45) for x in (0.25, 0.75) for y in (0.25, 0.75))),
]


def test_reading_the_targets_back_gives_the_plans():
    readings = _decode(sure(targets_of(PLANS, SMALL), SMALL), SMALL)
    for given, reading in zip(PLANS, readings, strict=True):
        key = lambda o: (o.thing, round(o.x, 3), round(o.y, 3))  # noqa: E731
        found = sorted(reading.detections, key=key)
        assert len(found) == len(given.objects)
        for detection, wanted in zip(found, sorted(given.objects, key=key), strict=True):
            assert (detection.thing, detection.tint) == (wanted.thing, wanted.tint)
            assert detection.x == pytest.approx(wanted.x, abs=1e-5)
            assert detection.y == pytest.approx(wanted.y, abs=1e-5)
            assert detection.size == pytest.approx(wanted.size, rel=1e-5)
            assert detection.box == pytest.approx(wanted.box, abs=1e-5)
        assert reading.style == given.style
        assert reading.word == (None if given.word is None else given.word.text)
        if given.style != "neon":
            assert reading.background == given.background
    assert readings[3].counts() == Counter(dog=4)


def test_whoever_knows_the_targets_has_hardly_any_loss_and_whoever_is_wrong_has_much():
    targets = targets_of(PLANS, SMALL)
    knowing = _losses(sure(targets, SMALL), targets)
    others = targets_of(PLANS[1:] + PLANS[:1], SMALL)
    wrong = _losses(sure(others, SMALL), targets)
    assert all(float(part.max()) < 1e-3 for part in knowing.values())
    assert float(wrong["thing"].max()) > 10
    assert float(wrong["centre"].max()) > 10


def test_nobody_is_blamed_for_a_background_or_tint_that_the_style_hides():
    neon = targets_of([plan(background="white", style="neon")], SMALL)
    ink = targets_of([plan(placed("cat", 0.5, 0.5, 0.8, "red"), style="ink")], SMALL)
    seen = sure(neon, SMALL)._replace(background=torch.tensor([[-30.0, 30.0]]))
    assert float(_losses(seen, neon)["background"]) == 0
    assert float(_losses(sure(ink, SMALL), ink)["tint"]) == 0


def test_the_fainter_of_two_detections_of_one_place_is_dropped():
    targets = targets_of([plan(placed("cat", 0.5, 0.5, 0.9))], SMALL)
    seen = sure(targets, SMALL)
    seen.centre[0, 1, 1] = 3.0  # a second peak whose offset points at the same cat
    (reading,) = _decode(seen, SMALL)
    assert reading.counts() == Counter(cat=1)


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    network = JudgeNetwork(SMALL)
    with torch.no_grad():
        network.cell.bias[0] = 2.0  # see something everywhere
        network.cell.weight.mul_(20)
    return Judge(network)


def test_a_reading_depends_on_its_picture_alone(judge):
    images = torch.rand(21, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    together = judge.read(images)
    assert any(reading.detections for reading in together)
    assert [judge.read(image[None])[0] for image in images] == together
    assert judge.read(images.flip(0)) == together[::-1]
    alone = torch.cat([judge.features(image[None]) for image in images])
    assert torch.equal(alone, judge.features(images))
    assert alone.shape[1] == judge.feature_width


def test_the_distance_of_sets_of_pictures_does_not_depend_on_batches_and_grows_with_noise(judge):
    draw = torch.Generator().manual_seed(2)
    real = torch.rand(40, 3, 32, 32, generator=draw) * 2 - 1
    worse = [real + spread * torch.randn(real.shape, generator=draw) for spread in (0.1, 0.5)]
    near, far = (features.picture_distance(judge, [x], [real]) for x in worse)
    assert 0 < near < far
    assert features.picture_distance(judge, real.split(7), [real]) == pytest.approx(0, abs=1e-7)


def test_pictures_of_any_size_are_read_and_an_empty_batch_has_no_readings(judge):
    for size in (16, 32, 50, 128):
        assert len(judge.read(torch.zeros(2, 3, size, size))) == 2
    assert judge.read(torch.zeros(0, 3, 32, 32)) == []
    assert judge.features(torch.zeros(0, 3, 32, 32)).shape == (0, judge.feature_width)
    with pytest.raises(InputError, match="3 channels, got 1"):
        judge.read(torch.zeros(1, 1, 32, 32))


def test_a_judge_is_a_reader_and_leaves_the_network_it_was_given_alone():
    network = JudgeNetwork(SMALL).to(torch.bfloat16)
    judge = Judge(network)
    assert isinstance(judge, Reader)
    assert network.stem.weight.dtype == torch.bfloat16
    assert network.training
    assert next(network.parameters()).requires_grad


def test_a_saved_judge_comes_back_with_its_words_and_a_fixed_digest(tmp_path, judge):
    digest = judge.save(tmp_path / "judge", images_seen=5, extra={"accuracy": 0.5})
    loaded = Judge.load(tmp_path / "judge")
    assert loaded.config == SMALL
    assert loaded.digest == digest
    assert judge.save(tmp_path / "again", images_seen=5) == digest
    again = Judge.load(tmp_path / "again")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    assert loaded.read(images) == again.read(images)
    size = (tmp_path / "judge" / "judge.safetensors").stat().st_size
    assert size < 2.5 * sum(p.numel() for p in judge.network.parameters())


def test_something_else_is_not_taken_for_a_judge(tmp_path, judge):
    from bottega.checkpoint import save_module

    save_module(tmp_path / "x", judge.network.state_dict(), kind="denoiser", config={}, name="x")
    with pytest.raises(CheckpointError, match="holds a denoiser, not a judge"):
        Judge.load(tmp_path / "x")


def test_the_judge_of_a_large_vocabulary_is_small_and_starts_by_seeing_nothing():
    config = judge_config(judge_world("core"))
    network = JudgeNetwork(config)
    assert sum(p.numel() for p in network.parameters()) <= 1_200_000
    with torch.no_grad():
        seen = network(torch.zeros(1, 3, config.size_px, config.size_px))
    assert seen.centre.shape == (1, 16, 16)
    assert float(seen.centre.sigmoid().max()) < 0.1
    assert all(part.dtype == torch.float32 for part in seen)
    assert network.to(torch.bfloat16)(torch.zeros(1, 3, 64, 64)).thing.dtype == torch.float32


@pytest.mark.parametrize(
    "change",
    [
        {"things": ()},
        {"styles": ("plain", "plain")},
        {"tints": ("red", "red")},
        {"widths": (16, 16, 24)},
        {"size_px": 30},
    ],
)
def test_a_judge_that_cannot_be_built_is_refused(change):
    settings = {name: getattr(SMALL, name) for name in vars(SMALL)}
    with pytest.raises(ConfigError):
        JudgeConfig(**(settings | change))


def test_the_objective_is_a_function_of_its_generator_and_leaves_the_batch_alone():
    world = judge_world(num_things=8)
    batch = WorldSource(EmojiWorld(world), 32).batch(range(4))
    before = batch.images.clone()
    objective = JudgeObjective(judge_config(world))
    network = JudgeNetwork(judge_config(world))

    def loss(seed):
        return objective(network, batch, seeding.generator(seed)).total.item()

    assert loss(1) == loss(1) != loss(2)
    assert torch.equal(batch.images, before)
    plain = JudgeObjective(judge_config(world), degradation=None)
    one, two = (plain(network, batch, seeding.generator(seed)) for seed in (1, 2))
    assert one.total.item() == two.total.item()
    assert sum(float(part) for part in one.metrics.values()) == pytest.approx(one.total.item())
    assert one.per_image.mean().item() == pytest.approx(one.total.item())


def test_the_objective_refuses_batches_it_cannot_learn_from():
    world = judge_world(num_things=8)
    batch = WorldSource(EmojiWorld(world), 32).batch(range(8))
    blind = Batch(images=batch.images, captions=batch.captions, indices=batch.indices)
    draw = seeding.generator(0)
    network = JudgeNetwork(SMALL)
    with pytest.raises(InputError, match="carry examples"):
        JudgeObjective(SMALL)(network, blind, draw)
    with pytest.raises(InputError, match="knows no"):
        JudgeObjective(SMALL)(network, batch, draw)


def test_the_objective_learns_under_autocast():
    world = judge_world(num_things=8)
    batch = WorldSource(EmojiWorld(world), 64).batch(range(4))
    network = JudgeNetwork(judge_config(world))
    with torch.autocast("cpu", torch.bfloat16):
        loss = JudgeObjective(judge_config(world))(network, batch, seeding.generator(0))
    loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.slow
def test_the_judge_learns_a_world_of_five_things():
    world = judge_world(num_things=5)
    config = judge_config(world)
    torch.manual_seed(0)
    network = JudgeNetwork(JudgeConfig(**(vars(config) | {"widths": (32, 48, 64), "size_px": 32})))
    objective = JudgeObjective(network.config)
    source = WorldSource(EmojiWorld(world), 32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    steps, size = 260, 48
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 40) * (1 - step / steps)
        batch = source.batch(range(step * size, (step + 1) * size))
        loss = objective(network, batch, seeding.generator(0, step))
        assert math.isfinite(loss.total.item())
        optimizer.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    unseen = WorldSource(EmojiWorld(judge_world(num_things=5, seed=1)), 32).batch(range(300))
    there, grounds = [], []
    for example, reading in zip(unseen.examples, Judge(network).read(unseen.clean()), strict=True):
        counts = reading.counts()
        if example.plan.style == "plain":
            there += [counts[o.thing] > 0 for o in example.plan.objects if o.tint is None]
            grounds.append(reading.background == example.plan.background)
    assert sum(there) / len(there) > 0.9
    assert sum(grounds) / len(grounds) > 0.9
