"""The sweep: one column of blocks, from top to bottom, one row of windows at a time.

```
reader thread ─▶ strip (raw, reflected, filled) ─▶ windows ─▶ network ─▶ probabilities of the voting area
                                                                              │ blended along x, then y
     finished blocks ◀─ rows of every layer, nodata where invalid         ◀─┘
```

Where the device is a GPU, three threads keep it busy: one sends strips, one tells it what to do, and this one
waits for rows and puts them into blocks.

Memory is bounded by the width of a block: two strips, the shared stripes and the blocks in hand. A block
that follows the one above it goes on with its open rows; any other begins anew and computes them again, with
the same result.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial

from citycover.engine.ahead import Ahead
from citycover.engine.canvas import Canvas, FinishedBlock, Piece, Spare
from citycover.engine.feed import Feed
from citycover.engine.input import SweepInput
from citycover.engine.open_row import ComingRow
from citycover.engine.rows import PreparedRow, RowMaker
from citycover.geometry.window import Window
from citycover.plan.plan import Block


def sweep(given: SweepInput, blocks: Sequence[Block], spare: Spare | None = None) -> Generator[FinishedBlock]:
    """Compute vertically adjacent blocks of one column, and yield each as it is finished.

    Args:
        given: what to read and to ask.
        blocks: which.
        spare: given what was yielded, once nobody looks at it; None: whoever asks keeps it.

    Raises:
        StoppedError: `given.stop` was set; the batch in hand was finished, the block in hand is dropped.
    """
    assert all(b.index == (a.index[0] + 1, a.index[1]) for a, b in itertools.pairwise(blocks))
    columns = range(*blocks[0].columns)
    top, bottom = blocks[0].window, blocks[-1].window
    area = Window(top.row, top.col, bottom.row_end - top.row, top.width)
    rows = RowMaker(given, columns, area)
    spare = spare or Spare()
    canvases = (Canvas(block, given.layers, len(given.card.channels), spare) for block in blocks)
    canvas = next(canvases)
    with closing(Feed(given, columns, range(blocks[0].rows[0], blocks[-1].rows[1]))) as feed:
        for piece in _pieces(rows, feed):
            while canvas.put(piece):
                yield canvas.finished(feed.take_holes())
                if canvas.block is blocks[-1]:
                    return
                canvas = next(canvases)  # takes what lies below


def _pieces(rows: RowMaker, feed: Feed) -> Iterator[Piece]:
    """Rows of output from top to bottom."""
    prepared = _prepared(rows, feed)
    coming: Iterable[ComingRow] = map(rows.make, prepared)
    stages = rows.given.stages
    with ExitStack() as threads:
        if rows.transfer.ahead:
            sent = threads.enter_context(Ahead(prepared, "citycover-upload"))
            coming = threads.enter_context(
                Ahead(map(rows.make, sent), "citycover-network", partial(stages.time, "device"))
            )
        for row in coming:
            if piece := row.arrived():
                yield piece


def _prepared(rows: RowMaker, feed: Feed) -> Iterator[PreparedRow]:
    for index, strips in feed:
        yield rows.prepare(index, strips)
        feed.release()
