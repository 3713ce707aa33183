"""Unfinished blocks in columns, and how they are shared out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from citycover.plan.plan import Block

_SHARE = 0.75
"""Part of what is left that is handed out in equal pieces, before they become shorter."""


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


def share_out(columns: Iterable[Sequence[Block]], blocks: int, workers: int) -> Iterator[Sequence[Block]]:
    """Cut columns into pieces that become shorter towards the end.

    Three quarters of what is left go in equal pieces, one a worker, then three quarters of the rest, and so
    on to single blocks: few cuts, because each computes a row of windows again, and an even end.
    Source: Flynn Hummel, Schonberg, Flynn, "Factoring: a method for scheduling parallel loops", 1992.

    Args:
        columns: vertically adjacent blocks each; looked at only as far as pieces are asked for.
        blocks: how many there are in all columns.
        workers: that share them.

    >>> [len(piece) for piece in share_out([range(20), range(12)], 32, 2)]
    [12, 8, 4, 3, 3, 1, 1]
    """
    left, round_left, length = blocks, 0, 1
    for column in columns:
        rest = column
        while rest:
            if round_left <= 0:
                length = max(1, round(left * _SHARE / workers))
                round_left = length * workers
            cut = min(length, round_left)
            piece, rest = rest[:cut], rest[cut:]
            left -= len(piece)
            round_left -= len(piece)
            yield piece
