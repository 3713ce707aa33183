"""The majority filter: each pixel takes the class that most pixels around it have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from citycover.classes.table import NO_CLASS


def majority(ranks: NDArray[np.int16], side: int) -> NDArray[np.int16]:
    """(y, x) most frequent class in the square of `side` pixels around each pixel.

    Nodata has no vote and stays. Of classes with as many votes, the pixel's own wins, then the first of the
    legend. At the edge the square is cut off: pixels nearer to a cut than `side // 2` need what lies beyond.

    >>> majority(np.array([[0, 0, 1], [0, 1, 0], [0, 0, -1]], np.int16), 3).tolist()
    [[0, 0, 1], [0, 0, 0], [0, 0, -1]]
    """
    best, most = ranks.copy(), np.zeros(ranks.shape, np.int32)
    for rank in np.unique(ranks[ranks != NO_CLASS]).tolist():
        own = ranks == rank
        score = 2 * _votes(own, side) + own  # of as many votes, one's own are ahead
        more = score > most
        best[more], most[more] = rank, score[more]
    best[ranks == NO_CLASS] = NO_CLASS
    return best


def _votes(of_class: NDArray[np.bool_], side: int) -> NDArray[np.int32]:
    """(y, x) pixels of a class in the square around each pixel."""
    votes: NDArray[np.int32] = of_class.astype(np.int32)
    for axis in (0, 1):
        length, reach = votes.shape[axis], side // 2
        total = np.concatenate([np.zeros_like(votes.take([0], axis)), np.cumsum(votes, axis, np.int32)], axis)
        at = np.arange(length)
        ahead, behind = np.minimum(at + reach + 1, length), np.maximum(at - reach, 0)
        votes = total.take(ahead, axis) - total.take(behind, axis)
    return votes
