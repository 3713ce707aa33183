"""Strips of the image, or of its dates, read ahead while the network computes."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

from citycover.engine.input import SweepInput
from citycover.engine.strips import Strip, StripSource
from citycover.plan.axis import coarse_axis
from citycover.read.reader import Hole, Reader


class Feed:
    """Strips of all band groups, date by date, read ahead by one row of windows in a thread of their own."""

    def __init__(self, given: SweepInput, columns: range, rows: range) -> None:
        self.given, self.columns, self.rows = given, columns, rows
        # Two strips and the end: the reader never waits for room, so closing never waits for it.
        self.queue: queue.Queue[tuple[int, list[Strip]] | BaseException | None] = queue.Queue(maxsize=3)
        given.stages.follow("forward", self.queue.qsize)
        self.free = threading.Semaphore(2)
        self.closed = threading.Event()
        self.sources: list[StripSource] = []
        self.taken: Counter[int] = Counter()
        """Holes of each source that were handed out."""
        self.thread = threading.Thread(target=self._read, name="citycover-reader", daemon=True)
        self.thread.start()

    def __iter__(self) -> Iterator[tuple[int, list[Strip]]]:
        while True:
            with self.given.stages.time("wait"):
                item = self.queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def release(self) -> None:
        """The strips handed out last are no longer looked at."""
        self.free.release()

    def take_holes(self) -> tuple[Hole, ...]:
        """Holes found since the last call, in pixels of the finest band group."""
        new: list[Hole] = []
        groups = itertools.cycle(self.given.card.groups)  # once more for each date
        for number, (source, group) in enumerate(zip(self.sources, groups, strict=False)):
            found = source.holes[self.taken[number] :]
            self.taken[number] += len(found)
            new += [Hole(hole.window.scale(group.ratio), hole.path, hole.reason) for hole in found]
        return tuple(new)

    def close(self) -> None:
        """Stop reading and wait for the thread."""
        self.closed.set()
        self.free.release()
        self.thread.join()

    def _read(self) -> None:
        try:
            readers = self.given.open_readers()
            try:
                self._read_strips(readers)
            finally:
                for reader in readers:
                    reader.close()
            self.queue.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            self.queue.put(error)

    def _read_strips(self, readers: Sequence[Reader]) -> None:
        plan = self.given.plan
        groups = self.given.card.groups
        assert len(readers) % len(groups) == 0, "each date has all groups"
        for group, reader in zip(itertools.cycle(groups), readers, strict=False):
            origin = (plan.origin[0] // group.ratio, plan.origin[1] // group.ratio)
            y, x = (coarse_axis(axis, group.ratio) for axis in (plan.y, plan.x))
            self.sources.append(StripSource(reader, y, x, self.columns, origin, group.fills))
        strips = [source.strips(self.rows[0]) for source in self.sources]
        for index in self.rows:
            self.free.acquire()
            if self.closed.is_set():
                return
            with self.given.stages.time("read"):
                row = [next(strip) for strip in strips]
            self.queue.put((index, row))
