"""The labels' evidence at every pixel, and what it makes of the network's probabilities. On the device.

    score_k = strength_k log(P_k / prior_k) + log(q_k + 1e-5),   q_k = (1 - noise) S_k + noise * share_k

S is the one-hot of the labels at pixel centres: cells of all sheets within reach vote with their weights, and
what has no label does not vote. Where no label is within reach the network decides alone: P stays as it is.
Of a class that training never had, or that the network cannot tell apart, it has nothing to say: strength_k
is 0, and what speaks for or against the known classes around it is said of that class too, so that it keeps
the share that the labels give it. Probabilities are the softmax of `sharpness` times the scores.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from torch import Tensor

from citycover.classes.table import NO_CLASS
from citycover.evidence.cells import CellReader, Sheet
from citycover.evidence.kernel import cell_weights
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.place import LATTICE, Placement, between_nodes
from citycover.evidence.rule import PARTS
from citycover.geometry.window import Window
from citycover.machine.device import on_device

_FLOOR = 1e-5
"""Share that a class without any label nearby still has."""

LABELLED = 1e-3
"""Weight of labelled cells above which a pixel has labels within reach."""

_POINTS = 3
"""Points along the width of a Gaussian that it is computed at where grids are not aligned; in between it is
bilinear: within a hundredth of it."""

_LINES = 64
"""Rows and columns of windows whose weights are kept: half a megabyte each at most, mostly far less."""

_AT_ONCE = 1 << 18
"""Probabilities that a processor works on at once: what is made of them on the way stays in its caches."""

_STEPS = 1024
"""Positions between points are rounded to: the last bits of a projection must not depend on the tile."""


class LabelField:
    """The labels around an output grid, window by window; never holds more of them than a window sees."""

    def __init__(
        self,
        labels: LabelEvidence,
        grid: GeoBox,
        device: torch.device,
        reader: Callable[[Sheet], CellReader] = CellReader,
    ) -> None:
        """Open the sheets.

        Args:
            labels: what to believe.
            grid: of the output; windows are pixels of it.
            device: of the probabilities.
            reader: opens a sheet.
        """
        self.labels, self.device = labels, device
        grid = labels.seen_from(grid)
        self._sheets = [
            _PlacedSheet(reader(sheet), grid, len(labels.prior), labels.rule.sigma, device)
            for sheet in labels.sheets
        ]
        column = (len(labels.prior), 1, 1)
        noise = labels.rule.noise
        self._shares = torch.tensor(labels.shares, device=device).view(column)
        self._base = self._shares * noise + _FLOOR
        self._per_prior = torch.tensor([1 / p if p > 0 else 1.0 for p in labels.prior], device=device)
        self._per_prior = self._per_prior.view(column)
        # Rounded in favour of the labels: what a network can tell apart must be nearly sure.
        self._powers = _runs([math.floor(strength * PARTS) for strength in labels.strengths])
        self._known = torch.tensor(labels.known, device=device).view(column)
        doubts = ((k, math.ceil((1 - known) * PARTS)) for k, known in enumerate(labels.known))
        self._doubts = [(k, parts) for k, parts in doubts if parts]
        self._sharpness = round(labels.rule.sharpness * PARTS)

    def smoothed(self, window: Window) -> Tensor:
        """(c, y, x) weights of the labels' classes at pixel centres; all 0 where there is no label."""
        return self._added(self._cells(window), window)

    def __call__(self, probabilities: Tensor, window: Window) -> Tensor:
        """Put the labels' evidence to the network's, in place.

        Args:
            probabilities: (c, y, x) float32, blended.
            window: the pixels of output that they are of.

        Returns:
            What was given.
        """
        cells = self._cells(window)
        for tile in self._tiles(window):
            part = tile.shift(-window.row, -window.col).slices
            self._weigh(probabilities[:, *part], self._added(cells, tile))
        return probabilities

    def _cells(self, window: Window) -> list[Weights]:
        """Of each sheet that has labels there."""
        found = [sheet.over(window) for sheet in self._sheets]
        return [weights for weights in found if weights is not None]

    def _added(self, cells: list[Weights], tile: Window) -> Tensor:
        """(c, y, x) sum of what sheets say."""
        if not cells:
            return torch.zeros(len(self.labels.prior), tile.height, tile.width, device=self.device)
        total = cells[0](tile)
        for more in cells[1:]:
            total += more(tile)
        return total

    def _tiles(self, window: Window) -> Iterator[Window]:
        """Parts of a window that are worked on at once: what is made of them stays in a processor's caches.

        Whole rows, or squares where cells are not aligned: around a square of pixels such cells are fewest.
        """
        height, width = window.height, window.width
        if self.device.type == "cpu":
            pixels = _AT_ONCE / len(self.labels.prior)
            if not all(sheet.place.aligned for sheet in self._sheets):
                width = _even(width, math.sqrt(pixels))
            height = _even(height, pixels / width)
        for row in range(window.row, window.row_end, height):
            for col in range(window.col, window.col_end, width):
                yield Window(row, col, min(height, window.row_end - row), min(width, window.col_end - col))

    def _weigh(self, probabilities: Tensor, weights: Tensor, lost: Tensor | None = None) -> None:
        """Make (c, y, x) probabilities the posterior, in the light of the labels' weights, which are used up.

        Of trust that the labels `lost`, (y, x) 0 to 1, it is as if that share of them were noise as well.

        Every number is made of operations that round alike wherever a pixel lies in a tensor: of no fused
        ones, and of no sum whose order is left open.
        """
        labelled = total_of(weights)
        scale = (1 - self.labels.rule.noise) / labelled.clamp(min=LABELLED)
        if lost is not None:
            scale *= 1 - lost
        q = weights.mul_(scale).add_(self._base)
        if lost is not None:
            q += self._shares * (lost * (1 - self.labels.rule.noise))
        likelihood = probabilities * self._per_prior
        for classes, exponent in self._powers:
            _raise_power(likelihood[classes], exponent)
        if self._doubts:
            self._spare_unknown(q, likelihood)
        q.mul_(likelihood)
        if self._sharpness != PARTS:
            _raise_power(q, self._sharpness)
        # Pixels without any vote are nodata; they must not become NaN on the way there.
        total = _part_of_all(q)
        if self.device.type == "cpu" and float(labelled.amin()) > LABELLED:  # a GPU would be waited for
            torch.mul(q, total, out=probabilities)
        else:
            probabilities.copy_(torch.where(labelled > LABELLED, q.mul_(total), probabilities))

    def _spare_unknown(self, q: Tensor, likelihood: Tensor) -> None:
        """Put to classes, as far as the network does not know them, the mean of what it says of the others.

        Else each word for a known class would be one against an unknown one.

        Args:
            q: (c, y, x) what the labels say.
            likelihood: (c, y, x) what the network says; changed in place.
        """
        known = q * self._known
        share = total_of(known).add_(_FLOOR)
        mean = total_of(known.mul_(likelihood)).add_(_FLOOR).div_(share)
        for k, parts in self._doubts:
            power = mean.clone()
            _raise_power(power, parts)
            likelihood[k].mul_(power)


def _even(length: int, most: float) -> int:
    """Length of parts of about equal length, each about `most` at most.

    >>> _even(100, 40), _even(100, 1000)
    (34, 100)
    """
    return math.ceil(length / math.ceil(length / max(1, most)))


def _runs(exponents: list[int]) -> list[tuple[slice, int]]:
    """Neighbouring classes of one exponent together.

    >>> _runs([32, 32, 0])
    [(slice(0, 2, None), 32), (slice(2, 3, None), 0)]
    """
    runs, first = [], 0
    for exponent, group in itertools.groupby(exponents):
        count = len(list(group))
        runs.append((slice(first, first + count), exponent))
        first += count
    return runs


def _raise_power(base: Tensor, parts: int) -> None:
    """(...) `base ** (parts / PARTS)`, in place; parts below 2 PARTS.

    One square root for each binary digit: the same to the last bit on every device and in tiles of any size.
    """
    if parts == 0:
        base.fill_(1)
        return
    last, root = parts & -parts, base
    for place in (PARTS >> digit for digit in range(PARTS.bit_length())):
        if place == last:
            break
        if parts & place and root is base:
            root = base.sqrt()  # base stays as the first factor
        else:
            if parts & place:
                base.mul_(root)
            root.sqrt_()
    if root is not base:
        base.mul_(root)


def total_of(planes: Tensor) -> Tensor:
    """(c, y, x) -> (y, x) sum, always in the order of the classes."""
    first, *others = planes.unbind(0)
    total = first + others[0] if others else first.clone()
    for plane in others[1:]:
        total += plane
    return total


def _part_of_all(planes: Tensor) -> Tensor:
    """(y, x) what (c, y, x) planes are multiplied by to sum to one."""
    return total_of(planes).clamp_(min=torch.finfo(torch.float32).tiny).reciprocal_()


Weights = Callable[[Window], Tensor]
"""Part of the window that it was made for -> (c, y, x) weights of a sheet's classes at pixel centres."""


class _PlacedSheet:
    """One sheet on an output grid."""

    def __init__(
        self, reader: CellReader, grid: GeoBox, classes: int, sigma: float, device: torch.device
    ) -> None:
        self.reader, self.place = reader, Placement(grid, reader.sheet.grid)
        self.classes, self.sigma, self.device = classes, sigma, device
        self._finer = round(_POINTS / sigma) if sigma else 1  # points per cell
        # Windows of one row lie at the same rows of cells, and those of one column at the same columns.
        self._rows, self._cols, self._points, self._lines = (
            lru_cache(maxsize=_LINES)(make)
            for make in (self._row_weights, self._col_weights, self._point_weights, self._node_weights)
        )

    def over(self, window: Window) -> Weights | None:
        """The cells around a window, asked tile by tile for their weights; None: there is no label."""
        seen = self.place.seen(window)
        if seen is None:
            return None
        channels = self.reader.read(seen)
        if (channels == NO_CLASS).all():
            return None
        cells = self._one_hot(channels)
        if not self.place.aligned:
            return partial(self._between, cells, seen, window, self.place.nodes(window))
        return partial(
            self._along, cells @ self._cols(window.col, window.width, seen.col, seen.width).T, seen
        )

    def _along(self, columns: Tensor, seen: Window, tile: Window) -> Tensor:
        """(c, y, x) at rows of pixels, from (c, cell row, x) of the `seen` cells."""
        near = self.place.seen(tile)
        if near is None:
            return torch.zeros(self.classes, tile.height, tile.width, device=self.device)
        y = self._rows(tile.row, tile.height, near.row, near.height)
        return y @ columns[:, near.row - seen.row :][:, : near.height]

    def _one_hot(self, channels: NDArray[np.int16]) -> Tensor:
        every = torch.arange(self.classes, dtype=torch.int16, device=self.device)[:, None, None]
        return (on_device(channels, self.device) == every).float()  # (c, cell row, cell column)

    def _row_weights(self, first: int, count: int, cell: int, cells: int) -> Tensor:
        """(y, cell row) of rows of pixels."""
        return self._weights(self.place.rows(first, count), cell, cells)

    def _col_weights(self, first: int, count: int, cell: int, cells: int) -> Tensor:
        """(x, cell column) of columns of pixels."""
        return self._weights(self.place.cols(first, count), cell, cells)

    def _point_weights(self, cells: int) -> Tensor:
        """(point, cell) of the points among so many cells, from the first one on."""
        return self._weights(np.arange(cells * self._finer) / self._finer, 0, cells)

    def _node_weights(self, first: int, count: int) -> Tensor:
        """(pixel, node) float64 of rows or columns of pixels among the nodes around them."""
        return on_device(between_nodes(first, count), self.device)

    def _weights(self, at: NDArray[np.float64], cell: int, cells: int) -> Tensor:
        return cell_weights(at, cell, cells, self.sigma).to(self.device)

    def _between(
        self, cells: Tensor, seen: Window, window: Window, nodes: NDArray[np.float64], tile: Window
    ) -> Tensor:
        """(c, y, x) at positions that follow the other grid: by way of points among the cells.

        Args:
            cells: (c, cell row, cell column) one-hot of the `seen` ones.
            seen: all around `window`.
            window: whose pixels the tile is of.
            nodes: (2, node row, node column) around it.
            tile: the pixels.
        """
        nodes = nodes[:, *_nodes_of(tile, window)]
        near = self.place.among(nodes)
        if near is None:
            return torch.zeros(self.classes, tile.height, tile.width, device=self.device)
        cells = cells[:, *near.shift(-seen.row, -seen.col).slices]
        y, x = self._among(near.height), self._among(near.width)
        table = _table(y @ cells, x)
        steps = _STEPS * self._finer
        from_first = (nodes - np.reshape((near.row, near.col), (2, 1, 1))) * steps
        at = self._positions(from_first, tile).round_().float()
        for axis, last in ((0, len(y) - 1), (1, len(x) - 1)):
            if from_first[axis].min() < 0 or from_first[axis].max() > last * _STEPS:
                # Around the raster there are only cells without a label.
                at[..., 1 - axis].clamp_(0, last * _STEPS)
        half = table.shape[2] / 2
        at.mul_(1 / (half * _STEPS)).add_(0.5 / half - 1)  # -1 to 1
        return torch.nn.functional.grid_sample(table, at, align_corners=False)[0]

    def _among(self, cells: int) -> Tensor:
        """(point, cell) weights of points among so many cells, the first and the last of them included."""
        return self._points(1 << cells.bit_length())[: (cells - 1) * self._finer + 1, :cells]

    def _positions(self, nodes: NDArray[np.float64], window: Window) -> Tensor:
        """(1, y, x, 2) float64 column and row of each pixel, from (2, node row, node column) of the nodes."""
        y, x = self._lines(window.row, window.height), self._lines(window.col, window.width)
        along = on_device(nodes, self.device) @ x.T  # (2, node row, x)
        return (y @ along.flip(0).permute(1, 2, 0).flatten(1)).view(1, window.height, window.width, 2)


def _table(rows: Tensor, x: Tensor) -> Tensor:
    """`rows @ x.T` as (1, c, row, column) that says its sides are one power of two.

    So a position between -1 and 1 is exact, and the same in any tile. What lies beyond the true sides is
    looked at with weight 0 alone, and is some number of the table or 0.

    Args:
        rows: (c, row, cell column).
        x: (column, cell column).
    """
    (classes, height, _), width = rows.shape, len(x)
    side = 1 << (max(height, width) - 1).bit_length()
    size = classes * height * width
    memory = torch.empty(size + (side - height) * width + side - width, device=rows.device)
    torch.matmul(rows.flatten(0, 1), x.T, out=memory[:size].view(-1, width))  # all classes at once
    memory[size:].zero_()
    return memory.as_strided((1, classes, side, side), (size, height * width, width, 1))


def _nodes_of(tile: Window, window: Window) -> tuple[slice, slice]:
    """Which of the nodes around a window lie around a part of it."""
    row, col = window.row // LATTICE, window.col // LATTICE
    return (
        slice(tile.row // LATTICE - row, -(-tile.row_end // LATTICE) - row + 1),
        slice(tile.col // LATTICE - col, -(-tile.col_end // LATTICE) - col + 1),
    )
