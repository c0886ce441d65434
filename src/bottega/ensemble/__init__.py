"""Expert denoisers: whole denoisers that share the work by the strength of the noise (eDiff-I)."""

from bottega.ensemble.tree import Between as Between
from bottega.ensemble.tree import Complement as Complement
from bottega.ensemble.tree import Interval as Interval
from bottega.ensemble.tree import Node as Node
from bottega.ensemble.tree import Part as Part
from bottega.ensemble.tree import Tile as Tile
from bottega.ensemble.tree import find_tile as find_tile
from bottega.ensemble.tree import leftmost as leftmost
from bottega.ensemble.tree import parse_part as parse_part
from bottega.ensemble.tree import probability_intervals as probability_intervals
from bottega.ensemble.tree import rightmost as rightmost
from bottega.ensemble.tree import sigma_bounds as sigma_bounds
from bottega.ensemble.tree import tiles as tiles

__all__ = [
    "Between",
    "Complement",
    "Interval",
    "Node",
    "Part",
    "Tile",
    "find_tile",
    "leftmost",
    "parse_part",
    "probability_intervals",
    "rightmost",
    "sigma_bounds",
    "tiles",
]
