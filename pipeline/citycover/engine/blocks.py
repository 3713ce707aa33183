"""How one process computes blocks: the threads that read, infer and write."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Protocol

from citycover.engine.canvas import FinishedBlock, Spare
from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.errors import device_errors
from citycover.machine.memory import release_memory
from citycover.machine.stop import PartialStop
from citycover.plan.columns import open_columns
from citycover.plan.plan import Block


class BlockSink(Protocol):
    """Where finished blocks go, and what knows which of them are there."""

    def finished(self, among: Sequence[Block] | None, /) -> set[tuple[int, int]]:
        """(y, x) indices of those blocks, or of all, that need not be computed again."""
        ...

    def write(self, finished: FinishedBlock) -> None:
        """Keep a block for good, but not its arrays: they are written into anew. Called from one thread."""
        ...


@device_errors()
def run_blocks(
    given: SweepInput,
    sink: BlockSink,
    on_block: Callable[[Block], None],
    blocks: Sequence[Block] | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Compute every unfinished block and hand it to the sink.

    Args:
        given: what to read and to ask.
        sink: written to from a thread of its own, in the order of the blocks.
        on_block: called after a block is safely in the sink.
        blocks: which ones, in the order of the plan; None: all of the plan.
        enough: asked after each block whether to leave the others.

    Raises:
        StoppedError: `given.stop` was set; blocks finished before are in the sink.
        DeviceError: the device failed; so they are.
    """
    given = replace(given, stop=PartialStop(given.stop))  # a block that is not written ends these alone
    writer = _Writer(given, sink, on_block)
    try:
        todo = open_columns(given.plan.blocks() if blocks is None else blocks, sink.finished(blocks))
        for column in todo:
            with closing(sweep(given, column, writer.spare)) as swept:
                for finished in swept:
                    with given.stages.time("handover"):
                        writer.put(finished)
                    if enough():
                        return
            release_memory()  # gaps between what was kept grow with time: each column begins without
    finally:
        writer.close()
        writer.check()  # what went wrong there comes before the StoppedError that it causes here


class _Writer:
    """Writes blocks behind the back of the inference thread; at most one waits."""

    def __init__(self, given: SweepInput, sink: BlockSink, on_block: Callable[[Block], None]) -> None:
        self.given, self.sink, self.on_block = given, sink, on_block
        self.spare = Spare()
        self.queue: queue.Queue[FinishedBlock | None] = queue.Queue(maxsize=1)
        given.stages.follow("encode", self.queue.qsize)
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
                self.spare.give(finished.layers)
                self.on_block(finished.block)
            except BaseException as error:  # noqa: BLE001 - raised again in the inference thread
                self.error = error
                self.given.stop.set()  # the sweep ends after the batch in hand
