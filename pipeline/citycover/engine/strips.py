"""From a reader to strips: the decoded rows that one row of windows looks at.

A strip is as high as a window and as wide as all windows of a block's row, reflected where it reaches beyond
the raster and filled where pixels are invalid: it depends on the raster alone, never on the window or block
that looks at it. Rows that two strips share are copied from one to the next; every block of the file is
decoded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.machine.memory import pages
from citycover.plan.axis import Axis
from citycover.read.reader import Hole, Reader

_GULP = 256
"""Rows decoded together at least: keeps files of one-row strips from being read row by row."""


def reflect(first: int, count: int, size: int) -> NDArray[np.intp]:
    """Indices of `count` pixels from `first` on, reflected at both ends of a raster of `size` pixels.

    The edge pixel is not repeated; a raster smaller than the reach is reflected again and again.

    >>> reflect(-2, 7, 4).tolist()
    [2, 1, 0, 1, 2, 3, 2]
    """
    period = max(2 * (size - 1), 1)
    index = np.arange(first, first + count) % period
    return np.where(index < size, index, period - index)


def _runs(rows: NDArray[np.intp]) -> Iterator[tuple[slice, slice | NDArray[np.intp]]]:
    """Places of rows, and the rows: those in their order as one slice, which is copied as it lies.

    >>> [(part.start, part.stop, rows) for part, rows in _runs(np.array([2, 1, 0, 1, 2]))]
    [(0, 2, array([2, 1])), (2, 5, slice(0, 3, None))]
    """
    rising = np.append(np.diff(rows) == 1, False)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], rising, [0]])))
    done = 0
    for first, last in edges.reshape(-1, 2).tolist():
        if first > done:
            yield slice(done, first), rows[done:first]
        yield slice(first, last + 1), slice(int(rows[first]), int(rows[last]) + 1)
        done = last + 1
    if done < len(rows):
        yield slice(done, len(rows)), rows[done:]


@dataclass(frozen=True, slots=True)
class Strip:
    """What one row of windows looks at, in the pixels of one band group."""

    values: NDArray[Any]
    """(y, x, band) raw digital numbers, reflected and filled."""
    valid: NDArray[np.bool_]
    """(y, x), reflected likewise."""


@dataclass
class _Rows:
    """Reads raster rows in order, whole file blocks at a time, each once."""

    reader: Reader
    cols: tuple[int, int]
    holes: list[Hole] = field(default_factory=list)
    at: int = -1
    """First row of the spare ones."""
    spare: tuple[NDArray[Any], NDArray[np.bool_]] | None = None
    """(y, x, band) and (y, x) of rows that were decoded with their block but not asked for yet."""
    memory: tuple[NDArray[Any], NDArray[np.bool_]] | None = None
    """Where spare rows lie."""

    def read_into(self, row: int, values: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Fill (y, x, band) `values` and (y, x) `valid` with raster rows from `row` on."""
        done = 0
        while done < len(values):
            done += self._from_spare(row + done, values[done:], valid[done:]) or self._decode(
                row + done, values[done:], valid[done:]
            )

    def _from_spare(self, row: int, values: NDArray[Any], valid: NDArray[np.bool_]) -> int:
        if self.spare is None or not self.at <= row < self.at + len(self.spare[0]):
            return 0
        kept_values, kept_valid = (
            a[row - self.at :][: len(values)] for a in self.spare
        )  # (y, x, band), (y, x)
        values[: len(kept_values)] = kept_values
        valid[: len(kept_values)] = kept_valid
        return len(kept_values)

    def _decode(self, row: int, values: NDArray[Any], valid: NDArray[np.bool_]) -> int:
        """Decode the file blocks that begin at or around `row`: straight into place, or into spare rows."""
        height = self.reader.shape[0]
        block = self.reader.block[0]
        gulp = -(-_GULP // block) * block
        first = row // gulp * gulp
        last = min(first + gulp, height)
        if first == row and last - first <= len(values):
            self._read(first, last, values[: last - first], valid[: last - first])
            return last - first
        if self.memory is None:  # rows of before are all used up when others are decoded
            width = self.cols[1] - self.cols[0]
            self.memory = (
                pages((gulp, width, self.reader.bands), self.reader.dtype),
                pages((gulp, width), np.bool_),
            )
        self.at, self.spare = first, (self.memory[0][: last - first], self.memory[1][: last - first])
        self._read(first, last, *self.spare)
        return self._from_spare(row, values, valid)

    def _read(self, first: int, last: int, values: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        window = Window(first, self.cols[0], last - first, self.cols[1] - self.cols[0])
        self.holes.extend(self.reader.read_into(window, values, valid))


class StripSource:
    """Strips of one band group for one column of blocks, from a first row of windows downward."""

    def __init__(
        self,
        reader: Reader,
        y: Axis,
        x: Axis,
        columns: range,
        origin: tuple[int, int],
        fills: tuple[float, ...],
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            reader: the group's pixels.
            y: windows along y, in pixels of the group.
            x: the same along x.
            columns: window columns to serve.
            origin: (y, x) pixel of the raster at which the axes start.
            fills: digital number of each band where pixels are invalid.
        """
        self.y, self.row0 = y, origin[0]
        self.height, raster_width = reader.shape
        first = origin[1] + x.start(columns[0])
        last = origin[1] + x.start(columns[-1]) + x.window
        sources = reflect(first, last - first, raster_width)
        low, high = int(sources.min()), int(sources.max()) + 1
        # Columns of the span buffer: what windows look at, and what is reflected into it.
        self.base = min(first, low)
        self.width = max(last, high) - self.base
        self.inside = (low - self.base, high - self.base)
        self.view = (first - self.base, last - self.base)
        outside = np.array([k for k, s in enumerate(sources) if s != first + k], dtype=np.intp)
        self.mirror = (outside + self.view[0], sources[outside] - self.base)
        self.rows = _Rows(reader, (low, high))
        exact = np.asarray(fills, dtype=np.float64)
        whole = np.issubdtype(reader.dtype, np.integer)
        self.fills = (np.rint(exact) if whole else exact).astype(reader.dtype)
        self.reader = reader

    @property
    def holes(self) -> list[Hole]:
        """What could not be read so far."""
        return self.rows.holes

    def strips(self, first: int) -> Iterator[Strip]:
        """Strips of the rows of windows `first`, `first + 1`, ... to the last.

        Two strips may be in use at a time: the one after next reuses the memory of the first.
        """
        spans: list[_Span] = []
        for index in range(first, self.y.count):
            needed = reflect(self.row0 + self.y.start(index), self.y.window, self.height)
            spans = [*spans[-1:], self._span(needed, spans)]
            yield self._strip(needed, spans[-1])

    def _span(self, needed: NDArray[np.intp], spans: list[_Span]) -> _Span:
        """Raster rows that a strip needs, without gaps: shared ones copied, new ones read."""
        low, high = int(needed.min()), int(needed.max()) + 1
        span = self._buffer(low, high, spans)
        new = low
        if spans:
            previous = spans[-1]
            assert low >= previous.low, "a strip looks back no further than the one before it"
            new = min(max(previous.high, low), high)
            span.values[: new - low] = previous.values[low - previous.low : new - previous.low]
            span.valid[: new - low] = previous.valid[low - previous.low : new - previous.low]
        if new < high:
            self._read(new, span.values[new - low :], span.valid[new - low :])
        return span

    def _buffer(self, low: int, high: int, spans: list[_Span]) -> _Span:
        """Memory for rows `low` to `high`: that of the span before last where it is large enough."""
        height = high - low
        if len(spans) == 2 and len(spans[0].store[0]) >= height:
            store = spans[0].store
        else:
            store = (
                pages((height, self.width, self.reader.bands), self.reader.dtype),
                pages((height, self.width), np.bool_),
            )
        return _Span(low, high, store[0][:height], store[1][:height], store)

    def _read(self, row: int, values: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Read rows, fill invalid pixels, reflect columns."""
        a, b = self.inside
        self.rows.read_into(row, values[:, a:b], valid[:, a:b])
        if not valid[:, a:b].all():
            missing = ~valid[:, a:b]
            np.copyto(values[:, a:b], self.fills, where=missing[..., None])  # (band,) into (y, x, band)
        to, source = self.mirror
        if len(to):
            values[:, to] = values[:, source]
            valid[:, to] = valid[:, source]

    def _strip(self, needed: NDArray[np.intp], span: _Span) -> Strip:
        a, b = self.view
        if len(needed) == span.high - span.low and needed[0] == span.low and needed[-1] == span.high - 1:
            return Strip(span.values[:, a:b], span.valid[:, a:b])
        strip = Strip(
            pages((len(needed), b - a, self.reader.bands), self.reader.dtype),
            pages((len(needed), b - a), np.bool_),
        )
        for part, rows in _runs(needed - span.low):
            strip.values[part] = span.values[rows, a:b]
            strip.valid[part] = span.valid[rows, a:b]
        return strip


@dataclass(frozen=True, slots=True)
class _Span:
    """Raster rows `low` to `high` in memory."""

    low: int
    high: int
    values: NDArray[Any]
    """(y, x, band) views into the store."""
    valid: NDArray[np.bool_]
    """(y, x)."""
    store: tuple[NDArray[Any], NDArray[np.bool_]]
    """Memory, at least as high, that a later span takes over."""
