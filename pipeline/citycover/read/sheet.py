"""SheetReader: one raster of a band group, laid onto the lattice of the group.

A sheet whose pixels are those of the lattice is read as it is. Any other is warped a tile at a time: where
the pixels of the tile lie in the sheet (`geometry/positions.py`), what lies there (`file.py`), weighed
(`warp.py`). So are bands of a sheet that lie on another grid than the others. All ways pixels that a file
cannot give are invalid, and told of as holes of the lattice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError

from citycover.errors import SceneError
from citycover.files.gdal import brief_reason
from citycover.geometry.positions import Positions, reach
from citycover.geometry.window import Window
from citycover.model.kernel import Kernel
from citycover.read.file import BandFile
from citycover.read.masks import MaskReader
from citycover.read.reader import Hole
from citycover.read.resampling import store
from citycover.read.warp import sample, support
from citycover.scene.scene import BandSource, SceneGroup, Sheet

logger = logging.getLogger(__name__)

_TILE = (512, 1024)
"""(y, x) pixels that are warped together: bounds what a wide strip takes."""

_Read = Callable[[Window, NDArray[Any], NDArray[np.bool_]], list[Hole]]


class _Warp:
    """Reads what lies on one grid as pixels of another."""

    def __init__(self, of: GeoBox, to: GeoBox, kernel: Kernel, bands: int) -> None:
        self.of, self.to, self.kernel, self.bands = of, to, kernel, bands
        self.positions = Positions(of, to)
        self.scale = self.positions.scale
        self.halo = math.ceil(support(kernel, max(self.scale))) + 1

    def read(
        self, window: Window, read: _Read, values: NDArray[Any], valid: NDArray[np.bool_]
    ) -> Iterator[Hole]:
        """Read a window of `to`.

        Args:
            window: what is read, a tile at a time.
            read: reads a window of `of`.
            values: (y, x, band) receives numbers.
            valid: (y, x) receives where they were observed.
        """
        for tile in _tiles(window):
            inside = tile.shift(-window.row, -window.col).slices
            yield from self._read_tile(tile, read, values[inside], valid[inside])

    def _read_tile(
        self, tile: Window, read: _Read, values: NDArray[Any], valid: NDArray[np.bool_]
    ) -> Iterator[Hole]:
        valid[...] = False
        rows, cols = self.positions.at(tile)
        own = _around(rows, cols, self.halo, self.of.shape)
        if own is None:
            return
        pixels = np.empty((own.height, own.width, self.bands), values.dtype)
        seen = np.empty((own.height, own.width), np.bool_)
        holes = read(own, pixels, seen)
        weighed, kept = sample(pixels, seen, rows - own.row, cols - own.col, self.kernel, self.scale)
        store(weighed, values)
        valid[...] = kept
        for hole in holes:
            touched = reach(self.of[hole.window.slices], self.to)
            if touched and (inside := touched.clip(tile)):
                yield Hole(inside, hole.path, hole.reason)


class _WarpedFile:
    """Bands of one file that lie on another grid than their sheet."""

    def __init__(self, bands: Sequence[BandSource], places: Sequence[int], sheet: GeoBox) -> None:
        first = bands[places[0]]
        assert first.lies is not None, "they are warped"
        assert first.kernel is not None, "likewise"
        own = [bands[place] for place in places]
        self.places = list(places)
        self.file = BandFile(first.path, own, range(len(own)))
        self.warp = _Warp(first.lies, sheet, first.kernel, len(own))

    def read(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        """Read a window of the sheet into the places of the bands; clear `valid` where they are not."""
        pixels = np.zeros((window.height, window.width, len(self.places)), values.dtype)
        seen = np.empty((window.height, window.width), np.bool_)
        holes = list(self.warp.read(window, self._read, pixels, seen))
        values[:, :, self.places] = pixels
        valid &= seen
        return holes

    def _read(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        valid[...] = True
        return self.file.read(window, values, valid)


class SheetReader:
    """Reads a sheet; its files are opened at the first read, and again after `close`."""

    def __init__(self, sheet: Sheet, group: SceneGroup) -> None:
        """`group`: whose sheet it is. Touches no file."""
        self.sheet, self.group = sheet, group
        self._files: list[BandFile] = []
        self._warped: list[_WarpedFile] = []
        self._masks: list[MaskReader] = []
        self._lost = ""

    def close(self) -> None:
        """Let go of files; what is known of broken blocks is kept."""
        for file in self._open_files:
            file.close()

    def read(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        """Read a window of the lattice that lies inside the sheet's.

        Args:
            window: pixels of the group's lattice.
            values: (y, x, band) receives digital numbers.
            valid: (y, x) receives where they were observed.

        Returns:
            Holes, in pixels of the lattice.

        Raises:
            SceneError: a file cannot be opened, or is not what was described.
        """
        self.open()
        if self._lost:
            valid[...] = False
            return [Hole(window, self.sheet.bands[0].path, self._lost)]
        if self._warp is None:
            at = self.sheet.window
            holes = self._read(window.shift(-at.row, -at.col), values, valid)
            if (at.row, at.col) == (0, 0):
                return holes
            return [Hole(hole.window.shift(at.row, at.col), hole.path, hole.reason) for hole in holes]
        return list(self._warp.read(window, self._read, values, valid))

    def decoded_bytes(self, window: Window) -> int:
        """Size of the blocks that a window of the lattice touches in open files; 0 where it is warped."""
        if self._warp is not None:
            return 0
        own = window.shift(-self.sheet.window.row, -self.sheet.window.col)
        return sum(file.decoded_bytes(own) for file in self._files)

    def edge_distance(self, window: Window) -> NDArray[np.float32]:
        """(y, x) how far pixels of the lattice lie inside the sheet, in its own pixels; 0 at its edge."""
        if self._warp is None:
            at = self.sheet.window
            rows = np.arange(window.row, window.row_end)[:, None] + 0.5 - at.row
            cols = np.arange(window.col, window.col_end)[None, :] + 0.5 - at.col
        else:
            rows, cols = self._warp.positions.at(window)
        height, width = self.sheet.grid.shape
        inside = np.minimum(np.minimum(rows, height - rows), np.minimum(cols, width - cols))
        return np.asarray(np.nan_to_num(np.maximum(inside, 0)), np.float32)

    @property
    def cache_bytes(self) -> int:
        """Two decoded blocks of every file: with less, each window would decode the same block again."""
        return sum(2 * file.block_bytes for file in self._open_files)

    @property
    def _open_files(self) -> list[BandFile]:
        return [*self._files, *(far.file for far in self._warped), *(mask.file for mask in self._masks)]

    def open(self) -> None:
        """Open its files, if that was not done; one that nobody looked at before may be lost."""
        if self._files or self._warped or self._lost:
            return
        bands, grid = self.sheet.bands, self.sheet.grid
        places: dict[tuple[str, bool], list[int]] = {}
        for place, band in enumerate(bands):
            places.setdefault((band.path, band.lies is not None), []).append(place)
        try:
            self._masks = [MaskReader(mask, grid) for mask in self.sheet.masks]
            self._warped = [_WarpedFile(bands, at, grid) for (_, far), at in places.items() if far]
            self._files = [BandFile(path, bands, at) for (path, far), at in places.items() if not far]
        except RasterioError as error:
            reason = brief_reason(error)
            if any(band.promise for band in (*bands, *(mask.source for mask in self.sheet.masks))):
                logger.warning("%s cannot be opened (%s); its place becomes nodata", bands[0].path, reason)
                self.close()
                self._masks, self._warped, self._files, self._lost = [], [], [], reason
                return
            raise SceneError(
                f"a file of the scene could be described but not opened to read it ({reason}); "
                f"its files must stay where they are during a run; bring it back and start again"
            ) from None

    @cached_property
    def _warp(self) -> _Warp | None:
        if self.sheet.kernel is None:
            return None
        return _Warp(self.sheet.grid, self.group.native, self.sheet.kernel, len(self.sheet.bands))

    def _read(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        """Read a window of the sheet's own pixels."""
        valid[...] = True
        files: list[BandFile | _WarpedFile] = [*self._files, *self._warped]
        holes = [hole for file in files for hole in file.read(window, values, valid)]
        return holes + [hole for mask in self._masks for hole in mask.hide(window, valid)]


def _tiles(window: Window) -> Iterator[Window]:
    for row in range(window.row, window.row_end, _TILE[0]):
        for col in range(window.col, window.col_end, _TILE[1]):
            tile = Window(row, col, *_TILE).clip(window)
            assert tile is not None, "tiles begin in the window"
            yield tile


def _around(
    rows: NDArray[np.float64], cols: NDArray[np.float64], halo: int, shape: Sequence[int]
) -> Window | None:
    """Pixels of a sheet around positions; None where none of them lies near it."""
    near = (
        (rows > -halo) & (rows < shape[0] + halo) & (cols > -halo) & (cols < shape[1] + halo)
    )  # False for NaN
    if not near.any():
        return None
    rows, cols = rows[near], cols[near]
    row, col = (math.floor(at.min()) - halo for at in (rows, cols))
    row_end, col_end = (math.floor(at.max()) + halo + 1 for at in (rows, cols))
    return Window(row, col, row_end - row, col_end - col).clip(Window(0, 0, *shape))
