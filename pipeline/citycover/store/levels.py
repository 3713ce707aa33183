"""What is made of a block beside its pixels: the overviews whose cells lie whole inside it, and statistics.

    level 0   +---+---+---+---+---+---+---+---+    a block of 4 x 8 cells
              ...
    level 1   +---+---+---+---+                    its half: 2 x 4 cells, no neighbour has a part in them
    level 2   +---+---+                            1 x 2 cells; of level 3 it would be half a cell

Each level is a sharded array like the one it is made of, cut into as many blocks. Along an axis that one
block spans nothing bounds the levels. Whoever computes a block makes them, so that publishing only copies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.store.pyramid import HALVE, level_shapes
from citycover.store.shard import ArraySpec, Layout, ShardedArray
from citycover.store.spread import spread
from citycover.store.statistics import Statistics, tile_statistics

_PART = 1 << 18, 1 << 20
"""Pixels that are made, or looked at, at once. At least so many that threads do not wait for each other's
interpreter lock, at most so many that memory stays small."""

_PARTS = 16
"""Of a plane at least, where that leaves them large enough."""


def block_levels(layout: Layout) -> tuple[Layout, ...]:
    """The raster and the overviews that are made block by block, each half as fine as the one before.

    >>> [one.block for one in block_levels(Layout((9000, 9000), (2048, 4096)))]
    [(2048, 4096), (1024, 2048), (512, 1024)]
    >>> [one.block for one in block_levels(Layout((900, 1300), (1024, 1536)))]
    [(1024, 1536), (512, 1024), (512, 512)]
    """
    levels = []
    for number, shape in enumerate(level_shapes(layout.shape, min(layout.cell))):
        tall, wide = (_cells(layout, axis, 2**number) for axis in (0, 1))
        if not (tall and wide):
            break
        levels.append(Layout(shape, (tall * layout.cell[0], wide * layout.cell[1]), layout.cell))
    return tuple(levels)


def _cells(layout: Layout, axis: int, factor: int) -> int:
    """Cells along a block of an overview; 0 where blocks would meet inside of one."""
    whole, rest = divmod(layout.cells[axis], factor)
    if layout.blocks[axis] == 1:
        return math.ceil(layout.cells[axis] / factor)
    return 0 if rest else whole


def halve_block(values: NDArray[np.uint8], spec: ArraySpec, pool: Executor) -> NDArray[np.uint8]:
    """([channel,] y, x) of the next level, halves rounded up; what lies beyond the block does not vote.

    Args:
        values: ([channel,] y, x) of a block.
        spec: its nodata, and how it is halved.
        pool: computes.
    """
    planes = values.reshape(-1, *values.shape[-2:])  # (plane, y, x)
    shape = (values.shape[-2] + 1) // 2, (values.shape[-1] + 1) // 2
    half = np.empty((len(planes), *shape), np.uint8)

    def make(place: tuple[int, slice]) -> None:
        plane, rows = place
        half[plane, rows] = _half(planes[plane, 2 * rows.start : 2 * rows.stop], spec)

    places = list(itertools.product(range(len(planes)), _bands(shape)))
    for _ in spread(pool, make, places):
        pass
    return half.reshape(*values.shape[:-2], *shape)


def _half(pixels: NDArray[np.uint8], spec: ArraySpec) -> NDArray[np.uint8]:
    if any(n % 2 for n in pixels.shape):
        pixels = np.pad(pixels, [(0, n % 2) for n in pixels.shape], constant_values=spec.fill)
    return HALVE[spec.overviews](pixels, spec.fill)


def block_statistics(values: NDArray[np.uint8], spec: ArraySpec, pool: Executor) -> tuple[Statistics, ...]:
    """Of each channel of a block; of the block, where it has none.

    Args:
        values: ([channel,] y, x) of a block.
        spec: its nodata, and the ids that are counted.
        pool: computes.
    """
    planes = values.reshape(-1, *values.shape[-2:])  # (plane, y, x)
    places = list(itertools.product(range(len(planes)), _bands(planes.shape[1:])))

    def look(place: tuple[int, slice]) -> Statistics:
        return tile_statistics(planes[place], spec.fill, spec.ids)

    found = [Statistics()] * len(planes)
    for (plane, _), seen in zip(places, spread(pool, look, places), strict=True):
        found[plane] += seen
    return tuple(found)


def _bands(shape: Sequence[int]) -> list[slice]:
    """Whole rows of a plane, which lie one behind the other, in pieces for several threads."""
    height, width = shape
    least, most = (max(1, pixels // width) for pixels in _PART)
    rows = min(most, max(least, height // _PARTS))
    return [slice(row, min(row + rows, height)) for row in range(0, height, rows)]


@dataclass(frozen=True, slots=True)
class StoredRaster:
    """One band of a finished store: its pixels, its overviews as far as blocks have them, its statistics."""

    levels: tuple[ShardedArray, ...]
    """The raster, then overviews, each half as fine."""
    statistics: Statistics

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.levels[0].shape

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(y, x) pixels of a window that lies inside the raster."""
        return self.levels[0].read(window)
