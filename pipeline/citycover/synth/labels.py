"""Coarse labels as a free product would give them.

Majority of a cell, on a grid that lies a little off, blind to small things, confused between classes, and
here and there out of date.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from citycover.synth.materials import Cover
from citycover.synth.noise import hashed, key
from citycover.synth.parameters import CITY, CoarseLabels

U8 = NDArray[np.uint8]

_BITS = 10
"""Bits per class in a packed count: a 10 x 10 cell holds 100, a 30 x 30 one 900 of at most 1023."""

_PACK = np.array([0, *(1 << (_BITS * i) for i in range(len(Cover)))], np.uint64)


class LabelMaker:
    """Turns the truth, row by row from the top, into rows of 10 m and 30 m labels.

    It holds back what does not fill a row of 30 m cells yet: at most 33 rows of the truth.
    """

    def __init__(self, seed: int, shape: tuple[int, int], parameters: CoarseLabels = CITY.labels) -> None:
        self._seed = seed
        self._shape = shape
        self._parameters = parameters
        self._cells = -(-shape[0] // 30), -(-shape[1] // 30)
        self._held: list[U8] = []
        self._held_from = 0  # truth row of the first held row
        self._next = 0  # row of 30 m cells

    def add(self, rows: U8) -> Iterator[tuple[int, U8, U8]]:
        """Take more rows of the truth.

        Yields:
            (i, ten, thirty): row `i` of 30 m cells; `ten` holds the three rows of 10 m cells in it. Both
            are as wide as whole 30 m cells, and the last may reach below the raster.
        """
        self._held.append(rows)
        ends_at = self._held_from + sum(len(r) for r in self._held)
        last = ends_at == self._shape[0]
        begin = self._next * 30 + self._parameters.offset[0]
        ready = (ends_at - begin) // 30
        wanted = self._cells[0] - self._next if last else max(ready, 0)
        if wanted <= 0:
            return
        held = np.concatenate(self._held)
        for i in range(self._next, self._next + wanted):
            yield i, *self._row(i, held)
        self._next += wanted
        keep = min(max(self._next * 30 + self._parameters.offset[0] - self._held_from, 0), len(held) - 1)
        self._held, self._held_from = [held[keep:].copy()], self._held_from + keep

    def _row(self, i: int, held: U8) -> tuple[U8, U8]:
        down, right = self._parameters.offset
        # Cells that reach beyond the raster see its border repeated.
        rows = np.clip(np.arange(30) + i * 30 + down - self._held_from, 0, len(held) - 1)
        cols = np.clip(np.arange(self._cells[1] * 30) + right, 0, self._shape[1] - 1)
        packed = _PACK[held[rows][:, cols]]
        ten = packed.reshape(3, 10, -1).sum(axis=1).reshape(3, -1, 10).sum(axis=2)
        thirty = ten.sum(axis=0, keepdims=True).reshape(1, -1, 3).sum(axis=2)
        return self._classify(ten, i * 3, 10), self._classify(thirty, i, 30)

    def _classify(self, packed: NDArray[np.uint64], first_row: int, size: int) -> U8:
        """Majority, then errors; `packed` is (rows, cells) counts of all classes."""
        shifts = np.arange(len(Cover), dtype=np.uint64)[:, None, None] * np.uint64(_BITS)
        counts = (packed[None] >> shifts) & np.uint64((1 << _BITS) - 1)  # (class, rows, cells)
        weight = np.array(self._parameters.visibility, np.float32)[:, None, None]
        label = np.argmax(counts.astype(np.float32) * weight, axis=0)
        rows = np.arange(first_row, first_row + packed.shape[0], dtype=np.int32)[:, None]
        cols = np.arange(packed.shape[1], dtype=np.int32)[None, :]
        label = self._outdate(self._confuse(label, rows, cols, size), rows, cols, size)
        return (label + 1).astype(np.uint8)

    def _confuse(
        self, label: NDArray[np.intp], rows: NDArray[np.int32], cols: NDArray[np.int32], size: int
    ) -> NDArray[np.intp]:
        """Draw the given class from its row of the confusion matrix; a clump shares half of the draws."""
        clump = self._parameters.clump
        own = hashed(key(self._seed, f"confuse-{size}"), rows, cols)
        shared = hashed(key(self._seed, f"clump-{size}"), rows // clump, cols // clump)
        draw = np.where(own & 1 == 1, own, shared).astype(np.float64) / 2**32
        limits = np.cumsum(np.array(self._parameters.confusion), axis=1)
        return np.asarray((draw[..., None] >= limits[label][..., :-1]).sum(axis=-1))

    def _outdate(
        self, label: NDArray[np.intp], rows: NDArray[np.int32], cols: NDArray[np.int32], size: int
    ) -> NDArray[np.intp]:
        """Patches that were mapped before they changed: one class all over."""
        patch, share = self._parameters.change
        bits = hashed(key(self._seed, "change"), rows * size // patch, cols * size // patch)
        before = np.array([Cover.GRASS, Cover.GRASS, Cover.SOIL, Cover.TREE, Cover.BUILDING, Cover.PAVED]) - 1
        stale = (bits >> np.uint32(8)).astype(np.float64) / 2**24 < share
        return np.where(stale, before[(bits & np.uint32(0xFF)) % np.uint32(len(before))], label)


def coarse_labels(seed: int, truth: U8) -> tuple[U8, U8]:
    """The 10 m and 30 m labels of a whole truth raster that lies at the city's origin."""
    maker = LabelMaker(seed, (truth.shape[0], truth.shape[1]))
    bounds = [*range(0, truth.shape[0], 512), truth.shape[0]]
    parts = [part for a, b in pairwise(bounds) for part in maker.add(truth[a:b])]
    ten = np.concatenate([p[1] for p in parts])
    thirty = np.concatenate([p[2] for p in parts])
    n10, n30 = ([-(-s // size) for s in truth.shape] for size in (10, 30))
    return ten[: n10[0], : n10[1]], thirty[: n30[0], : n30[1]]
