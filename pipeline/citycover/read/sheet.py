"""SheetReader: one raster of a band group, laid onto the lattice of the group.

A sheet whose pixels are those of the lattice is read as it is. Any other is warped a tile at a time: where
the pixels of the tile lie in the sheet (`geometry/positions.py`), what lies there (`file.py`), weighed
(`warp.py`). Both ways pixels that a file cannot give are invalid, and told of as holes of the lattice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from citycover.errors import SceneError
from citycover.geometry.positions import Positions, reach
from citycover.geometry.window import Window
from citycover.read.file import BandFile, reason_of
from citycover.read.masks import MaskReader
from citycover.read.reader import Hole
from citycover.read.resampling import store
from citycover.read.warp import sample, support
from citycover.scene.scene import SceneGroup, Sheet

_TILE = (512, 1024)
"""(y, x) pixels that are warped together: bounds what a wide strip takes."""


@dataclass(frozen=True, slots=True)
class _Warp:
    """What is known of a sheet that is warped."""

    positions: Positions
    scale: tuple[float, float]
    halo: int
    """Pixels of the sheet around positions that their kernels look at."""


class SheetReader:
    """Reads a sheet; its files are opened at the first read, and again after `close`."""

    def __init__(self, sheet: Sheet, group: SceneGroup) -> None:
        """`group`: whose sheet it is. Touches no file."""
        self.sheet, self.group = sheet, group
        self._files: list[BandFile] = []
        self._masks: list[MaskReader] = []

    def close(self) -> None:
        """Let go of files; what is known of broken blocks is kept."""
        for file in self._files:
            file.close()
        for mask in self._masks:
            mask.close()

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
        if self._warp is None:
            at = self.sheet.window
            holes = self._read(window.shift(-at.row, -at.col), values, valid)
            if (at.row, at.col) == (0, 0):
                return holes
            return [Hole(hole.window.shift(at.row, at.col), hole.path, hole.reason) for hole in holes]
        return [
            hole
            for tile in _tiles(window)
            for hole in self._read_warped(
                self._warp,
                tile,
                *(into[tile.shift(-window.row, -window.col).slices] for into in (values, valid)),
            )
        ]

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
        masks = (mask.file for mask in self._masks)
        return sum(2 * file.block_bytes for file in (*self._files, *masks))

    def open(self) -> None:
        """Open its files, if that was not done."""
        if self._files:
            return
        places: dict[str, list[int]] = {}
        for place, band in enumerate(self.sheet.bands):
            places.setdefault(band.path, []).append(place)
        try:
            self._masks = [MaskReader(mask, self.sheet.grid) for mask in self.sheet.masks]
            self._files = [BandFile(path, self.sheet.bands, at) for path, at in places.items()]
        except RasterioError as error:
            raise SceneError(
                f"a file of the scene could be described but not opened to read it ({reason_of(error)}); "
                f"its files must stay where they are during a run; bring it back and start again"
            ) from None

    @cached_property
    def _warp(self) -> _Warp | None:
        if self.sheet.kernel is None:
            return None
        positions = Positions(self.sheet.grid, self.group.native)
        scale = positions.scale
        return _Warp(positions, scale, math.ceil(support(self.sheet.kernel, max(scale))) + 1)

    def _read(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        """Read a window of the sheet's own pixels."""
        valid[...] = True
        holes = [hole for file in self._files for hole in file.read(window, values, valid)]
        return holes + [hole for mask in self._masks for hole in mask.hide(window, valid)]

    def _read_warped(
        self, warp: _Warp, tile: Window, values: NDArray[Any], valid: NDArray[np.bool_]
    ) -> Iterator[Hole]:
        assert self.sheet.kernel is not None, "told by the warp"
        valid[...] = False
        rows, cols = warp.positions.at(tile)
        own = _around(rows, cols, warp.halo, self.sheet.grid.shape)
        if own is None:
            return
        pixels = np.empty((own.height, own.width, len(self.sheet.bands)), values.dtype)
        seen = np.empty((own.height, own.width), np.bool_)
        holes = self._read(own, pixels, seen)
        weighed, kept = sample(pixels, seen, rows - own.row, cols - own.col, self.sheet.kernel, warp.scale)
        store(weighed, values)
        valid[...] = kept
        for hole in holes:
            part = self.sheet.grid[hole.window.slices]
            touched = reach(part, self.group.native)
            if touched and (inside := touched.clip(tile)):
                yield Hole(inside, hole.path, hole.reason)


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
