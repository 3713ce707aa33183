"""Coarse labels on the grid of an image, whatever grid, CRS and resolution they lie on.

Labels are seen on the grid by nearest neighbour as they are read, window by window; nothing is ever written
out. Several rasters vote; what has no label becomes `IGNORE`, as torch's losses want it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend
from citycover.classes.raster import ClassRaster
from citycover.classes.table import NO_CLASS, ClassTable, table_between
from citycover.geometry.window import Window

IGNORE = 255
"""What torch is given for pixels without a label."""


def as_ranks(channels: NDArray[np.integer]) -> NDArray[np.int16]:
    """(...) channels as ranks: `NO_CLASS` where torch is told to `IGNORE`."""
    ranks = channels.astype(np.int16)
    ranks[channels == IGNORE] = NO_CLASS
    return ranks


@dataclass(frozen=True)
class LabelRaster:
    """A raster of ids, and the rank in the learned legend that each means; small and picklable."""

    path: str
    """Path or GDAL connection string."""
    legend: str
    """Name of the legend that the ids belong to."""
    ranks: tuple[tuple[int, int], ...]
    """(id, rank) pairs; ids that mean no class have `NO_CLASS`."""
    learned: str
    """What the ranks count in, for messages."""

    @classmethod
    def of(cls, path: str, written: Legend, learned: Legend) -> LabelRaster:
        """Join a raster of one legend to the legend that is learned.

        Raises:
            ConfigError: the learned legend has no remap table for the other.
        """
        table = ClassTable.onto(learned, table_between(written, learned))
        pairs = zip(table.ids.tolist(), table.ranks.tolist(), strict=True)
        return cls(path, written.name, tuple(pairs), table.title)

    @cached_property
    def table(self) -> ClassTable:
        """Ids -> ranks."""
        ids, ranks = zip(*self.ranks, strict=True)
        return ClassTable(np.array(ids, np.int64), np.array(ranks, np.int16), self.learned)


class LabelReader:
    """Labels of one or several rasters on one grid; opens them at the first read.

    With `agree` 1 the first raster that has a label gives it, so neighbouring sheets make one. With more, a
    pixel keeps a label that at least `agree` rasters share, and that no other label equals in votes. Without
    a raster every pixel has rank 0: what is seen is then told apart from what is not, and nothing else.
    """

    def __init__(self, rasters: Sequence[LabelRaster], grid: GeoBox, *, agree: int = 1) -> None:
        self._rasters = tuple(rasters)
        self._grid = grid
        self._agree = agree
        self._open: list[ClassRaster] = []

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(y, x) ranks of a window that lies inside the grid; `IGNORE` where there is none.

        Ids that the legend does not know have none: they were refused before, but for such as lie a pixel
        beyond the image.

        Raises:
            ConfigError: a raster cannot be read, or does not fit.
        """
        if not self._open:
            self._open = [ClassRaster(raster.path, "labels", onto=self._grid) for raster in self._rasters]
        if not self._rasters:
            return np.zeros((window.height, window.width), np.uint8)
        votes = []
        for opened, raster in zip(self._open, self._rasters, strict=True):
            ranks, _ = opened.read_known(window, raster.table)
            votes.append(np.where(ranks == NO_CLASS, IGNORE, ranks).astype(np.uint8))
        return _first(votes) if self._agree == 1 else _consensus(np.stack(votes), self._agree)

    def close(self) -> None:
        """Let go of the files."""
        for opened in self._open:
            opened.close()
        self._open = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": []}


def _first(votes: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    chosen = votes[0]
    for other in votes[1:]:
        chosen = np.where(chosen == IGNORE, other, chosen)
    return chosen


def _consensus(votes: NDArray[np.uint8], agree: int) -> NDArray[np.uint8]:
    """(p, y, x) -> (y, x).

    >>> _consensus(np.array([[[1, 1, 2]], [[1, 2, 255]], [[0, 2, 255]]], np.uint8), 2)
    array([[  1,   2, 255]], dtype=uint8)
    """
    labels = np.unique(votes[votes != IGNORE])
    best = np.full(votes.shape[1:], IGNORE, np.uint8)
    most = np.full(votes.shape[1:], agree - 1, np.int64)
    for label in labels:
        count = (votes == label).sum(0)
        best[count == most] = IGNORE  # a tie says nothing
        best[count > most] = label
        most = np.maximum(most, count)
    return best
