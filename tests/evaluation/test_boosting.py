"""Boosted trees find simple truths, take the steps of the formula, and cannot be told what they do not see."""

import pytest
import torch

from bottega.errors import ConfigError, InputError
from bottega.evaluation.boosting import Boosting, cross_validated, folds_of, grow
from bottega.seeding import generator

QUICK = Boosting(rounds=10, depth=3)


def table(rows=300, features=5, values=6, seed=0):
    draw = generator(seed)
    return torch.randint(0, values, (rows, features), generator=draw).float()


def test_a_threshold_is_found_and_nothing_else_is_needed():
    features = table()
    labels = (features[:, 3] > 2).long()
    trees = grow(features, labels, Boosting(rounds=1, depth=1, learning_rate=1.0))
    fresh = table(seed=1)
    assert torch.equal(trees.predict(fresh), (fresh[:, 3] > 2).long())


def test_what_takes_two_features_together_is_found():
    features, fresh = table(features=3, values=2), table(features=3, values=2, seed=1)
    trees = grow(features, (features[:, 0] != features[:, 2]).long(), Boosting(rounds=5, depth=3))
    assert torch.equal(trees.predict(fresh), (fresh[:, 0] != fresh[:, 2]).long())


def test_many_classes_are_told_apart_where_two_features_name_them():
    features, fresh = table(rows=400, values=4), table(rows=200, values=4, seed=1)
    labels = (features[:, 1] * 4 + features[:, 2]).long()
    trees = grow(features, labels, Boosting(rounds=15, depth=5))
    expected = (fresh[:, 1] * 4 + fresh[:, 2]).long()
    assert (trees.predict(fresh) == expected).float().mean() > 0.98


def test_the_first_split_and_its_leaves_are_those_of_the_formula():
    """Every threshold of every feature tried, with loss and step written out."""
    features, l2, rate = table(rows=80, features=3), 0.7, 0.4
    labels = torch.randint(0, 3, (80,), generator=generator(9))
    labels[features[:, 2] > 3] = 1
    trees = grow(
        features, labels, Boosting(rounds=1, depth=1, l2=l2, learning_rate=rate, min_rows=1)
    )
    start = torch.bincount(labels).double() / 80
    slope = start - torch.nn.functional.one_hot(labels, 3)
    bend = (start * (1 - start)).expand(80, -1)

    def worth(rows):
        return (slope[rows].sum(0) ** 2 / (bend[rows].sum(0) + l2)).sum()

    best = max(
        (float(worth(features[:, f] <= t) + worth(features[:, f] > t)), f, t)
        for f in range(3)
        for t in range(5)
    )
    side = features[:, best[1]] <= best[2]
    expected = start.log().expand(80, -1).clone()
    for rows in (side, ~side):
        expected[rows] -= rate * slope[rows].sum(0) / (bend[rows].sum(0) + l2)
    assert torch.allclose(trees.scores(features).double(), expected, atol=1e-5)


def test_every_round_brings_the_training_loss_down():
    features = table()
    labels = (features[:, 0] > 1).long() + (features[:, 1] > 3).long()
    losses = [
        torch.nn.functional.cross_entropy(
            grow(features, labels, Boosting(rounds=rounds, depth=2)).scores(features), labels
        ).item()
        for rounds in (1, 3, 6, 10)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]


def test_features_that_say_nothing_leave_the_commonest_class():
    labels = torch.tensor([0] * 10 + [1] * 30 + [2] * 5)
    trees = grow(torch.ones(45, 3), labels, QUICK)
    assert trees.predict(torch.rand(7, 3)).tolist() == [1] * 7
    shares = trees.scores(torch.ones(1, 3)).softmax(1)[0]
    assert torch.allclose(shares, torch.tensor([10, 30, 5]) / 45, atol=1e-4)


def test_the_order_of_rows_and_the_names_of_classes_do_not_matter():
    features = table()
    labels = ((features[:, 0] * 2 + features[:, 3]) % 3).long()
    order = torch.randperm(300, generator=generator(4))
    renamed = torch.tensor([2, 0, 1])
    plain = grow(features, labels, QUICK).predict(features)
    mixed = grow(features[order], renamed[labels[order]], QUICK).predict(features)
    assert torch.equal(renamed[plain], mixed)


def test_stretching_a_feature_changes_nothing():
    features = torch.randn(200, 3, generator=generator(2))
    labels = (features[:, 0] > 0.3).long() + (features[:, 1] > 0).long()
    plain = grow(features, labels, QUICK).predict(features)
    stretched = features * 2**5  # a power of two, so that no quantile is rounded
    assert torch.equal(plain, grow(stretched, labels, QUICK).predict(stretched))


def test_a_tree_may_look_at_its_columns_only_and_others_come_in_other_rounds():
    features = table(features=6)
    labels = (features[:, 5] > 2).long()
    one = Boosting(rounds=1, depth=1, columns=1)
    looks = [
        torch.equal(grow(features, labels, one, seed=seed).predict(features), labels)
        for seed in range(24)
    ]
    assert 0 < sum(looks) < 24
    assert torch.equal(
        grow(features, labels, Boosting(rounds=40, depth=1, columns=1)).predict(features), labels
    )


def test_classes_that_nothing_tells_apart_are_guessed_at_chance():
    labels = torch.randint(0, 4, (400,), generator=generator(5))
    features = torch.randn(400, 6, generator=generator(6))
    given = cross_validated(features, labels, folds_of(labels, 5), QUICK)
    assert (given == labels).float().mean() < 0.35


def test_what_a_feature_says_is_found_across_folds():
    labels = torch.arange(4).repeat_interleave(50)
    features = torch.stack([labels.float(), torch.randn(200, generator=generator(1))], dim=1)
    given = cross_validated(features, labels, folds_of(labels, 5), QUICK)
    assert torch.equal(given, labels)


def test_folds_hold_every_class_evenly():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 30)
    folds = folds_of(labels, 5)
    for label, count in ((0, 10), (1, 4), (2, 6)):
        assert torch.bincount(folds[labels == label], minlength=5).tolist() == [count] * 5
    assert torch.equal(folds, folds_of(labels, 5))
    assert not torch.equal(folds, folds_of(labels, 5, seed=1))


def test_a_group_is_tested_as_a_whole():
    labels = torch.arange(3).repeat(40)
    groups = torch.arange(120) // 10 * 7  # any numbers will do
    folds = folds_of(labels, 4, groups=groups)
    for group in groups.unique():
        assert len(folds[groups == group].unique()) == 1
    assert torch.bincount(folds).tolist() == [30] * 4


def test_what_only_the_group_betrays_is_not_learned_across_groups():
    groups = torch.arange(20).repeat_interleave(10)
    labels = groups % 4
    features = groups[:, None].float()
    fine = Boosting(rounds=10, depth=5, bins=32)
    alone = cross_validated(features, labels, folds_of(labels, 5), fine)
    apart = cross_validated(features, labels, folds_of(labels, 5, groups=groups), fine)
    assert (alone == labels).float().mean() > 0.95
    assert (apart == labels).float().mean() < 0.5


def test_what_cannot_be_grown_from_is_refused():
    with pytest.raises(InputError, match="a label of 0 or more"):
        grow(torch.zeros(3, 2), torch.zeros(2, dtype=torch.long))
    with pytest.raises(InputError, match="know 2 features, got 3"):
        grow(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), QUICK).scores(torch.zeros(1, 3))
    with pytest.raises(InputError, match="cannot be dealt out to 9 folds"):
        folds_of(torch.zeros(4, dtype=torch.long), 9)


@pytest.mark.parametrize(
    "settings",
    [
        {"rounds": 0},
        {"depth": 0},
        {"bins": 1},
        {"learning_rate": 0.0},
        {"l2": -1.0},
        {"columns": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match=f"{next(iter(settings))}.*must be|must be"):
        Boosting(**settings)
