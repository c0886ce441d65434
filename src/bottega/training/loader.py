"""Batches drawn ahead of need by a background thread, in an order that one number fixes."""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch

from bottega import seeding
from bottega.data import Batch, Source, groups_of
from bottega.errors import DataError


@runtime_checkable
class Walk(Protocol):
    """An endless walk through the examples of a source."""

    def index(self, position: int) -> int:
        """The example at a position, counted in images from the start of the run."""
        ...


class Order:
    """Which example comes at which position of an endless walk through a source.

    A finite source is shuffled anew for each epoch. An endless one is walked straight, since its examples are drawn
    at random already. Both are functions of (seed, position), so a resumed run needs only its position.
    """

    def __init__(self, num_examples: int | None, seed: int) -> None:
        """Walk a source of ``num_examples``, or an endless one for None.

        Raises:
            DataError: If there are no examples at all.
        """
        if num_examples is not None and num_examples < 1:
            raise DataError("the source holds no examples; nothing can be learned from it")
        self.num_examples = num_examples
        self._seed = seed
        self._epoch = -1
        self._shuffled: list[int] = []

    def index(self, position: int) -> int:
        """The example at a position, counted in images from the start of the run."""
        if self.num_examples is None:
            return position
        epoch, place = divmod(position, self.num_examples)
        if epoch != self._epoch:
            generator = seeding.generator(self._seed, "order", epoch)
            self._shuffled = torch.randperm(self.num_examples, generator=generator).tolist()
            self._epoch = epoch
        return self._shuffled[place]


class BucketOrder:
    """The same for a source whose pictures have several sizes: every step's batch comes from one bucket.

    All processes draw from the same bucket in a step, so that none waits for one with larger pictures, and the order is
    the same for any number of them. In an epoch every bucket gives the batches that its share of the pictures fills, in
    an order of its own; what does not fill a batch waits for the next epoch, so that no picture is left out, and all
    are seen equally often but for a batch.

    Source: RAPHAEL (arXiv:2305.18295), section 4, which allots GPUs to buckets by their numbers of pictures instead.
    """

    def __init__(
        self, groups: Sequence[Sequence[int]], seed: int, *, batch_size: int, start: int = 0
    ) -> None:
        """Walk groups of examples.

        Args:
            groups: The examples of every bucket.
            seed: Chooses the order.
            batch_size: Of a step, over all processes.
            start: Where this run begins or goes on; batches begin there even if those before were of another size.

        Raises:
            DataError: If there are no examples at all.
        """
        self._groups = [tuple(group) for group in groups if group]
        if not self._groups:
            raise DataError("the source holds no examples; nothing can be learned from it")
        self._seed, self._batch_size = seed, batch_size
        self._shift = start % batch_size
        self._within = [
            Order(len(group), seeding.derive(seed, "bucket", number))
            for number, group in enumerate(self._groups)
        ]
        self._epoch = -1
        self._planned: list[tuple[int, int]] = []

    def index(self, position: int) -> int:
        """The example at a position, counted in images from the start of the run."""
        step, place = divmod(position - self._shift, self._batch_size)
        bucket, batch = self._batch(step)
        return self._groups[bucket][self._within[bucket].index(batch * self._batch_size + place)]

    def _batch(self, step: int) -> tuple[int, int]:
        """Which bucket a step draws from, and which of its batches."""
        low, high = 0, (step + 1) * self._batch_size + 1  # at least one picture a batch
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._before(middle) <= step else (low, middle)
        if low != self._epoch:
            self._epoch, self._planned = low, self._plan(low)
        return self._planned[step - self._before(low)]

    def _before(self, epoch: int) -> int:
        """Batches of all epochs before one."""
        return sum(self._begun(number, epoch) for number in range(len(self._groups)))

    def _begun(self, bucket: int, epoch: int) -> int:
        return epoch * len(self._groups[bucket]) // self._batch_size

    def _plan(self, epoch: int) -> list[tuple[int, int]]:
        """The batches of an epoch in their order; those of one bucket keep theirs."""
        following = [self._begun(number, epoch) for number in range(len(self._groups))]
        drawn = [
            number
            for number, begun in enumerate(following)
            for _ in range(self._begun(number, epoch + 1) - begun)
        ]
        generator = seeding.generator(self._seed, "buckets", epoch)
        planned: list[tuple[int, int]] = []
        for place in torch.randperm(len(drawn), generator=generator).tolist():
            bucket = drawn[place]
            planned.append((bucket, following[bucket]))
            following[bucket] += 1
        return planned


def order_of(source: Source, seed: int, *, batch_size: int, start: int = 0) -> Walk:
    """The walk through a source that training takes; see `Order` and `BucketOrder`.

    Raises:
        DataError: If there are no examples at all.
    """
    groups = groups_of(source)
    if groups is None:
        return Order(source.num_examples, seed)
    return BucketOrder(groups, seed, batch_size=batch_size, start=start)


class Loader:
    """Iterates over the microbatches of one process, forever, some of them drawn ahead.

    A step takes ``batch_size`` positions; process ``rank`` takes the rank-th equal share of them, cut into
    microbatches.
    """

    def __init__(
        self,
        source: Source,
        order: Walk,
        *,
        start: int,
        batch_size: int,
        microbatch: int,
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 4,
    ) -> None:
        """Start drawing at position ``start``, at most ``prefetch`` microbatches ahead."""
        self._source, self._order = source, order
        self._start, self._batch_size, self._microbatch = start, batch_size, microbatch
        self._share = batch_size // world_size
        self._offset = rank * self._share
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=prefetch)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="bottega-loader", daemon=True)

    def __enter__(self) -> "Loader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def next(self) -> Batch:
        """The next microbatch; whatever stopped the thread is raised here."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def _draw(self) -> None:
        try:
            for positions in self._positions():
                batch = self._source.batch([self._order.index(p) for p in positions])
                if self._closed.is_set():
                    return
                self._ready.put(batch)
        except BaseException as error:  # carried to the thread that trains
            self._ready.put(error)

    def _positions(self) -> Iterator[range]:
        step = self._start
        while not self._closed.is_set():
            first = step + self._offset
            for at in range(first, first + self._share, self._microbatch):
                yield range(at, at + self._microbatch)
            step += self._batch_size


__all__ = ["BucketOrder", "Loader", "Order", "Walk", "order_of"]
