"""Where the pixels of an output grid lie among the cells of a label grid. Pure geometry, float64.

Positions are in cells, (row, column), and whole numbers are centres of cells. Where the two grids share a CRS
and their axes, a row of pixels has one position; elsewhere positions are computed at the nodes of a lattice
over the output grid, and lie on straight lines between them:

    o - - - - o - - - - o     o  projected exactly, every 32nd pixel, counted from the grid's own corner
    |    .    |         |     .  a pixel: interpolated. Off by side^2 * pixel / (8 R) * tan(latitude) cells
    o - - - - o - - - - o        at most: a hundredth of a cell at 500 m pixels, R the Earth's radius
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.geometry.positions import Positions
from citycover.geometry.window import Window

LATTICE = 32
"""Output pixels between nodes."""

REACH = 2
"""Cells around the one that a pixel lies in which can have a say."""

_MARGIN = REACH + 1
"""Cells beyond a raster at which nothing of it is heard any more."""

_SQUARE = 1e-9
"""Rotation, in cells per pixel, below which axes count as parallel: a cell over a billion pixels."""

_FAR = 1e9
"""Position in cells of what a projection cannot place: outside of every raster."""


@dataclass(frozen=True)
class Placement:
    """An output grid laid over a grid of cells."""

    output: GeoBox
    cells: GeoBox

    @cached_property
    def aligned(self) -> bool:
        """True where both share CRS and axes: a row of pixels lies at one row of cells."""
        return self.output.crs == self.cells.crs and max(abs(self._step.b), abs(self._step.d)) < _SQUARE

    @cached_property
    def _step(self) -> Affine:
        return ~self.cells.transform * self.output.transform

    @cached_property
    def _positions(self) -> Positions:
        return Positions(self.cells, self.output)

    def rows(self, first: int, count: int) -> NDArray[np.float64]:
        """(count,) positions of rows of pixels; only where the grids are aligned."""
        return _centres(first, count) * float(self._step.e) + float(self._step.f) - 0.5

    def cols(self, first: int, count: int) -> NDArray[np.float64]:
        """(count,) positions of columns of pixels; only where the grids are aligned."""
        return _centres(first, count) * float(self._step.a) + float(self._step.c) - 0.5

    def nodes(self, window: Window) -> NDArray[np.float64]:
        """(2, node row, node column): row and column of the nodes around a window's pixels."""
        positions = self._positions.knots(window, LATTICE) - 0.5
        return np.nan_to_num(positions, nan=_FAR, posinf=_FAR, neginf=-_FAR)

    def among(self, positions: Sequence[NDArray[np.float64]] | NDArray[np.float64]) -> Window | None:
        """Cells that can have a say between positions, given as all rows and all columns; None: none."""
        limits = [(math.floor(at.min()) - REACH, math.ceil(at.max()) + REACH + 1) for at in positions]
        kept = [
            (max(low, -_MARGIN), min(high, size + _MARGIN))
            for (low, high), size in zip(limits, self.cells.shape, strict=True)
        ]
        (top, bottom), (left, right) = kept
        # What is wholly in the margin around the raster holds no cell.
        if min(bottom, right) <= 0 or top >= self.cells.shape[0] or left >= self.cells.shape[1]:
            return None
        return Window(top, left, bottom - top, right - left)


def between_nodes(first: int, count: int) -> NDArray[np.float64]:
    """(count, node) weights that give the positions of pixel centres from those of the nodes around them."""
    at = _centres(first, count) / LATTICE - first // LATTICE
    nodes = np.arange(-(-(first + count) // LATTICE) - first // LATTICE + 1)
    weights: NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(at[:, None] - nodes))
    return weights


def _centres(first: int, count: int) -> NDArray[np.float64]:
    return np.arange(first, first + count, dtype=np.float64) + 0.5
