"""Emoji World: an endless captioned world of emoji scenes, of which everything is known exactly."""

from bottega.data.emoji_world.font import find_font as find_font
from bottega.data.emoji_world.held_out import facts as facts
from bottega.data.emoji_world.held_out import holds_unseen as holds_unseen
from bottega.data.emoji_world.held_out import is_held_out_tint as is_held_out_tint
from bottega.data.emoji_world.held_out import is_held_out_triple as is_held_out_triple
from bottega.data.emoji_world.mixture import EmojiWorldConfig as EmojiWorldConfig
from bottega.data.emoji_world.mixture import SceneMixture as SceneMixture
from bottega.data.emoji_world.plan import BACKGROUNDS as BACKGROUNDS
from bottega.data.emoji_world.plan import STYLES as STYLES
from bottega.data.emoji_world.plan import TINTS as TINTS
from bottega.data.emoji_world.plan import PlacedObject as PlacedObject
from bottega.data.emoji_world.plan import PlacedWord as PlacedWord
from bottega.data.emoji_world.plan import Plan as Plan
from bottega.data.emoji_world.plan import Relation as Relation
from bottega.data.emoji_world.plan import parse_plan as parse_plan
from bottega.data.emoji_world.plan import plan_to_json as plan_to_json
from bottega.data.emoji_world.render import edges as edges
from bottega.data.emoji_world.render import labels as labels
from bottega.data.emoji_world.render import render as render
from bottega.data.emoji_world.vocabulary import Thing as Thing
from bottega.data.emoji_world.vocabulary import thing_named as thing_named
from bottega.data.emoji_world.vocabulary import vocabulary as vocabulary
from bottega.data.emoji_world.world import EmojiWorld as EmojiWorld
from bottega.data.emoji_world.world import Example as Example
from bottega.data.emoji_world.world import Phrase as Phrase
from bottega.data.emoji_world.world import WorldSource as WorldSource
from bottega.data.emoji_world.world import describe as describe

__all__ = [
    "BACKGROUNDS",
    "STYLES",
    "TINTS",
    "EmojiWorld",
    "EmojiWorldConfig",
    "Example",
    "Phrase",
    "PlacedObject",
    "PlacedWord",
    "Plan",
    "Relation",
    "SceneMixture",
    "Thing",
    "WorldSource",
    "describe",
    "edges",
    "facts",
    "find_font",
    "holds_unseen",
    "is_held_out_tint",
    "is_held_out_triple",
    "labels",
    "parse_plan",
    "plan_to_json",
    "render",
    "thing_named",
    "vocabulary",
]
