"""Hands out columns of blocks to workers, and takes what comes back."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

from distributed import Client, Future, KilledWorker

from citycover.compute.cluster.connect import WORKER_SECONDS, count_workers
from citycover.compute.cluster.terms import Report, Work
from citycover.compute.cluster.worker import compute, request_stop
from citycover.engine.input import WINDOWS
from citycover.errors import MachineError, StoppedError
from citycover.job.watch import Watch
from citycover.machine.stages import Stages
from citycover.plan.columns import open_columns, share_out
from citycover.plan.plan import Block
from citycover.store.store import WorkingStore

_STOP_SECONDS = 120
"""How long workers may take over the batch in hand when a run is stopped."""

POLL = 0.2


class ClusterRun:
    """Hands pieces of columns of blocks to the workers of a cluster, and follows them."""

    def __init__(self, client: Client, work: Work, watch: Watch, stages: Stages) -> None:
        self.client, self.work, self.watch, self.stages = client, work, watch, stages
        self.windows = dict.fromkeys(WINDOWS, 0)
        self.workers = 0
        """Most workers that were there at a time."""
        self.peak_rss = 0
        """Bytes of memory that a worker held at most."""
        self.flying: dict[str, tuple[Future[Report], Sequence[Block]]] = {}
        """Pieces in the hands of the cluster, by the key of their task."""
        stages.follow("workers", lambda: len(self.flying))
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.told: set[tuple[int, int]] = set()
        self.alive = time.monotonic()

    def compute(self, finished: set[tuple[int, int]]) -> None:
        """Compute all blocks but the finished ones.

        Raises:
            StoppedError: `watch.stop` was set; what was finished is in the store.
            CitycoverError: a worker met something that the user can mend.
            MachineError: workers die over a block, or there are none.
        """
        plan = self.work.plan
        count = plan.block_counts[0] * plan.block_counts[1] - len(finished)
        workers = count_workers(self.client)
        pieces = share_out(open_columns(plan.blocks(), finished), count, workers)
        self.client.subscribe_topic(self.work.terms.run, self._hear)
        try:
            while self._refill(pieces):
                key = self._wait()
                if self.watch.stop.is_set():
                    raise StoppedError
                if key is not None:
                    self._collect(*self.flying.pop(key))
        finally:
            self._end()

    def _refill(self, pieces: Iterator[Sequence[Block]]) -> bool:
        """One run in flight for each worker, and one more on a scheduler of others; whether any is."""
        workers = count_workers(self.client)
        now = time.monotonic()
        self.alive = now if workers else self.alive
        self.workers = max(self.workers, workers)
        if now - self.alive > WORKER_SECONDS:
            raise MachineError(
                f"the cluster has had no worker for {WORKER_SECONDS} s; start workers and run the same "
                "command again: finished blocks are kept"
            )
        # Clusters that adapt start a worker only where a task waits for one.
        waiting = 1 if workers and self.client.cluster is None else 0
        while len(self.flying) < workers + waiting and (piece := next(pieces, None)) is not None:
            first, last = piece[0].index, piece[-1].index
            key = f"blocks-{first[0]}-to-{last[0]}-of-column-{first[1]}-{self.work.terms.run}"
            future = self.client.submit(compute, self.work, piece, key=key, pure=False)
            self.flying[key] = (future, piece)
            future.add_done_callback(lambda ended: self.ended.put(ended.key))
        return bool(self.flying)

    def _wait(self) -> str | None:
        """The next run that ended; None after a moment without one."""
        with contextlib.suppress(queue.Empty):
            return self.ended.get(timeout=POLL)
        return None

    def _collect(self, future: Future[Report], blocks: Sequence[Block]) -> None:
        """Take the report of a run, or raise what ended it."""
        try:
            report = future.result()
        except KilledWorker as error:
            raise MachineError(self._blame(blocks, error)) from None
        self.stages.merge(report.seconds)
        self.peak_rss = max(self.peak_rss, report.peak_rss)
        for name, count in report.windows.items():
            self.windows[name] += count
        for block in report.done:
            self._tell(block)

    def _blame(self, blocks: Sequence[Block], error: KilledWorker) -> str:
        with WorkingStore.open(self.work.store) as store:
            there = store.finished()
        block = next((b for b in blocks if b.index not in there), blocks[-1])
        return (
            f"workers died {error.allowed_failures + 1} times over block {block.index} (pixels from row "
            f"{block.window.row}, column {block.window.col}), most often for want of memory; give a smaller "
            "--batch or --window or fewer --workers, and look at the logs of the workers"
        )

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """Progress of a worker; called in the client's event loop."""
        message = event[1]
        if "windows" in message:
            self.watch.predicted(message["windows"])
        else:
            self._tell(self.work.plan.block(*message["block"]))

    def _tell(self, block: Block) -> None:
        """Tell of a block once: events may come late, or be lost with their worker."""
        if block.index not in self.told:
            self.told.add(block.index)
            self.watch.advanced(block)

    def _end(self) -> None:
        """Leave no worker computing: the lock on the folder goes next.

        Workers that cannot be told, because the scheduler is lost, find the lease gone and end, too.
        """
        if self.client.status == "running":
            with contextlib.suppress(OSError, TimeoutError, CancelledError):
                self._stop_workers()
        self.flying.clear()

    def _stop_workers(self) -> None:
        self.client.unsubscribe_topic(self.work.terms.run)
        if self.flying and count_workers(self.client):  # the latter does not wait forever, `run` does
            self.client.run(request_stop, self.work.terms.run, on_error="ignore")
        until = time.monotonic() + _STOP_SECONDS
        while self.flying and time.monotonic() < until and count_workers(self.client):
            if (key := self._wait()) is not None:
                self.flying.pop(key, None)
        for future, _ in self.flying.values():
            future.cancel()
