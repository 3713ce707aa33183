"""Hands out columns of blocks to workers, and takes what comes back."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any

from distributed import Client, KilledWorker

from citycover.compute.cluster.connect import workers_of
from citycover.compute.cluster.retries import Retries
from citycover.compute.cluster.roster import Roster
from citycover.compute.cluster.terms import Sign, Work
from citycover.compute.cluster.vigil import Flying, Vigil
from citycover.compute.cluster.worker import compute, hand_back, request_stop
from citycover.engine.input import WINDOWS
from citycover.errors import MachineError, StoppedError
from citycover.files.failures import is_passing
from citycover.files.store import Store
from citycover.job.watch import Watch
from citycover.machine.stages import Stages
from citycover.plan.columns import Pieces, open_columns
from citycover.plan.plan import Block
from citycover.store.store import WorkingStore

logger = logging.getLogger(__name__)

_STOP_SECONDS = 120
"""How long workers may take over the batch in hand when a run is stopped."""

_ANSWER_SECONDS = 5
"""How long a worker may take to hear something that it need not answer."""

POLL = 0.2


class ClusterRun:
    """Hands pieces of columns of blocks to the workers of a cluster, and follows them."""

    def __init__(self, client: Client, work: Work, watch: Watch, stages: Stages) -> None:
        self.client, self.work, self.watch, self.stages = client, work, watch, stages
        self.run = work.terms.run
        self.windows = dict.fromkeys(WINDOWS, 0)
        self.peak_rss = 0
        """Bytes of memory that a worker held at most."""
        self.pieces = Pieces((), 0)
        self.flying: dict[str, Flying] = {}
        """By the key of their task."""
        stages.follow("workers", lambda: len(self.flying))
        self.roster = Roster(client, work.terms)
        self.vigil = Vigil(client)
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.told: set[tuple[int, int]] = set()
        self._telling = threading.Lock()
        self.retries = Retries()
        self.drawn = 0

    def compute(self, finished: set[tuple[int, int]]) -> None:
        """Compute all blocks but the finished ones.

        Raises:
            StoppedError: `watch.stop` was set; what was finished is in the store.
            CitycoverError: a worker met something that the user can mend.
            MachineError: workers die over a block, or there are none.
        """
        plan = self.work.plan
        count = plan.block_counts[0] * plan.block_counts[1] - len(finished)
        self.pieces = Pieces(open_columns(plan.blocks(), finished), count)
        self.client.subscribe_topic(self.run, self._hear)
        try:
            while self.pieces.left or self.flying or self.retries:
                self._refill()
                key = self._wait()
                if key in self.flying:
                    self._collect(self.flying.pop(key))
                if self.watch.stop.is_set():
                    raise StoppedError
        finally:
            self._end()

    def _refill(self) -> None:
        """One piece in flight for each worker, and one more on a scheduler of others."""
        there = self.roster.there()
        for blocks in self.retries.due():
            self.pieces.put_back(blocks)
        # Clusters that adapt start a worker only where a task waits for one.
        waiting = 1 if there and self.client.cluster is None else 0
        while self.pieces.left and len(self.flying) < len(there) + waiting:
            self._hand_out(self.pieces.draw(len(there)), there)
        if not self.pieces.left and len(self.flying) < len(there):
            self._ask_back(len(there) - len(self.flying))
        self.vigil.wake(self.flying.values(), there)
        self._take_back(there)

    def _hand_out(self, piece: Sequence[Block], there: frozenset[str]) -> None:
        first, last = piece[0].index, piece[-1].index
        self.drawn += 1  # a block may be drawn again, and a key is never the same
        key = f"blocks-{first[0]}-to-{last[0]}-of-column-{first[1]}-{self.drawn}-{self.run}"
        bound_to = there if self.roster.unfit else frozenset()
        future = self.client.submit(
            compute, self.work, piece, key=key, pure=False, workers=sorted(bound_to) or None
        )
        self.flying[key] = Flying(future, piece, bound_to)
        future.add_done_callback(lambda ended: self.ended.put(ended.key))

    def _ask_back(self, idle: int) -> None:
        """Let those who have most left hand back what they have not begun, for workers that have nothing."""
        most = sorted(self.flying.items(), key=lambda item: -len(self._left_of(item[1])))
        for key, flight in most[:idle]:
            if flight.worker and not flight.asked and len(self._left_of(flight)) > 1:
                flight.asked = True
                say(self.client, hand_back, key, [flight.worker])

    def _left_of(self, flight: Flying) -> list[Block]:
        """The block in hand, as far as is known, and those below it."""
        return [block for block in flight.blocks if block.index not in self.told]

    def _take_back(self, there: frozenset[str]) -> None:
        """Put back pieces of which all who may compute them are gone."""
        for key, flight in list(self.flying.items()):
            if flight.bound_to and not flight.bound_to & there:
                flight.future.cancel()
                del self.flying[key]
                if (rest := _unfinished(self.work.store, flight.blocks, self.retries)) is not None:
                    self._put_back(flight.blocks, rest)

    def _wait(self) -> str | None:
        """The next piece that ended; None after a moment without one."""
        with contextlib.suppress(queue.Empty):
            return self.ended.get(timeout=POLL)
        return None

    def _collect(self, flight: Flying) -> None:
        """Take the report of a piece, or raise what ended it."""
        try:
            report = flight.future.result()
        except KilledWorker as error:
            self._bury(flight.blocks, error)
            return
        if report.unfit:
            self.roster.unfit[report.worker] = report.unfit  # it was handed a piece before it could be asked
        self.stages.merge(report.seconds)
        self.peak_rss = max(self.peak_rss, report.peak_rss)
        for name, count in report.windows.items():
            self.windows[name] += count
        if report.trouble and report.rest:
            self.retries.add(report.rest, report.trouble)
            self._tell_others(flight.blocks, report.rest)
        else:
            self._put_back(flight.blocks, report.rest)

    def _bury(self, blocks: Sequence[Block], error: KilledWorker) -> None:
        """Put back what dead workers left; where none of them finished a block, the first one is to blame."""
        if (rest := _unfinished(self.work.store, blocks, self.retries)) is None:
            return
        deaths = error.allowed_failures + 1
        if len(rest) == len(blocks):
            raise _blamed(rest[0], deaths)
        logger.warning("workers died %d times over %d blocks, and finished some", deaths, len(blocks))
        self._put_back(blocks, rest)

    def _put_back(self, piece: Sequence[Block], rest: Sequence[Block]) -> None:
        """Let the rest of a piece be drawn again."""
        self._tell_others(piece, rest)
        self.pieces.put_back(rest)

    def _tell_others(self, piece: Sequence[Block], rest: Sequence[Block]) -> None:
        """Tell of the other blocks of a piece: they may be news, lost with their worker."""
        for block in piece:
            if block not in rest:
                self._tell(block)

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """A word of a worker; called in the client's event loop."""
        sign = Sign(**event[1])
        if flight := self.flying.get(sign.piece):
            self.vigil.heard(flight, sign.worker)
        if sign.windows:
            self.watch.predicted(sign.windows)
        if sign.block is not None:
            self._tell(self.work.plan.block(*sign.block))

    def _tell(self, block: Block) -> None:
        """Tell of a block once: events, heard in another thread, may be late, or lost with their worker."""
        with self._telling:
            if block.index not in self.told:
                self.told.add(block.index)
                self.watch.advanced(block)

    def _end(self) -> None:
        """Leave no worker computing: the lock on the folder goes next.

        Workers that cannot be told, because the scheduler is lost, find the lease gone and end, too.
        """
        self.roster.leave()
        if self.client.status == "running":
            with contextlib.suppress(OSError, TimeoutError, CancelledError):
                self._stop_workers()
        self.flying.clear()

    def _stop_workers(self) -> None:
        self.client.unsubscribe_topic(self.run)
        if self.flying and workers_of(self.client):
            say(self.client, request_stop, self.run)
        until = time.monotonic() + _STOP_SECONDS
        while self.flying and time.monotonic() < until and workers_of(self.client):
            if (key := self._wait()) is not None:
                self.flying.pop(key, None)
        for flight in self.flying.values():
            flight.future.cancel()


def _unfinished(store: Store, blocks: Sequence[Block], retries: Retries) -> Sequence[Block] | None:
    """Those of a piece that are not in the ledger; None: it is away, and all are tried again."""
    try:
        with WorkingStore.open(store) as opened:
            there = opened.finished([block.index for block in blocks])
    except MachineError as error:
        if not is_passing(error):
            raise
        retries.add(blocks, str(error))
        return None
    return [block for block in blocks if block.index not in there]


def say(client: Client, what: Callable[[str], None], about: str, workers: list[str] | None = None) -> None:
    """Tell workers, or all, something; one that does not hear it hangs, or is dead: no harm."""
    with contextlib.suppress(OSError, TimeoutError, CancelledError):
        client.run(what, about, workers=workers, on_error="ignore", callback_timeout=_ANSWER_SECONDS)


def _blamed(block: Block, deaths: int) -> MachineError:
    return MachineError(
        f"workers died {deaths} times over block {block.index} (pixels from row {block.window.row}, column "
        f"{block.window.col}), most often for want of memory; give a smaller --batch or --window or fewer "
        "--workers, and look at the logs of the workers"
    )
