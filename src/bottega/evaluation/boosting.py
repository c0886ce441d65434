"""Gradient-boosted trees that tell classes apart, small and our own: no library is needed for one measurement.

One tree a round serves all classes: its leaves hold a step for each. Trees grow level by level over binned features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bottega.errors import ConfigError, InputError
from bottega.seeding import generator

Table = Float[Tensor, "rows features"]
"""A row per example; whole numbers are ordered, as XGBoost takes them."""

Labels = Int[Tensor, "rows"]
"""The class of each row, counted from 0."""

Codes = Int[Tensor, "rows features"]
"""In which bin a value lies."""


@dataclass(frozen=True, kw_only=True)
class Boosting:
    """How trees are grown: so many ``rounds`` of trees ``depth`` deep, each a step of ``learning_rate``.

    ``l2`` holds leaves back, ``min_rows`` is the fewest rows on either side of a split, ``bins`` how finely a feature
    is cut, and ``columns`` how many features a tree may look at (all, where there are fewer).

    Source: Chen & Guestrin 2016 (arXiv:1603.02754), equations 5 to 7, summed over classes; XGBoost has since had such
    trees of vector leaves as an option. RAPHAEL (arXiv:2305.18295), section 4, does not give its settings.
    """

    rounds: int = 60
    depth: int = 4
    learning_rate: float = 0.3
    l2: float = 1.0
    min_rows: int = 2
    bins: int = 16
    columns: int = 48

    def __post_init__(self) -> None:
        for name in ("rounds", "depth", "min_rows", "columns"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.bins < 2:
            raise ConfigError(f"bins must be at least 2, got {self.bins}")
        if not 0 < self.learning_rate <= 1 or self.l2 < 0:
            raise ConfigError(
                "learning_rate must be in (0, 1] and l2 not negative, got "
                f"{self.learning_rate} and {self.l2}"
            )


class Tree(NamedTuple):
    """A complete tree: at node i go to 2 i + 1 where the feature's bin is at most ``at``, else to 2 i + 2."""

    feature: Int[Tensor, "nodes"]
    at: Int[Tensor, "nodes"]
    leaves: Float[Tensor, "leaves classes"]


class BoostedTrees:
    """Trees that were grown; see `grow`."""

    def __init__(
        self,
        cuts: Sequence[Float[Tensor, "_"]],
        start: Float[Tensor, "classes"],
        trees: Sequence[Tree],
    ) -> None:
        """Take what `grow` made: where features are cut, the scores before any tree, and the trees."""
        self._cuts, self._start, self._trees = tuple(cuts), start, tuple(trees)

    def scores(self, features: Table) -> Float[Tensor, "rows classes"]:
        """Logarithms of the classes' odds, up to a constant per row."""
        if features.shape[1] != len(self._cuts):
            raise InputError(
                f"these trees know {len(self._cuts)} features, got {features.shape[1]}"
            )
        codes = _binned(features, self._cuts)
        scores = self._start.expand(len(features), -1).clone()
        for tree in self._trees:
            scores += tree.leaves[_leaf_of(tree, codes)]
        return scores

    def predict(self, features: Table) -> Labels:
        """The likeliest class of each row."""
        return self.scores(features).argmax(dim=1)


def grow(
    features: Table, labels: Int[Tensor, "_"], settings: Boosting | None = None, *, seed: int = 0
) -> BoostedTrees:
    """Grow trees that tell the classes of ``labels`` apart.

    Args:
        features: What is known of each row.
        labels: Its class.
        settings: How to grow.
        seed: Chooses the columns of each tree, where there are more than it may look at.

    Raises:
        InputError: Without rows, or with labels that do not match them.
    """
    settings = Boosting() if settings is None else settings
    if len(features) == 0 or len(features) != len(labels) or int(labels.min()) < 0:
        raise InputError(
            f"expected a label of 0 or more for each row, got {len(features)} rows and {len(labels)}"
        )
    num_classes = int(labels.max()) + 1
    cuts = [_cuts_of(features[:, i], settings.bins) for i in range(features.shape[1])]
    codes = _binned(features, cuts)
    wanted = torch.nn.functional.one_hot(labels, num_classes).float()
    start = wanted.mean(dim=0).clamp(min=1e-6).log()
    scores = start.expand(len(features), -1).clone()
    draw = generator(seed, "boosting")
    trees: list[Tree] = []
    for _ in range(settings.rounds):
        p = scores.softmax(dim=1)
        columns = torch.randperm(features.shape[1], generator=draw)[: settings.columns]
        tree = _grow_one(codes, columns.sort().values, p - wanted, p * (1 - p), settings)
        scores += tree.leaves[_leaf_of(tree, codes)]
        trees.append(tree)
    return BoostedTrees(cuts, start, trees)


def _cuts_of(values: Float[Tensor, "rows"], bins: int) -> Float[Tensor, "_"]:
    """Where a feature is cut: between all its values where there are few, at its quantiles else."""
    known = values.unique()
    if len(known) <= bins:
        return (known[1:] + known[:-1]) / 2
    places = torch.arange(1, bins, dtype=torch.float64) / bins
    return values.double().quantile(places).to(values.dtype).unique()


def _binned(features: Table, cuts: Sequence[Float[Tensor, "_"]]) -> Codes:
    columns = [
        torch.searchsorted(cut, features[:, i].contiguous(), right=False)
        for i, cut in enumerate(cuts)
    ]
    return torch.stack(columns, dim=1)


def _grow_one(
    codes: Codes,
    columns: Int[Tensor, "columns"],
    slope: Float[Tensor, "rows classes"],
    bend: Float[Tensor, "rows classes"],
    settings: Boosting,
) -> Tree:
    """One tree against the loss's slope and bend (first and second derivative by the scores)."""
    num_nodes = 2**settings.depth - 1
    bins = int(codes.max()) + 1
    chosen = codes[:, columns]
    places = (chosen + torch.arange(len(columns)) * bins).flatten()
    marks = torch.zeros(len(codes), len(columns) * bins)
    marks[torch.arange(len(codes)).repeat_interleave(len(columns)), places] = 1
    every = torch.cat([slope, bend, torch.ones(len(codes), 1)], dim=1)
    feature = torch.zeros(num_nodes, dtype=torch.long)
    at = torch.full((num_nodes,), bins, dtype=torch.long)  # all to one side: no split
    node = torch.zeros(len(codes), dtype=torch.long)
    for level in range(settings.depth):
        first = 2**level - 1
        for place in range(first, 2 * first + 1):
            rows = (node == place).nonzero()[:, 0]
            if len(rows) < 2 * settings.min_rows:
                continue
            sums = (marks[rows].T @ every[rows]).view(len(columns), bins, -1)
            found = _best_split(sums.double(), settings)
            if found is not None:
                feature[place], at[place] = columns[found[0]], found[1]
        right = codes.gather(1, feature[node][:, None])[:, 0] > at[node]
        node = 2 * node + 1 + right.long()
    leaf = node - num_nodes
    num_classes = slope.shape[1]
    ends = torch.nn.functional.one_hot(leaf, num_nodes + 1).float().T @ every
    steps = -ends[:, :num_classes] / (ends[:, num_classes:-1] + settings.l2).clamp(min=1e-12)
    return Tree(feature=feature, at=at, leaves=settings.learning_rate * steps)


def _best_split(
    sums: Float[Tensor, "columns bins sums"], settings: Boosting
) -> tuple[int, int] | None:
    """Column and last bin of the left side where the loss falls most; None where it does not fall.

    ``sums`` are slopes and bends per class and the number of rows, by bin.
    """
    left = sums.cumsum(dim=1)
    whole = left[:, -1:]
    right = whole - left
    gain = _worth(left, settings.l2) + _worth(right, settings.l2) - _worth(whole, settings.l2)
    enough = torch.minimum(left[..., -1], right[..., -1]) >= settings.min_rows
    gain = torch.where(enough, gain, -torch.inf)
    best = int(gain.argmax())
    if not float(gain.flatten()[best]) > 1e-9:
        return None
    return divmod(best, sums.shape[1])


def _worth(sums: Float[Tensor, "columns some_bins sums"], l2: float) -> Float[Tensor, "_ _"]:
    """Twice the loss that the best step takes away, summed over classes."""
    num_classes = (sums.shape[-1] - 1) // 2
    slope, bend = sums[..., :num_classes], sums[..., num_classes:-1]
    return (slope.square() / (bend + l2).clamp(min=1e-12)).sum(dim=-1)


def _leaf_of(tree: Tree, codes: Codes) -> Labels:
    node = torch.zeros(len(codes), dtype=torch.long)
    for _ in range(len(tree.feature).bit_length()):  # 2 ** depth - 1 nodes
        right = codes.gather(1, tree.feature[node][:, None])[:, 0] > tree.at[node]
        node = 2 * node + 1 + right.long()
    return node - len(tree.feature)


def folds_of(
    labels: Labels, num_folds: int, *, groups: Labels | None = None, seed: int = 0
) -> Int[Tensor, "rows"]:
    """The fold in which each row is tested: every class, or with ``groups`` every group as a whole, dealt out evenly.

    Raises:
        InputError: For fewer than two folds, or fewer rows (or groups) than folds.
    """
    keys = torch.arange(len(labels)) if groups is None else groups
    known = keys.unique()
    if num_folds < 2 or len(known) < num_folds:
        raise InputError(f"{len(known)} rows or groups cannot be dealt out to {num_folds} folds")
    order = torch.randperm(len(known), generator=generator(seed, "folds"))
    if groups is None:
        order = order[labels[order].argsort(stable=True)]
    fold = torch.empty(len(known), dtype=torch.long)
    fold[order] = torch.arange(len(known)) % num_folds
    return fold[torch.searchsorted(known, keys)]


def cross_validated(
    features: Table,
    labels: Labels,
    folds: Int[Tensor, "rows"],
    settings: Boosting | None = None,
    *,
    seed: int = 0,
) -> Int[Tensor, "rows"]:
    """For each row the class that trees grown on all other folds give it."""
    given = torch.empty_like(labels)
    for fold in folds.unique().tolist():
        test = folds == fold
        trees = grow(features[~test], labels[~test], settings, seed=seed)
        given[test] = trees.predict(features[test])
    return given


__all__ = [
    "BoostedTrees",
    "Boosting",
    "Codes",
    "Labels",
    "Table",
    "Tree",
    "cross_validated",
    "folds_of",
    "grow",
]
