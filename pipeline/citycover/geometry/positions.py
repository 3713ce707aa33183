"""Where the pixels of one grid lie in another: of another CRS, another pixel size, or shifted.

Within a CRS this is a sum and a product. Between two it is asked of PROJ at knots of every 16th pixel,
counted from the grid's corner, and straight lines are drawn between them: over so short a way map projections
bend by less than a hundredth of a pixel. Knots and lines depend on the grids alone, so that any division into
windows gives the same numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.geometry.crs import tie
from citycover.geometry.grid import Bounds, crs_of
from citycover.geometry.overlap import bounds_after, bounds_in
from citycover.geometry.window import Window

KNOTS = 16
"""Pixels between knots."""

_SURE = 1e-6
"""Pixels; what rounding may add."""


class Positions:
    """Where pixels of a grid `to` lie in a grid `of`."""

    def __init__(self, of: GeoBox, to: GeoBox) -> None:
        """Tie two grids to each other.

        Raises:
            ConfigError: nothing ties one CRS to the other.
        """
        self.of, self.to = of, to
        self.same_crs = of.crs == to.crs
        self._tie = None if self.same_crs else tie(crs_of(to), crs_of(of), "a sheet")
        self._inverse = ~of.transform

    def at(self, window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows and columns in `of` of the centres of pixels of `to`, in pixels from the corner.

        Returns:
            (y, x) rows and (y, x) columns; NaN where there is no way from one CRS into the other.
        """
        if self._tie is None:
            to = self._inverse * self.to.transform
            cols, rows = np.meshgrid(
                np.arange(window.col, window.col_end), np.arange(window.row, window.row_end)
            )
            x, y = to * (cols + 0.5, rows + 0.5)
            return y, x
        ys = np.arange(window.height, dtype=np.float64) + (window.row % KNOTS + 0.5)
        xs = np.arange(window.width, dtype=np.float64) + (window.col % KNOTS + 0.5)
        with np.errstate(invalid="ignore"):  # infinite where the CRS ends
            found = [_between(part, ys, xs) for part in self.knots(window, KNOTS)]
        for part in found:
            part[~np.isfinite(part)] = np.nan
        return found[0], found[1]

    def knots(self, window: Window, every: int) -> NDArray[np.float64]:
        """(2, row, column) rows and columns in `of` of corners of pixels of `to`, those around a window.

        Args:
            window: of `to`.
            every: pixels between knots, counted from the corner of `to`.

        Returns:
            In pixels from the corner; not finite where there is no way from one CRS into the other.
        """
        down, right = (
            every * np.arange(first // every, -(-end // every) + 1.0)
            for first, end in ((window.row, window.row_end), (window.col, window.col_end))
        )
        x, y = self.to.transform * np.meshgrid(right, down)
        if self._tie is not None:
            x, y = self._tie.transform(x, y)
        with np.errstate(invalid="ignore"):
            col, row = self._inverse * (x, y)
        return np.stack([row, col])

    @property
    def scale(self) -> tuple[float, float]:
        """(y, x) pixels of `of` along a pixel of `to`, in the middle of what both share."""
        window = reach(self.of, self.to) or Window(0, 0, *self.to.shape)
        row, col = window.row + window.height // 2, window.col + window.width // 2
        rows, cols = self.at(Window(row, col, 2, 2))
        down = np.hypot(rows[1, 0] - rows[0, 0], cols[1, 0] - cols[0, 0])
        right = np.hypot(rows[0, 1] - rows[0, 0], cols[0, 1] - cols[0, 0])
        return float(down), float(right)


def _between(
    knots: NDArray[np.float64], down: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Straight lines between knots; `down` and `right` are pixels from the first one."""
    y, x = (at / KNOTS for at in (down, right))
    row, col = (at.astype(np.intp) for at in (y, x))
    y, x = (y - row)[:, None], (x - col)[None, :]
    above = knots[row][:, col] * (1 - x) + knots[row][:, col + 1] * x
    below = knots[row + 1][:, col] * (1 - x) + knots[row + 1][:, col + 1] * x
    return np.asarray(above * (1 - y) + below * y)


def reach(grid: GeoBox, lattice: GeoBox) -> Window | None:
    """The pixels of a lattice, beyond its own edges too, that a grid reaches into.

    Returns:
        None where the grid lies where the CRS of the lattice ends.

    Raises:
        ConfigError: nothing ties one CRS to the other.
    """
    height, width = grid.shape
    bounds: Bounds = bounds_after(grid.transform, 0, 0, width, height)
    if grid.crs != lattice.crs:
        bounds = bounds_in(lattice, grid, bounds)
    if not np.isfinite(bounds).all():
        return None
    left, top, right, bottom = bounds_after(~lattice.transform, *bounds)
    row, col = int(np.floor(top + _SURE)), int(np.floor(left + _SURE))
    row_end, col_end = int(np.ceil(bottom - _SURE)), int(np.ceil(right - _SURE))
    return Window(row, col, max(1, row_end - row), max(1, col_end - col))
