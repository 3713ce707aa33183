"""Sheets: pixels of a band group's lattice, whatever number of sheets it is made of.

A window is asked of the sheets that reach into it alone, in the order in which they count; a spatial index
finds them, and only those read last stay open. One sheet that is all of the lattice is read straight through.

    first, newest     pixels that no earlier sheet gave: a later one is read only where some are left
    nearest-centre    of the valid ones the sheet whose centre is nearest; of two as near the earlier one
    feather           the mean of the valid ones, weighed by the distance to their edges

Every rule goes by pixels of the lattice, never by windows: any division into windows gives the same pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.read.reader import Hole
from citycover.read.resampling import store
from citycover.read.sheet import SheetReader
from citycover.scene.scene import SceneGroup

_OPEN = 48
"""Sheets that are open at a time; more where one window reaches into more."""

_MOST_FILES = 256
"""Files of them: what a machine lends without asking is four times that."""

_WIDE = 4096
"""Columns that are weighed together: bounds what a wide strip takes."""

_MOST_CACHE = 256 << 20


class Sheets:
    """Reads windows of a group's lattice."""

    def __init__(self, group: SceneGroup, most_open: int | None = None) -> None:
        """`group`: whose sheets, of one date. `most_open`: of them at a time. Touches no file."""
        assert group.composite is None, "several dates are read by `dates.py`"
        self.group, self.most_open = group, most_open or _OPEN
        self.readers = [SheetReader(sheet, group) for sheet in group.sheets]
        self._open: OrderedDict[int, SheetReader] = OrderedDict()
        files = len(group.sheets[0].files) + len(group.sheets[0].masks)
        self._most_held = most_open or _MOST_FILES // max(1, files)
        self._decoded = 0
        whole = Window(0, 0, *group.native.shape)
        self._only = self.readers[0] if [s.window for s in group.sheets] == [whole] else None
        edges = np.array(
            [(s.window.col, s.window.row, s.window.col_end, s.window.row_end) for s in group.sheets]
        )
        self._index = None if self._only else shapely.STRtree(shapely.box(*edges.T.astype(float)))

    def read(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        """Read a window of the lattice; see `Reader.read_into`."""
        if self._only:
            return self._used(0).read(window, values, valid)
        valid[...] = False
        numbers = self._reaching(window)
        self.most_open = max(self.most_open, min(len(numbers), self._most_held))
        if self.group.overlap in {"first", "newest"} or len(numbers) == 1:
            holes = [hole for number in numbers for hole in self._fill(number, window, values, valid)]
        else:
            join = self._join_nearest if self.group.overlap == "nearest-centre" else self._join_weighed
            holes = [
                hole
                for part in _columns(window)
                for hole in join(part, *inside_of(window, part, values, valid))
            ]
        self._decoded = max(self._decoded, self._decoded_bytes(numbers, window))
        return [left for hole in holes if (left := left_of(hole, window, valid))]

    def close(self) -> None:
        """Let go of all files."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()

    @property
    def cache_bytes(self) -> int:
        """Decoded blocks that are worth keeping: of many sheets all that one window touched.

        Blocks at the lower edge of a window are those at the upper edge of the next: a cache that holds less
        has dropped the first of them when the next window begins, and decodes each of them twice.
        """
        if self._only:
            return self._only.cache_bytes
        pixel = np.dtype(self.group.dtype).itemsize * len(self.group.bands)
        row = 2 * self.group.block[0] * self.group.native.shape[1] * pixel
        kept = min(max(row, self._decoded), _MOST_CACHE)
        return max(int(kept), sum(reader.cache_bytes for reader in self._open.values()))

    def _used(self, number: int) -> SheetReader:
        """A sheet, open; the one that was not read for longest is closed for it."""
        reader = self.readers[number]
        if number not in self._open:
            if len(self._open) >= self.most_open:
                self._open.popitem(last=False)[1].close()
            self._open[number] = reader
        self._open.move_to_end(number)
        return reader

    def _reaching(self, window: Window) -> list[int]:
        """Sheets that reach into a window, in the order in which they count."""
        assert self._index is not None, "a single sheet is not looked for"
        box = shapely.box(window.col, window.row, window.col_end, window.row_end)
        near = sorted(self._index.query(box).tolist())
        return [number for number in near if self.group.sheets[number].window.clip(window)]

    def _decoded_bytes(self, numbers: Sequence[int], window: Window) -> int:
        parts = ((number, self.group.sheets[number].window.clip(window)) for number in numbers)
        return sum(self.readers[number].decoded_bytes(part) for number, part in parts if part)

    def _parts(self, window: Window) -> Iterator[tuple[SheetReader, Window]]:
        for number in self._reaching(window):
            part = self.group.sheets[number].window.clip(window)
            assert part is not None, "it reaches into the window"
            yield self._used(number), part

    def _fill(
        self, number: int, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]
    ) -> list[Hole]:
        """Give a window those pixels of a sheet that it still lacks."""
        reach = self.group.sheets[number].window.clip(window)
        assert reach is not None, "it reaches into the window"
        into, seen = inside_of(window, reach, values, valid)
        if not seen.any():
            return self._used(number).read(reach, into, seen)
        part = lacking(reach, ~seen)
        if part is None:
            return []
        into, seen = inside_of(window, part, values, valid)
        pixels, observed = np.empty(into.shape, into.dtype), np.empty(seen.shape, np.bool_)
        holes = self._used(number).read(part, pixels, observed)
        np.copyto(into, pixels, where=(observed & ~seen)[..., None])
        seen |= observed
        return holes

    def _join_nearest(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> Iterator[Hole]:
        nearest = np.full(valid.shape, np.inf)
        for reader, part in self._parts(window):
            into, seen, best = (
                a[part.shift(-window.row, -window.col).slices] for a in (values, valid, nearest)
            )
            pixels, observed = np.empty(into.shape, into.dtype), np.empty(seen.shape, np.bool_)
            yield from reader.read(part, pixels, observed)
            away = _from_centre(reader.sheet.window, part)
            take = observed & (away < best)
            np.copyto(into, pixels, where=take[..., None])
            np.copyto(best, away, where=take)
            seen |= take

    def _join_weighed(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> Iterator[Hole]:
        total, weight = np.zeros(values.shape), np.zeros(valid.shape)
        for reader, part in self._parts(window):
            inside = part.shift(-window.row, -window.col).slices
            pixels = np.empty((part.height, part.width, values.shape[2]), values.dtype)
            observed = np.empty((part.height, part.width), np.bool_)
            yield from reader.read(part, pixels, observed)
            # Half a pixel more: what lies on the very edge counts, where there is nothing else.
            share = np.where(observed, reader.edge_distance(part) + 0.5, 0)
            total[inside] += np.where(observed[..., None], pixels, 0) * share[..., None]
            weight[inside] += share
        valid[...] = weight > 0
        np.divide(total, weight[..., None], out=total, where=valid[..., None])
        store(total, values)


def left_of(hole: Hole, window: Window, valid: NDArray[np.bool_]) -> Hole | None:
    """What no other sheet has given of a hole."""
    left = lacking(hole.window, ~valid[hole.window.shift(-window.row, -window.col).slices])
    return Hole(left, hole.path, hole.reason) if left else None


def _columns(window: Window) -> Iterator[Window]:
    for col in range(window.col, window.col_end, _WIDE):
        yield Window(window.row, col, window.height, min(_WIDE, window.col_end - col))


def inside_of(
    window: Window, part: Window, values: NDArray[Any], valid: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Views of a part of what is held of a window."""
    inside = part.shift(-window.row, -window.col).slices
    return values[inside], valid[inside]


def lacking(part: Window, lacks: NDArray[np.bool_]) -> Window | None:
    """The smallest window that holds all pixels of a part that are lacking; None: none is."""
    rows, cols = np.flatnonzero(lacks.any(axis=1)), np.flatnonzero(lacks.any(axis=0))
    if not len(rows):
        return None
    row, col = int(rows[0]), int(cols[0])
    return Window(part.row + row, part.col + col, int(rows[-1]) + 1 - row, int(cols[-1]) + 1 - col)


def _from_centre(sheet: Window, part: Window) -> NDArray[np.float64]:
    """(y, x) squared distance of pixels of a part to the centre of a sheet."""
    rows = np.arange(part.row, part.row_end) + 0.5 - (sheet.row + sheet.row_end) / 2
    cols = np.arange(part.col, part.col_end) + 0.5 - (sheet.col + sheet.col_end) / 2
    return np.asarray(rows[:, None] ** 2 + cols[None, :] ** 2)
