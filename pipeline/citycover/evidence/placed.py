"""One sheet of labels on an output grid: what its cells say at the centres of pixels. On the device.

Where the axes are parallel, weights of rows and of columns say it. Elsewhere it is said at points among the
cells, once for a whole part of the output, and a pixel lies between four of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from torch import Tensor

from citycover.classes.table import NO_CLASS
from citycover.evidence.cells import CellReader
from citycover.evidence.kernel import cell_weights
from citycover.evidence.place import LATTICE, REACH, Placement, between_nodes
from citycover.geometry.grid import pixel_ground_size
from citycover.geometry.window import Window
from citycover.machine.device import on_device

_POINTS = 3
"""Points along the width of a Gaussian that it is computed at where grids are not aligned; in between it is
bilinear: within a hundredth of it."""

_SIDE = 1024
"""Points along a part of the output, about at most: 32 MiB with seven classes."""

_BLOCK = 8
"""Cells along a block whose points are computed by one product of matrices, of 8 + 5 cells."""

_LINES = 64
"""Rows and columns of windows whose weights are kept: half a megabyte each at most, mostly far less."""

_STEPS = 1024
"""Positions between points are rounded to: the last bits of a projection must not depend on the tile."""

Planes = Callable[[Window], Tensor]
"""Rows of the part that it was made for -> (c + 1, y, x) at pixel centres: for each class what labels say,
and the weight of all labels, 1 where there is no hole."""


Mix = Callable[[Tensor], None]
"""What is made of planes, in place, before they are interpolated or after: the same of each pixel's."""


class PlacedSheet:
    """One sheet on an output grid."""

    def __init__(
        self, reader: CellReader, grid: GeoBox, classes: int, sigma: float, device: torch.device
    ) -> None:
        """Lay a sheet under a grid.

        Args:
            reader: of the sheet.
            grid: of the output.
            classes: channels of the network.
            sigma: width of the Gaussian in cells; 0: bilinear.
            device: of the planes.
        """
        self._reader, self._place = reader, Placement(grid, reader.sheet.grid)
        self._sigma, self._device = sigma, device
        self._every = torch.arange(classes, dtype=torch.int16, device=device)[:, None, None]
        self._finer = round(_POINTS / sigma) if sigma else 1  # points per cell
        pixel, cell = (min(pixel_ground_size(grid)) for grid in (self._place.output, self._place.cells))
        self.side = math.inf if self._place.aligned else _SIDE / self._finer * cell / pixel
        """Pixels along the largest part of the output that its points are made for at once."""
        around = np.arange(_BLOCK * self._finer) / self._finer
        self._points = self._weights(around, -REACH, _BLOCK + 2 * REACH + 1)  # (point, cell) of a block
        # Windows of one row lie at the same rows of cells, and those of one column at the same columns.
        self._rows, self._cols, self._nodes = (
            lru_cache(maxsize=_LINES)(make)
            for make in (self._row_weights, self._col_weights, self._node_weights)
        )
        self._centres = (torch.arange(LATTICE, device=device) + 0.5).double().div_(LATTICE).view(-1, 1)

    def over(self, part: Window, mix: Mix | None) -> Planes | None:
        """The planes of a part of the output; None: there is no label.

        Args:
            part: of the output.
            mix: what is made of the planes; None: nothing.
        """
        return (self._straight if self._place.aligned else self._turned)(part, mix)

    def _straight(self, part: Window, mix: Mix | None) -> Planes | None:
        rows, cols = self._place.rows(part.row, part.height), self._place.cols(part.col, part.width)
        near = self._place.among([rows[[0, -1]], cols[[0, -1]]])
        cells = None if near is None else self._one_hot(near)
        if near is None or cells is None:
            return None
        y = self._rows(part.row, part.height, near.row, near.height)
        x = self._cols(part.col, part.width, near.col, near.width)
        return partial(_along, cells @ x.T, y, rows - near.row, part, mix)

    def _turned(self, part: Window, mix: Mix | None) -> Planes | None:
        nodes = self._place.nodes(part)
        near = self._place.among(nodes)
        cells = None if near is None else self._one_hot(_blocks_around(near))
        if near is None or cells is None:
            return None
        planes = _at_points(cells, self._points)
        if mix is not None:
            for rows in torch.split(planes, len(self._points), 1):  # so few stay in a processor's caches
                mix(rows)
        steps = (nodes - np.reshape((near.row, near.col), (2, 1, 1))) * (_STEPS * self._finer)
        last = np.reshape(planes.shape[1:], (2, 1, 1)) * _STEPS - _STEPS
        limits = None
        if (steps < 0).any() or (steps > last).any():
            limits = on_device(np.array([[0, 0], last.ravel()[::-1]], np.float32), self._device)
        along = on_device(steps, self._device) @ self._nodes(part.col, part.width).T  # (2, node row, x)
        along = along.flip(0).permute(1, 2, 0).flatten(1)
        return partial(self._between, _square(planes), along, along.diff(dim=0), limits, part)

    def _between(
        self, table: Tensor, along: Tensor, down: Tensor, limits: Tensor | None, part: Window, tile: Window
    ) -> Tensor:
        """Planes at rows of pixels, from those at points.

        Args:
            table: (1, c + 1, row, column) of points, square.
            along: (node row, x and 2) float64 column and row of each pixel, in steps from the first point.
            down: how far it is to the next node row.
            limits: (2, 2) of the first and the last point; None: no pixel lies beyond one of them.
            part: the pixels that these are of.
            tile: some of its rows; whole ways from node to node take the least.
        """
        first, last = tile.row // LATTICE, -(-tile.row_end // LATTICE)
        here = slice(first - part.row // LATTICE, last - part.row // LATTICE)
        at = torch.addcmul(along[here, None], down[here, None], self._centres).flatten(0, 1)
        at = at[tile.row - LATTICE * first :][: tile.height]
        at = at.round_().float().view(1, tile.height, tile.width, 2)
        if limits is not None:  # around the raster there are only cells without a label
            at.clamp_(*limits)
        half = table.shape[2] / 2
        at.mul_(1 / (half * _STEPS)).add_(0.5 / half - 1)  # -1 to 1
        return torch.nn.functional.grid_sample(table, at, align_corners=False)[0]

    def _one_hot(self, window: Window) -> Tensor | None:
        """(c + 1, cell row, cell column) of cells, and whether they have a label; None: none has."""
        channels = self._reader.read(window)
        if (channels == NO_CLASS).all():
            return None
        given = on_device(channels, self._device)
        return torch.cat([given == self._every, (given != NO_CLASS)[None]]).float()

    def _row_weights(self, first: int, count: int, cell: int, cells: int) -> Tensor:
        """(y, cell row) of rows of pixels."""
        return self._weights(self._place.rows(first, count), cell, cells)

    def _col_weights(self, first: int, count: int, cell: int, cells: int) -> Tensor:
        """(x, cell column) of columns of pixels."""
        return self._weights(self._place.cols(first, count), cell, cells)

    def _node_weights(self, first: int, count: int) -> Tensor:
        """(x, node) float64 of columns of pixels among the nodes around them."""
        return on_device(between_nodes(first, count), self._device)

    def _weights(self, at: NDArray[np.float64], cell: int, cells: int) -> Tensor:
        return cell_weights(at, cell, cells, self._sigma).to(self._device)


def _along(
    columns: Tensor, y: Tensor, rows: NDArray[np.float64], part: Window, mix: Mix | None, tile: Window
) -> Tensor:
    """Planes at rows of pixels, where these lie along rows of cells.

    Args:
        columns: (c + 1, cell row, x).
        y: (y, cell row) weights of all rows of pixels.
        rows: (y,) their positions from the first cell row.
        mix: see `PlacedSheet.over`.
        part: the pixels that these are of.
        tile: some of its rows.
    """
    here = slice(tile.row - part.row, tile.row_end - part.row)
    ends = rows[here.start], rows[here.stop - 1]
    low = max(0, math.floor(min(ends)) - REACH)
    high = max(low, min(columns.shape[1], math.ceil(max(ends)) + REACH + 1))
    planes = y[here, low:high] @ columns[:, low:high]
    if mix is not None:
        mix(planes)
    return planes


def _blocks_around(near: Window) -> Window:
    """Whole blocks of cells from the first one on, and what has a say in them.

    >>> _blocks_around(Window(0, 0, 8, 9))
    Window(row=-2, col=-2, height=13, width=21)
    """
    height, width = (_BLOCK * math.ceil(n / _BLOCK) + 2 * REACH + 1 for n in (near.height, near.width))
    return Window(near.row - REACH, near.col - REACH, height, width)


def _at_points(cells: Tensor, block: Tensor) -> Tensor:
    """(c, row, column) of points, from blocks of cells; behind it is memory as `_square` needs, zeros first.

    Args:
        cells: (c, cell row, cell column) of whole blocks and what has a say in them.
        block: (point, cell) weights along one block.
    """
    points, reach = block.shape
    rows = (block @ cells.unfold(1, reach, _BLOCK).transpose(2, 3)).flatten(1, 2)  # (c, row, cell column)
    blocks = rows.unfold(2, reach, _BLOCK)  # (c, row, block, cell)
    classes, height, width = *rows.shape[:2], blocks.shape[2] * points
    side = _even_power(height, width)
    size = classes * height * width
    memory = torch.empty(size + (side - height) * width + side - width, device=cells.device)
    torch.matmul(blocks.reshape(-1, reach), block.T, out=memory[:size].view(-1, points))
    memory[size:][: width + 1].zero_()
    return memory[:size].view(classes, height, width)


def _square(planes: Tensor) -> Tensor:
    """(c, row, column) as (1, c, row, column) that says its sides are one power of two.

    So a position between -1 and 1 is exact, and the same in any part. What lies beyond the true sides is
    looked at with weight 0 alone, and is some number of the planes or 0.
    """
    classes, height, width = planes.shape
    side = _even_power(height, width)
    return planes.as_strided((1, classes, side, side), (planes.numel(), height * width, width, 1))


def _even_power(height: int, width: int) -> int:
    """The power of two that is no less than either."""
    return 1 << (max(height, width) - 1).bit_length()
