"""One bucket a batch, whoever draws and wherever a run goes on; no picture is left out."""

from collections import Counter

import pytest
from toy import ToySource

from bottega.data import Batch
from bottega.errors import DataError
from bottega.training.embedded import EmbeddedSource
from bottega.training.loader import BucketOrder, Loader, Order, order_of

GROUPS = (tuple(range(50)), tuple(range(50, 57)), tuple(range(57, 60)), tuple(range(60, 100)))
BATCH = 8


class Shaped(ToySource):
    """Noise in four sizes; a batch of several is refused, as real sources refuse it."""

    groups = GROUPS

    def batch(self, indices) -> Batch:
        assert sum(bool(set(indices) & set(group)) for group in GROUPS) == 1
        return super().batch(indices)


def bucket_of(index: int) -> int:
    return next(number for number, group in enumerate(GROUPS) if index in group)


def walk(order: BucketOrder, first: int, last: int) -> list[int]:
    return [order.index(position) for position in range(first, last)]


def test_every_batch_is_of_one_bucket():
    drawn = walk(BucketOrder(GROUPS, 3, batch_size=BATCH), 0, 400 * BATCH)
    for at in range(0, len(drawn), BATCH):
        assert len({bucket_of(index) for index in drawn[at : at + BATCH]}) == 1


def test_all_pictures_are_seen_equally_often_but_for_a_batch():
    epochs = 64
    drawn = walk(BucketOrder(GROUPS, 3, batch_size=BATCH), 0, epochs * 100)
    seen = Counter(drawn)
    assert set(seen) == set(range(100))
    for group in GROUPS:
        times = [seen[index] for index in group]
        assert max(times) - min(times) <= 1 + BATCH // len(group)
        shown = sum(times)
        assert abs(shown - epochs * len(group)) <= 2 * BATCH


def test_the_pictures_of_a_bucket_are_shuffled_anew_and_none_comes_twice_before_all_came():
    drawn = walk(BucketOrder(GROUPS, 3, batch_size=BATCH), 0, 4000)
    large = [index for index in drawn if bucket_of(index) == 0]
    epochs = [tuple(large[at : at + 50]) for at in range(0, 500, 50)]
    assert all(sorted(epoch) == list(GROUPS[0]) for epoch in epochs)
    assert len(set(epochs)) == len(epochs)


def test_buckets_do_not_come_in_turns():
    drawn = walk(BucketOrder(GROUPS, 3, batch_size=BATCH), 0, 200 * BATCH)
    turns = "".join(str(bucket_of(index)) for index in drawn[::BATCH])
    assert "00" in turns and "33" in turns and "03" in turns and "30" in turns
    other = walk(BucketOrder(GROUPS, 4, batch_size=BATCH), 0, 200 * BATCH)
    assert drawn != other


@pytest.mark.parametrize("start", [BATCH, 17 * BATCH, 500 * BATCH])
def test_a_run_goes_on_where_it_stopped(start: int):
    whole = walk(BucketOrder(GROUPS, 3, batch_size=BATCH), 0, start + 50 * BATCH)
    resumed = BucketOrder(GROUPS, 3, batch_size=BATCH, start=start)
    assert walk(resumed, start, start + 50 * BATCH) == whole[start:]


def test_another_batch_size_on_the_way_keeps_batches_pure():
    start = 13 * BATCH
    drawn = walk(BucketOrder(GROUPS, 3, batch_size=6, start=start), start, start + 300)
    for at in range(0, len(drawn), 6):
        assert len({bucket_of(index) for index in drawn[at : at + 6]}) == 1


@pytest.mark.parametrize(("world_size", "microbatch"), [(1, 8), (1, 2), (2, 4), (4, 2), (8, 1)])
def test_any_number_of_processes_draws_the_same_batches(world_size: int, microbatch: int):
    def drawn(rank: int, world: int, micro: int, count: int) -> list[int]:
        order = order_of(Shaped(), 5, batch_size=BATCH)
        loader = Loader(
            Shaped(),
            order,
            start=0,
            batch_size=BATCH,
            microbatch=micro,
            rank=rank,
            world_size=world,
        )
        with loader:
            return [index for _ in range(count) for index in loader.next().indices]

    steps, share = 6, BATCH // world_size
    alone = drawn(0, 1, BATCH, steps)
    shares = [
        drawn(r, world_size, microbatch, steps * share // microbatch) for r in range(world_size)
    ]
    together = [
        index
        for step in range(steps)
        for one in shares
        for index in one[step * share : (step + 1) * share]
    ]
    assert together == alone


def test_few_pictures_still_fill_batches():
    order = BucketOrder([(0,), (1, 2)], 0, batch_size=BATCH)
    drawn = walk(order, 0, 30 * BATCH)
    for at in range(0, len(drawn), BATCH):
        assert set(drawn[at : at + BATCH]) in ({0}, {1, 2})
    seen = Counter(drawn)
    assert abs(seen[1] - seen[0]) <= BATCH and abs(seen[1] - seen[2]) <= BATCH


def test_a_source_of_one_size_is_walked_as_ever_and_wrappers_hand_groups_on():
    class Silent:
        def encode_texts(self, texts):
            return {}

    plain, shaped = ToySource(), Shaped()
    assert isinstance(order_of(plain, 5, batch_size=BATCH), Order)
    assert isinstance(order_of(EmbeddedSource(plain, Silent()), 5, batch_size=BATCH), Order)
    wrapped = EmbeddedSource(shaped, Silent())
    assert isinstance(order_of(wrapped, 5, batch_size=BATCH), BucketOrder)
    one, other = (order_of(source, 5, batch_size=BATCH) for source in (shaped, wrapped))
    assert walk(one, 0, 80) == walk(other, 0, 80)


def test_buckets_of_nothing_are_refused():
    with pytest.raises(DataError, match="no examples"):
        BucketOrder([(), ()], 0, batch_size=4)
