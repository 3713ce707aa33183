"""The sweep: one column of blocks, from top to bottom, one row of windows at a time.

```
reader thread ─▶ strip (raw, reflected, filled) ─▶ windows ─▶ network ─▶ probabilities of the voting area
                                                                              │ blended along x, then y
     finished blocks ◀─ rows of every layer, nodata where invalid         ◀─┘
```

Memory is bounded by the width of a block: two strips, the shared stripes and the blocks in hand. A block
that follows the one above it goes on with its open rows; any other begins anew and computes them again, with
the same result.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from citycover.engine.canvas import Canvas, FinishedBlock
from citycover.engine.feed import Feed
from citycover.engine.input import SweepInput
from citycover.engine.rows import RowMaker
from citycover.geometry.window import Window
from citycover.plan.plan import Block


def sweep(given: SweepInput, blocks: Sequence[Block]) -> Iterator[FinishedBlock]:
    """Compute vertically adjacent blocks of one column, and yield each as it is finished.

    Raises:
        StoppedError: `given.stop` was set; the batch in hand was finished, the block in hand is dropped.
    """
    assert all(b.index == (a.index[0] + 1, a.index[1]) for a, b in itertools.pairwise(blocks))
    columns = range(*blocks[0].columns)
    top, bottom = blocks[0].window, blocks[-1].window
    area = Window(top.row, top.col, bottom.row_end - top.row, top.width)
    feed = Feed(given, columns, range(blocks[0].rows[0], blocks[-1].rows[1]))
    rows = RowMaker(given, columns, area)
    canvases = (Canvas(block, given.layers, len(given.card.channels)) for block in blocks)
    canvas = next(canvases)
    try:
        for index, strips in feed:
            piece = rows.make(index, strips)
            feed.release()
            while piece is not None and canvas.put(piece):
                yield canvas.finished(feed.take_holes())
                if canvas.block is blocks[-1]:
                    return
                canvas = next(canvases)  # takes what lies below
    finally:
        feed.close()
