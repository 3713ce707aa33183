"""The labels' evidence at every pixel, and what it makes of the network's probabilities. On the device.

    score_k = strength_k log(P_k / prior_k) + log(q_k + 1e-5),   q_k = (1 - noise) S_k + noise * share_k

S is the one-hot of the labels at pixel centres: cells of all sheets within reach vote with their weights, and
what has no label does not vote. Where no label is within reach the network decides alone: P stays as it is.
A class that training never had, or that the network cannot tell apart, has none of its evidence for or
against it: strength_k is 0. Probabilities are the softmax of `sharpness` times the scores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from torch import Tensor

from citycover.classes.table import NO_CLASS
from citycover.evidence.cells import CellReader, Sheet
from citycover.evidence.kernel import cell_weights
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.place import Placement, between_nodes
from citycover.evidence.rule import PARTS
from citycover.geometry.window import Window

_FLOOR = 1e-5
"""Share that a class without any label nearby still has."""

_LABELLED = 1e-3
"""Weight of labelled cells above which a pixel has labels within reach."""

_FINER = 8
"""Points per cell at which a Gaussian is computed where grids are not aligned; in between it is bilinear."""

_LINES = 64
"""Rows and columns of windows whose weights are kept: half a megabyte each at most, mostly far less."""

_AT_ONCE = 1 << 19
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
        self._shares = torch.tensor(labels.shares, device=device).view(column)
        self._prior = torch.tensor([p if p > 0 else 1.0 for p in labels.prior], device=device).view(column)
        self._exponents = [round(strength * PARTS) for strength in labels.strengths]
        self._sharpness = round(labels.rule.sharpness * PARTS)

    def smoothed(self, window: Window) -> Tensor:
        """(c, y, x) weights of the labels' classes at pixel centres; all 0 where there is no label."""
        total = torch.zeros(len(self.labels.prior), window.height, window.width, device=self.device)
        for sheet in self._sheets:
            sheet.add_to(total, window)
        return total

    def __call__(self, probabilities: Tensor, window: Window) -> Tensor:
        """Put the labels' evidence to the network's.

        Args:
            probabilities: (c, y, x) float32, blended.
            window: the pixels of output that they are of.

        Returns:
            (c, y, x) float32 probabilities, new.
        """
        posterior = torch.empty_like(probabilities)
        rows = window.height
        if self.device.type == "cpu":
            rows = max(1, _AT_ONCE // (len(probabilities) * window.width))
        for first in range(0, window.height, rows):
            strip = Window(window.row + first, window.col, min(rows, window.height - first), window.width)
            part = slice(first, first + strip.height)
            self._weigh(probabilities[:, part], strip, posterior[:, part])
        return posterior

    def _weigh(self, probabilities: Tensor, window: Window, posterior: Tensor) -> None:
        """Write the (c, y, x) posterior of a window."""
        weights = self.smoothed(window)
        labelled = _total(weights)
        noise = self.labels.rule.noise
        q = weights.mul_((1 - noise) / labelled.clamp(min=_LABELLED)).add_(noise * self._shares + _FLOOR)
        likelihood = probabilities / self._prior
        for plane, exponent in zip(likelihood.unbind(0), self._exponents, strict=True):
            _raise_power(plane, exponent)
        q.mul_(likelihood)
        # Pixels without any vote are nodata; they must not become NaN on the way there.
        tiny = torch.finfo(torch.float32).tiny
        q.div_(_total(q).clamp_(min=tiny))
        if self._sharpness != PARTS:
            _raise_power(q, self._sharpness)
            q.div_(_total(q).clamp_(min=tiny))
        torch.where(labelled > _LABELLED, q, probabilities, out=posterior)


def _raise_power(base: Tensor, parts: int) -> None:
    """(...) `base ** (parts / PARTS)`, in place; parts below 2 PARTS.

    One square root for each binary digit: the same to the last bit on every device and in tiles of any size.
    """
    if parts == PARTS:
        return
    power = base.clone() if parts & PARTS else torch.ones_like(base)
    place = PARTS
    while parts & (place - 1):
        place //= 2
        base.sqrt_()
        if parts & place:
            power *= base
    base.copy_(power)


def _total(planes: Tensor) -> Tensor:
    """(c, y, x) -> (y, x) sum, always in the order of the classes."""
    total = planes[0].clone()
    for plane in planes[1:].unbind(0):
        total += plane
    return total


def open_field(labels: LabelEvidence | None, grid: GeoBox, device: torch.device) -> LabelField | None:
    """The field of labels on an output grid; None where there are none."""
    return None if labels is None else LabelField(labels, grid, device)


class _PlacedSheet:
    """One sheet on an output grid."""

    def __init__(
        self, reader: CellReader, grid: GeoBox, classes: int, sigma: float, device: torch.device
    ) -> None:
        self.reader, self.place = reader, Placement(grid, reader.sheet.grid)
        self.classes, self.sigma, self.device = classes, sigma, device
        # Windows of one row lie at the same rows of cells, and those of one column at the same columns.
        self._rows, self._cols, self._points = (
            lru_cache(maxsize=_LINES)(make)
            for make in (self._row_weights, self._col_weights, self._point_weights)
        )

    def add_to(self, total: Tensor, window: Window) -> None:
        """Add what the cells say to (c, y, x) weights."""
        seen = self.place.seen(window)
        if seen is None:
            return
        channels = self.reader.read(seen)
        if (channels == NO_CLASS).all():
            return
        cells = self._one_hot(channels)
        if self.place.aligned:
            y = self._rows(window.row, window.height, seen.row, seen.height)
            x = self._cols(window.col, window.width, seen.col, seen.width)
            total += y @ (cells @ x.T)
        else:
            total += self._between(cells, seen, window)

    def _one_hot(self, channels: NDArray[np.int16]) -> Tensor:
        every = torch.arange(self.classes, dtype=torch.int16, device=self.device)[:, None, None]
        return (torch.from_numpy(channels).to(self.device) == every).float()  # (c, cell row, cell column)

    def _row_weights(self, first: int, count: int, cell: int, cells: int) -> Tensor:
        """(y, cell row) of rows of pixels."""
        return self._weights(self.place.rows(first, count), cell, cells)

    def _col_weights(self, first: int, count: int, cell: int, cells: int) -> Tensor:
        """(x, cell column) of columns of pixels."""
        return self._weights(self.place.cols(first, count), cell, cells)

    def _point_weights(self, cells: int) -> Tensor:
        """(point, cell) of the points among so many cells, the first and the last of them included."""
        finer = _FINER if self.sigma else 1
        return self._weights(np.arange((cells - 1) * finer + 1) / finer, 0, cells)

    def _weights(self, at: NDArray[np.float64], cell: int, cells: int) -> Tensor:
        return cell_weights(at, cell, cells, self.sigma).to(self.device)

    def _between(self, cells: Tensor, seen: Window, window: Window) -> Tensor:
        """(c, y, x) at positions that follow the other grid: by way of points among the cells."""
        finer = _FINER if self.sigma else 1
        y, x = self._points(seen.height), self._points(seen.width)
        field = y @ (cells @ x.T)  # (c, point row, point column)
        corner, share = [], []
        for nodes, first, count in zip(
            self.place.nodes(window), (seen.row, seen.col), field.shape[1:], strict=True
        ):
            at = ((self._positions(nodes, window) - first) * (finer * _STEPS)).round_()
            # Around the raster there are only cells without a label.
            steps = at.clamp_(0, (count - 1) * _STEPS).int()
            corner.append(steps.div(_STEPS, rounding_mode="floor").clamp_(max=count - 2))
            share.append((steps - corner[-1] * _STEPS).float().div_(_STEPS))
        return _bilinear(field, corner[0], corner[1], share[0], share[1])

    def _positions(self, nodes: NDArray[np.float64], window: Window) -> Tensor:
        """(y, x) float64 position of each pixel along one axis of the cells."""
        y = torch.from_numpy(between_nodes(window.row, window.height)).to(self.device)
        x = torch.from_numpy(between_nodes(window.col, window.width)).to(self.device)
        return y @ (torch.from_numpy(nodes).to(self.device) @ x.T)


def _bilinear(field: Tensor, row: Tensor, col: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """(c, row, col) field at row + down, col + right, all (y, x); sums in one order, whatever the tile."""
    width = field.shape[2]
    corners = torch.tensor([0, 1, width, width + 1], dtype=row.dtype, device=field.device)
    at = (row * width + col).flatten()[:, None] + corners
    up, left = 1 - down, 1 - right
    weights = torch.stack([up * left, up * right, down * left, down * right], -1).flatten(0, 1)
    points = field.flatten(1).T.contiguous()  # (point, c)
    found = torch.nn.functional.embedding_bag(at, points, mode="sum", per_sample_weights=weights)
    return found.T.reshape(-1, *row.shape)
