"""Runs of blocks, how workers share them, and how one process computes them: inference, reader, writer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from citycover.allocator import release_memory
from citycover.planning import Block
from citycover.sweep import FinishedBlock, SweepInput, sweep

_SHARE = 0.75
"""Part of what is left that is handed out in equal runs, before runs become shorter."""


class BlockSink(Protocol):
    """Where finished blocks go, and what knows which of them are there."""

    def finished(self) -> set[tuple[int, int]]:
        """(y, x) indices of the blocks that need not be computed again."""
        ...

    def write(self, finished: FinishedBlock) -> None:
        """Keep a block for good. Called from one thread."""
        ...


def open_runs(blocks: Iterable[Block], finished: set[tuple[int, int]]) -> Iterator[list[Block]]:
    """Unfinished blocks as runs of vertical neighbours: within a run, open rows carry over.

    Args:
        blocks: column after column, each from top to bottom; looked at only as far as runs are asked for.
        finished: indices of those that are left out.
    """
    run: list[Block] = []
    for block in blocks:
        follows = bool(run) and run[-1].index[1] == block.index[1]
        if run and (block.index in finished or not follows):
            yield run
            run = []
        if block.index not in finished:
            run.append(block)
    if run:
        yield run


def share_out(runs: Iterable[Sequence[Block]], blocks: int, workers: int) -> Iterator[Sequence[Block]]:
    """Cut runs into pieces that become shorter towards the end.

    Three quarters of what is left go in equal pieces, one a worker, then three quarters of the rest, and so
    on to single blocks: few cuts, because each computes a row of windows again, and an even end.
    Source: Flynn Hummel, Schonberg, Flynn, "Factoring: a method for scheduling parallel loops", 1992.

    Args:
        runs: vertically adjacent blocks each; looked at only as far as pieces are asked for.
        blocks: how many there are in all runs.
        workers: that share them.

    >>> [len(piece) for piece in share_out([range(20), range(12)], 32, 2)]
    [12, 8, 4, 3, 3, 1, 1]
    """
    left, round_left, length = blocks, 0, 1
    for run in runs:
        rest = run
        while rest:
            if round_left <= 0:
                length = max(1, round(left * _SHARE / workers))
                round_left = length * workers
            cut = min(length, round_left)
            piece, rest = rest[:cut], rest[cut:]
            left -= len(piece)
            round_left -= len(piece)
            yield piece


def run_blocks(
    given: SweepInput,
    sink: BlockSink,
    on_block: Callable[[Block], None],
    blocks: Iterable[Block] | None = None,
) -> None:
    """Compute every unfinished block and hand it to the sink.

    Args:
        given: what to read and to ask.
        sink: written to from a thread of its own, in the order of the blocks.
        on_block: called after a block is safely in the sink.
        blocks: which ones, in the order of the plan; None: all of the plan.

    Raises:
        StoppedError: `given.stop` was set; blocks finished before are in the sink.
    """
    writer = _Writer(given, sink, on_block)
    try:
        for run in open_runs(given.plan.blocks() if blocks is None else blocks, sink.finished()):
            for finished in sweep(given, run):
                with given.stages.time("handover"):
                    writer.put(finished)
            release_memory()  # gaps between what was kept grow with time: each run begins without
    finally:
        writer.close()
        writer.check()  # what went wrong there comes before the StoppedError that it causes here


class _Writer:
    """Writes blocks behind the back of the inference thread; at most one waits."""

    def __init__(self, given: SweepInput, sink: BlockSink, on_block: Callable[[Block], None]) -> None:
        self.given, self.sink, self.on_block = given, sink, on_block
        self.queue: queue.Queue[FinishedBlock | None] = queue.Queue(maxsize=1)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._write, name="citycover-writer", daemon=True)
        self.thread.start()

    def put(self, finished: FinishedBlock) -> None:
        """Hand over a block; waits while another waits."""
        self.queue.put(finished)

    def close(self) -> None:
        """Write what waits, then end."""
        self.queue.put(None)
        self.thread.join()

    def check(self) -> None:
        """Raise here what went wrong there."""
        if self.error is not None:
            raise self.error

    def _write(self) -> None:
        while (finished := self.queue.get()) is not None:
            if self.error is not None:
                continue
            try:
                with self.given.stages.time("encode"):
                    self.sink.write(finished)
                self.on_block(finished.block)
            except BaseException as error:  # noqa: BLE001 - raised again in the inference thread
                self.error = error
                self.given.stop.set()  # the sweep ends after the batch in hand
