"""RasterReader: bands of one group from the files that hold them, through rasterio.

A window is read date by date (`dates.py`), sheet by sheet (`sheets.py`, `sheet.py`) and file by file, all
bands of a file in one call, straight into the caller's array where the pixel types agree (`file.py`, which
also makes holes of what cannot be read). Then each file's say on validity (`valid.py`: nodata, mask, alpha,
NaN) is combined: a pixel is valid where all bands are. Where the scene is read at another GSD, pixels are
weighed (`resampling.py`).

Several threads read parts of a window, each through files of its own: GDAL's own threads hide tiles that they
cannot decode. A part is whole blocks of the file, so what cannot be read is the same hole for any number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, cast

import numpy as np
import rasterio
from numpy.typing import NDArray

from citycover.files.gdal import scene_options
from citycover.geometry.window import Window
from citycover.read.dates import Dates
from citycover.read.file import joined
from citycover.read.reader import Hole, Reader
from citycover.read.resampling import Kind, axis_taps, resample, store
from citycover.read.sheets import Sheets
from citycover.scene.scene import SceneGroup

_CHUNK_PIXELS = 1 << 24
"""Input pixels held at a time while resampling."""


class RasterReader:
    """Reader of a scene group that lies in files; files are opened at the first read, in its thread."""

    def __init__(
        self,
        group: SceneGroup,
        resampling: str | None = None,
        *,
        cache_bytes: int = 8 << 20,
        threads: int = 1,
    ) -> None:
        """Prepare to read; touches no file.

        Args:
            group: what to read.
            resampling: `average` or `bilinear` where the group's grid is not that of its files
                (`Scene.resampling`).
            cache_bytes: GDAL's cache of decoded blocks; raised to two blocks of every file, or a row of
                blocks of all sheets, if it is less.
            threads: that read.
        """
        self._group = group
        self._kind = cast("Kind | None", resampling)
        self._options = scene_options(group.paths) | {"GDAL_CACHEMAX": cache_bytes, "GDAL_NUM_THREADS": "1"}
        self._sheets = [Sheets(group) if group.composite is None else Dates(group) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads, "citycover-decode") if threads > 1 else None

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the raster."""
        return self._group.shape

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self._group.bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of what is read."""
        return np.dtype(self._group.dtype)

    @property
    def block(self) -> tuple[int, int]:
        """(y, x) shape in which pixels are compressed."""
        return self._group.block

    def read_into(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Hole, ...]:
        """Read one window, which lies inside the raster; see `Reader.read_into`."""
        options = self._options
        options["GDAL_CACHEMAX"] = max(options["GDAL_CACHEMAX"], sum(s.cache_bytes for s in self._sheets))
        if self._kind is not None:
            with rasterio.Env(**options):
                return tuple(self._read_resampled(window, values, valid, self._kind))
        if self._pool is None:
            return tuple(self._read_part(self._sheets[0], window, window, values, valid))
        # Windows of one column of blocks are cut alike: a thread's files are those of its part.
        reads = [
            self._pool.submit(self._read_part, sheets, part, window, values, valid)
            for sheets, part in zip(self._sheets, self._parts(window), strict=False)
        ]
        wait(reads)
        return tuple(joined([hole for read in reads for hole in read.result()]))

    def _parts(self, window: Window) -> list[Window]:
        """Parts of a window, one a thread at most: whole columns of blocks, or rows where blocks are rows."""
        height, width = self._group.block
        cols = self._spans(window.col, window.col_end, width)
        across = [Window(window.row, left, window.height, right - left) for left, right in cols]
        if len(across) > 1:
            return across
        rows = self._spans(window.row, window.row_end, height)
        return [Window(top, window.col, bottom - top, window.width) for top, bottom in rows]

    def _spans(self, first: int, end: int, block: int) -> Iterator[tuple[int, int]]:
        """Pixels `first` to `end` in as many even spans as there are threads, cut between blocks."""
        blocks = -(-end // block) - first // block
        share = -(-blocks // len(self._sheets)) * block
        yield from itertools.pairwise([first, *range(first // block * block + share, end, share), end])

    def _read_part(
        self,
        sheets: Sheets | Dates,
        part: Window,
        window: Window,
        values: NDArray[Any],
        valid: NDArray[np.bool_],
    ) -> list[Hole]:
        inside = part.shift(-window.row, -window.col).slices
        with rasterio.Env(**self._options):
            return sheets.read(part, values[inside], valid[inside])

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        for sheets in self._sheets:
            sheets.close()

    def _read_resampled(
        self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_], kind: Kind
    ) -> Iterator[Hole]:
        """Read and weigh a few output rows at a time, so that memory does not grow with the scale."""
        height, width = self._group.native.shape
        to_file = ~self._group.native.transform * self._group.grid.transform
        cols = axis_taps(window.col, window.col_end, to_file.a, width, kind)
        step = max(1, int(_CHUNK_PIXELS / (cols.needed * max(1.0, to_file.e))))
        for top in range(window.row, window.row_end, step):
            bottom = min(top + step, window.row_end)
            rows = axis_taps(top, bottom, to_file.e, height, kind)
            source = Window(rows.first, cols.first, rows.needed, cols.needed)
            pixels = np.empty((source.height, source.width, self.bands), self.dtype)
            seen = np.empty((source.height, source.width), np.bool_)
            holes = self._sheets[0].read(source, pixels, seen)
            weighed, kept = resample(pixels, seen, rows, cols)
            part = slice(top - window.row, bottom - window.row)
            store(weighed, values[part])
            valid[part] = kept
            for hole in holes:
                touched = _scaled(hole.window, to_file.e, to_file.a).clip(window)
                if touched:
                    yield Hole(touched, hole.path, hole.reason)


def _scaled(window: Window, scale_y: float, scale_x: float) -> Window:
    """The output pixels that a window of the file touches."""
    row, col = math.floor(window.row / scale_y), math.floor(window.col / scale_x)
    row_end, col_end = math.ceil(window.row_end / scale_y), math.ceil(window.col_end / scale_x)
    return Window(row, col, row_end - row, col_end - col)


_: type[Reader] = RasterReader
