"""The order of examples is a function of one number, and the thread that draws them never hangs or hides an error."""

import threading

import pytest
from toy import ToySource

from bottega.errors import DataError
from bottega.training.loader import Loader, Order


def positions(loader, count):
    with loader:
        return [loader.next().indices for _ in range(count)]


def test_every_epoch_shows_each_example_once_in_an_order_of_its_own():
    order = Order(10, seed=3)
    epochs = [[order.index(10 * e + i) for i in range(10)] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_does_not_depend_on_where_one_begins():
    walked, fresh = Order(10, seed=3), Order(10, seed=3)
    whole = [walked.index(p) for p in range(40)]
    assert [fresh.index(p) for p in range(25, 40)] == whole[25:]
    assert fresh.index(3) == whole[3]
    assert [Order(10, seed=4).index(p) for p in range(10)] != whole[:10]


def test_an_endless_source_is_walked_straight():
    order = Order(None, seed=0)
    assert [order.index(p) for p in (0, 5, 10**9)] == [0, 5, 10**9]


def test_an_empty_source_is_refused():
    with pytest.raises(DataError, match="no examples"):
        Order(0, seed=0)


def test_microbatches_of_all_processes_together_are_the_batch():
    def loader(rank, world, microbatch, start=0):
        return Loader(
            ToySource(None),
            Order(None, 0),
            start=start,
            batch_size=8,
            microbatch=microbatch,
            rank=rank,
            world_size=world,
        )

    assert positions(loader(0, 1, 8), 2) == [tuple(range(8)), tuple(range(8, 16))]
    assert positions(loader(0, 1, 4), 3) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert positions(loader(0, 2, 2), 3) == [(0, 1), (2, 3), (8, 9)]
    assert positions(loader(1, 2, 2), 3) == [(4, 5), (6, 7), (12, 13)]
    assert positions(loader(0, 1, 8, start=80), 1) == [tuple(range(80, 88))]


def test_no_more_than_asked_is_drawn_ahead_and_closing_stops_the_thread():
    source = ToySource(None)
    loader = Loader(source, Order(None, 0), start=0, batch_size=2, microbatch=2, prefetch=3)
    with loader:
        loader.next()
    assert len(source.asked) <= 2 * (1 + 3 + 1 + 1)
    assert not [t for t in threading.enumerate() if t.name == "bottega-loader"]


def test_an_error_in_the_thread_reaches_whoever_asks_for_a_batch():
    class Broken(ToySource):
        def batch(self, indices):
            if indices[0] >= 4:
                raise DataError("picture 4 is gone")
            return super().batch(indices)

    loader = Loader(Broken(None), Order(None, 0), start=0, batch_size=2, microbatch=2)
    with loader:
        assert loader.next().indices == (0, 1)
        assert loader.next().indices == (2, 3)
        with pytest.raises(DataError, match="picture 4 is gone"):
            loader.next()
