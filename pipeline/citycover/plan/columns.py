"""Unfinished blocks in columns, and how they are shared out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from citycover.plan.plan import Block

_SHARE = 0.75
"""Part of what is left that all workers together would be handed."""


def open_columns(blocks: Iterable[Block], finished: set[tuple[int, int]]) -> Iterator[list[Block]]:
    """Columns of vertical neighbours among the unfinished blocks: within one, open rows carry over.

    A finished block parts a column in two.

    Args:
        blocks: from top to bottom, then from left to right; looked at only as far as columns are asked for.
        finished: indices of those that are left out.
    """
    column: list[Block] = []
    for block in blocks:
        follows = bool(column) and column[-1].index[1] == block.index[1]
        if column and (block.index in finished or not follows):
            yield column
            column = []
        if block.index not in finished:
            column.append(block)
    if column:
        yield column


class Pieces:
    """Blocks to be computed, handed out in pieces of columns that become shorter towards the end.

    A piece is a share of what is left for each worker that is there when it is drawn: few cuts, because each
    computes a row of windows again, and an even end, however many workers come and go.
    Source: Polychronopoulos, Kuck, "Guided self-scheduling", 1987.

    >>> pieces = Pieces([range(20), range(12)], 32)
    >>> [len(pieces.draw(2)) for _ in range(9)]
    [12, 8, 4, 3, 2, 1, 1, 1, 0]
    """

    def __init__(self, columns: Iterable[Sequence[Block]], blocks: int) -> None:
        """Take columns of vertically adjacent blocks, which are looked at only as far as pieces are drawn.

        Args:
            columns: from left to right.
            blocks: how many there are in all of them.
        """
        self._columns = iter(columns)
        self._rests: list[Sequence[Block]] = []
        self.left = blocks
        """Blocks that nobody has."""

    def draw(self, workers: int) -> Sequence[Block]:
        """The next piece, for one of so many workers; empty where nothing is left."""
        column = self._rests.pop() if self._rests else next(self._columns, ())
        length = max(1, round(self.left * _SHARE / workers))
        piece, rest = column[:length], column[length:]
        self.left -= len(piece)
        if rest:
            self._rests.append(rest)
        return piece

    def put_back(self, blocks: Sequence[Block]) -> None:
        """Let what was drawn, and not computed, be drawn again."""
        if blocks:
            self._rests.append(blocks)
            self.left += len(blocks)
