"""Edges are compared as one would by eye: near is right, and what is missing or too much counts."""

import numpy as np
import pytest

from bottega.errors import InputError
from bottega.evaluation.edge_match import match_edges


def column(at: int, size: int = 8) -> np.ndarray:
    edges = np.zeros((size, size), bool)
    edges[:, at] = True
    return edges


def test_the_same_edges_match_altogether():
    match = match_edges([column(3)], [column(3)], tolerance_px=0)
    assert (match.precision, match.recall, match.f_measure) == (1, 1, 1)


def test_one_pixel_off_is_forgiven_by_a_tolerance_of_one_alone():
    for tolerance, wanted in ((0, 0.0), (1, 1.0)):
        match = match_edges([column(3)], [column(4)], tolerance_px=tolerance)
        assert match.f_measure == wanted


def test_too_much_costs_precision_and_too_little_costs_recall():
    both = column(1) | column(6)
    much = match_edges([both], [column(1)])
    assert (much.precision, much.recall) == (0.5, 1)
    little = match_edges([column(1)], [both])
    assert (little.precision, little.recall) == (1, 0.5)
    assert much.f_measure == little.f_measure == pytest.approx(2 / 3)


def test_pixels_of_all_pictures_count_alike():
    none = np.zeros((8, 8), bool)
    match = match_edges([column(3), none], [column(3), column(3)])
    assert (match.precision, match.recall) == (1, 0.5)
    swapped = match_edges([none, column(3)], [column(3), column(3)])
    assert swapped == match


def test_nothing_wanted_and_nothing_found_is_right():
    none = np.zeros((4, 4), bool)
    assert match_edges([none], [none]).f_measure == 1


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="got 1 and 2"):
        match_edges([column(1)], [column(1)] * 2)
    with pytest.raises(InputError, match="got 0 and 0"):
        match_edges([], [])
    with pytest.raises(InputError, match="must be of one size"):
        match_edges([column(1)], [column(1, size=9)])
