"""Batches drawn ahead of need by a background thread, in an order that one number fixes."""

import queue
import threading
from collections.abc import Iterator

import torch

from bottega import seeding
from bottega.data import Batch, Source
from bottega.errors import DataError


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


class Loader:
    """Iterates over the microbatches of one process, forever, some of them drawn ahead.

    A step takes ``batch_size`` positions; process ``rank`` takes the rank-th equal share of them, cut into
    microbatches.
    """

    def __init__(
        self,
        source: Source,
        order: Order,
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


__all__ = ["Loader", "Order"]
