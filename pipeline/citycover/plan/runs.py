"""Blocks in columns, and how they are shared out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from citycover.plan.plan import Block

_SHARE = 0.75
"""Part of what is left that is handed out in equal runs, before runs become shorter."""


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
