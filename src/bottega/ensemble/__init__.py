"""Expert denoisers: whole denoisers that share the work by the strength of the noise (eDiff-I)."""

from bottega.ensemble.mixture import Expert as Expert
from bottega.ensemble.mixture import Mixture as Mixture
from bottega.ensemble.mixture import MixtureContext as MixtureContext
from bottega.ensemble.residency import Loader as Loader
from bottega.ensemble.residency import Residency as Residency
from bottega.ensemble.steps import NetworkCall as NetworkCall
from bottega.ensemble.steps import grid_with_steps_per_expert as grid_with_steps_per_expert
from bottega.ensemble.steps import steps_per_expert as steps_per_expert
from bottega.ensemble.steps import steps_table as steps_table
from bottega.ensemble.stored import StoredDenoiser as StoredDenoiser
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
    "Expert",
    "Interval",
    "Loader",
    "Mixture",
    "MixtureContext",
    "NetworkCall",
    "Node",
    "Part",
    "Residency",
    "StoredDenoiser",
    "Tile",
    "find_tile",
    "grid_with_steps_per_expert",
    "leftmost",
    "parse_part",
    "probability_intervals",
    "rightmost",
    "sigma_bounds",
    "steps_per_expert",
    "steps_table",
    "tiles",
]
