"""Dates: pixels of a band group's lattice that several dates show, as one image.

    latest          the sheets of the latest date, then what it lacks from the one before it, ...
    median, best    all dates, a part at a time, put together by `composite.py`

Each date has its sheets (`sheets.py`), whose overlap is settled first. Every rule goes by pixels: any
division into windows gives the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.read.composite import Kind, compose
from citycover.read.reader import Hole
from citycover.read.resampling import store
from citycover.read.sheets import Sheets, inside_of, lacking, left_of
from citycover.scene.scene import SceneGroup

_OPEN = 96
"""Sheets of all dates that are open at a time; of each at least a few."""

_FEW = 4

_NUMBERS = 1 << 23
"""Numbers of all dates and bands that are put together at a time: 64 MiB as float64."""

_NARROW = 256
"""Least columns of a part."""

_MOST_CACHE = 512 << 20


class Dates:
    """Reads windows of a group's lattice; the same face as `Sheets`."""

    def __init__(self, group: SceneGroup) -> None:
        """`group`: whose dates. Touches no file."""
        assert group.composite in {"latest", "median", "best"}, "dates to be averaged are read apart"
        self.group = group
        dates = group.dates
        self.dates = [Sheets(date, max(_FEW, _OPEN // len(dates))) for date in dates]

    def read(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        """Read a window of the lattice; see `Reader.read_into`."""
        if self.group.composite == "latest":
            holes = list(self._latest(window, values, valid))
        else:
            kind: Kind = "median" if self.group.composite == "median" else "best"
            holes = [
                hole
                for part in self._parts(window)
                for hole in self._composed(kind, part, *inside_of(window, part, values, valid))
            ]
        return [left for hole in holes if (left := left_of(hole, window, valid))]

    def close(self) -> None:
        """Let go of all files."""
        for sheets in self.dates:
            sheets.close()

    @property
    def cache_bytes(self) -> int:
        """Decoded blocks that are worth keeping."""
        return min(_MOST_CACHE, sum(sheets.cache_bytes for sheets in self.dates))

    def _latest(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> Iterator[Hole]:
        """An earlier date is read only where a later one is invalid."""
        yield from self.dates[0].read(window, values, valid)
        for sheets in self.dates[1:]:
            part = lacking(window, ~valid)
            if part is None:
                return
            into, seen = inside_of(window, part, values, valid)
            pixels, observed = np.empty(into.shape, into.dtype), np.empty(seen.shape, np.bool_)
            yield from sheets.read(part, pixels, observed)
            np.copyto(into, pixels, where=(observed & ~seen)[..., None])
            seen |= observed

    def _composed(
        self, kind: Kind, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]
    ) -> Iterator[Hole]:
        pixels = np.empty((len(self.dates), *values.shape), values.dtype)
        observed = np.empty((len(self.dates), *valid.shape), np.bool_)
        for sheets, into, seen in zip(self.dates, pixels, observed, strict=True):
            yield from sheets.read(window, into, seen)
        made, valid[...] = compose(kind, pixels, observed)
        if kind == "best":
            values[...] = made
        else:
            store(made, values)

    def _parts(self, window: Window) -> Iterator[Window]:
        """Parts of a window that are small enough, and end where blocks of the files do, if those are."""
        most = max(1, _NUMBERS // (len(self.dates) * len(self.group.bands)))
        block_height, block_width = self.group.block
        height = min(window.height, max(block_height, most // window.width // block_height * block_height))
        width = max(_NARROW, most // height // block_width * block_width)
        for row in range(window.row // height * height, window.row_end, height):
            for col in range(window.col // width * width, window.col_end, width):
                part = Window(row, col, height, width).clip(window)
                if part is not None:
                    yield part
