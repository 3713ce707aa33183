"""A raster of a Zarr store seen on another grid, by the nearest pixel, as GDAL's warped view shows a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window as RasterioWindow

from citycover.files.zarr import ZarrRaster
from citycover.geometry.grid import grid_of
from citycover.geometry.positions import Positions
from citycover.geometry.window import Window

_MOST = 2**24
"""Pixels of the raster that are read at a time: many where its own are far smaller."""

_SURE = 1e-6
"""Pixels; positions on the border of two pixels are of the lower right one, whatever rounding says."""


class Nearest:
    """Pixels of a raster that the centres of pixels of a grid lie in."""

    def __init__(self, raster: ZarrRaster, onto: GeoBox) -> None:
        """Tie two grids to each other.

        Raises:
            ConfigError: nothing ties one CRS to the other.
        """
        self._raster = raster
        self._positions = Positions(grid_of(raster), onto)

    def read(self, indexes: list[int], window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Numbers of bands in a window of the grid.

        Returns:
            (band, y, x), 0 where there are none, and (y, x) of where all bands have a value.

        Raises:
            RasterioError: a chunk cannot be decoded, or is not in the store.
        """
        values = np.zeros((len(indexes), window.height, window.width), self._raster.dtypes[0])
        valid = np.zeros((window.height, window.width), np.bool_)
        waiting = [window]
        while waiting:
            part = waiting.pop()
            rows, cols = (np.floor(at + _SURE) for at in self._positions.at(part))
            inside = (rows >= 0) & (rows < self._raster.height) & (cols >= 0) & (cols < self._raster.width)
            if not inside.any():
                continue
            down, right = rows[inside].astype(np.intp), cols[inside].astype(np.intp)
            row, col = down.min(), right.min()
            where = RasterioWindow(col, row, int(right.max() - col) + 1, int(down.max() - row) + 1)
            if where.width * where.height > _MOST and part.height * part.width > 1:
                waiting += _halves(part)
                continue
            numbers, known = self._raster.read_valid(indexes, where)
            own = part.shift(-window.row, -window.col).slices
            values[(slice(None), *own)][:, inside] = numbers[:, down - row, right - col]
            valid[own][inside] = known[down - row, right - col]
        return values, valid


def _halves(window: Window) -> list[Window]:
    row, col, height, width = window.row, window.col, window.height, window.width
    if height > width:
        half = height // 2
        return [Window(row, col, half, width), Window(row + half, col, height - half, width)]
    half = width // 2
    return [Window(row, col, height, half), Window(row, col + half, height, width - half)]
