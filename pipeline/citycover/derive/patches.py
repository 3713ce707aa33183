"""Patches: pixels of one class that hang together by their sides.

Labelled by runs instead of pixels: a row falls into runs of one class, runs of neighbouring rows that share a
class and a column hang together, and components of that graph are the patches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def label_patches(ranks: NDArray[np.int16]) -> NDArray[np.int32]:
    """(y, x) number of each pixel's patch, from 0; pixels without a class make patches, too.

    >>> label_patches(np.array([[1, 1, 2], [2, 1, 2]], np.int16)).tolist()
    [[0, 0, 1], [2, 0, 1]]
    """
    starts = np.ones(ranks.shape, np.bool_)
    starts[:, 1:] = ranks[:, 1:] != ranks[:, :-1]
    runs = (np.cumsum(starts.ravel(), dtype=np.int32) - 1).reshape(ranks.shape)
    # Two runs meet over whole stretches of columns; where a stretch begins, at least one of them does.
    meet = (ranks[1:] == ranks[:-1]) & (starts[1:] | starts[:-1])
    labels = joined(int(runs[-1, -1]) + 1, runs[:-1][meet], runs[1:][meet])
    return labels.astype(np.int32)[runs]


def joined(count: int, one: NDArray[np.integer], other: NDArray[np.integer]) -> Ids:
    """(count,) number of the group of each thing, where pairs of things belong together."""
    from scipy.sparse import coo_array  # takes a third of a second, which regions without a sieve need not
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
    labels: Ids = connected_components(links, directed=False)[1].astype(np.int64)
    return labels


def first_of(ids: NDArray[np.integer], values: NDArray[np.int16], count: int) -> NDArray[np.int16]:
    """(count,) the value of each patch, which all of its pixels share."""
    ranks = np.empty(count, np.int16)
    ranks[ids.ravel()] = values.ravel()
    return ranks


def unique_pairs(one: NDArray[np.integer], other: NDArray[np.integer]) -> tuple[Ids, Ids, Ids]:
    """Pairs of numbers, each once, and how often each occurred."""
    pairs = np.stack([one, other], axis=-1).reshape(-1, 2).astype(np.int64)
    if not len(pairs):
        return (np.zeros(0, np.int64),) * 3
    side = int(pairs.max()) + 1
    keys, counts = np.unique(pairs[:, 0] * side + pairs[:, 1], return_counts=True)
    return keys // side, keys % side, counts.astype(np.int64)
