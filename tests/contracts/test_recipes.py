"""Every recipe is a whole configuration: it becomes JSON and comes back the same."""

import json
from pathlib import Path

import pytest

from bottega.config import dumps, from_json, to_json
from bottega.recipes import RECIPES

DOCS = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_round_trips_through_json(name: str):
    config = RECIPES[name]()
    text = dumps(config)
    again = from_json(type(config), json.loads(text))
    assert again == config
    assert to_json(again) == json.loads(text)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_gives_the_same_configuration_every_time(name: str):
    assert dumps(RECIPES[name]()) == dumps(RECIPES[name]())


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_documented(name: str):
    assert f"`{name}`" in DOCS.read_text(encoding="utf-8")
    assert (RECIPES[name].__doc__ or "").strip()
