"""The vocabulary: names that are unique, words that are English, pictures that are there and differ."""

import numpy as np
import pytest
from PIL import Image

from bottega.data.emoji_world import PlacedObject, Plan, render, vocabulary
from bottega.data.emoji_world.sprites import store


def drawn(name: str, size: int, tint=None) -> np.ndarray:
    placed = PlacedObject(thing=name, x=0.5, y=0.5, size=1.0, tint=tint)
    plan = Plan(objects=(placed,), background="grey", shade=(142, 144, 148))
    return render(plan, size).astype(float)


def test_the_full_vocabulary_begins_with_the_core():
    core, full = vocabulary("core"), vocabulary("full")
    assert 200 <= len(core) <= 220
    assert 1050 <= len(full) <= 1200
    assert full[: len(core)] == core
    assert vocabulary("core", 40) == core[:40]


def test_names_and_characters_are_unique():
    full = vocabulary("full")
    assert len({t.name for t in full}) == len(full)
    assert len({t.char for t in full}) == len(full)
    assert all(len(t.char) == 1 for t in full)


def test_no_synonym_is_the_name_of_another_core_thing():
    core = vocabulary("core")
    names = {t.name for t in core}
    synonyms = [s for t in core for s in t.synonyms]
    assert not names & set(synonyms)
    assert len(set(synonyms)) == len(synonyms)


def test_there_are_no_flags_and_no_skin_tones():
    for thing in vocabulary("full"):
        point = ord(thing.char)
        assert not 0x1F3FB <= point <= 0x1F3FF
        assert not 0x1F1E6 <= point <= 0x1F1FF
        assert "skin tone" not in thing.name


@pytest.mark.parametrize(
    ("name", "plural"),
    [
        ("mouse", "mice"), ("fish", "fish"), ("strawberry", "strawberries"), ("bus", "buses"),
        ("snowman", "snowmen"), ("die", "dice"), ("cactus", "cacti"), ("wolf", "wolves"),
        ("slice of cake", "slices of cake"), ("sheep", "sheep"), ("tomato", "tomatoes"),
        ("fox", "foxes"), ("key", "keys"),
    ],
)  # fmt: skip
def test_plurals_are_english(name: str, plural: str):
    things = {t.name: t for t in vocabulary("full")}
    assert things[name].plural == plural


def test_the_iconic_come_first():
    names = [t.name for t in vocabulary("core", 40)]
    for name in ("pizza", "cat", "dog", "apple", "banana", "football", "house", "guitar"):
        assert name in names


def test_every_thing_has_a_picture():
    sprites = store()
    missing = [t.name for t in vocabulary("full") if sprites.get(t.char, 24).solid.mean() < 0.05]
    assert not missing


def test_the_first_hundred_and_twenty_differ_at_small_size():
    names = [t.name for t in vocabulary("core", 120)]
    pictures = np.stack([drawn(name, 14).ravel() for name in names])
    apart = np.abs(pictures[:, None] - pictures[None]).mean(axis=2)
    np.fill_diagonal(apart, np.inf)
    a, b = np.unravel_index(apart.argmin(), apart.shape)
    assert apart.min() > 10, (names[a], names[b])


def test_a_small_sprite_is_the_large_one_made_smaller():
    for name in ("pizza", "cat", "star"):
        large = Image.fromarray(drawn(name, 128).astype(np.uint8)).reduce(4)
        assert np.abs(np.asarray(large, float) - drawn(name, 32)).mean() < 4


def test_sprites_are_dropped_when_they_outgrow_the_budget(monkeypatch):
    from bottega.data.emoji_world import sprites
    from bottega.data.emoji_world.font import find_font

    kept = sprites.SpriteStore(str(find_font()))
    monkeypatch.setattr(sprites, "_BUDGET", 200_000)
    first = kept.get("🍕", 64)
    for pixels in range(65, 80):
        kept.get("🍕", pixels)
    again = kept.get("🍕", 64)
    assert again is not first
    assert (again.colour == first.colour).all()
