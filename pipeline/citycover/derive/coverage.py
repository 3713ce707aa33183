"""The exact share of each pixel that a polygon covers.

Strategy: the area left of a line is a sum over its edges. Cut every edge where it crosses a side of a pixel,
so that each piece lies in one pixel; going down by dy, a piece adds dy times what lies to its right in that
pixel, and dy to every pixel further right. A running sum along each row is then the covered share: with
outlines clockwise and holes the other way around, 1 inside and 0 outside.

      row  |   |  /|   |   |        the piece at / adds its trapezoid to its own pixel,
           |   | /.|...|...|        and its height to all pixels to the right

So it is done in font rasterisers. There is no sampling in it: shares are exact to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from citycover.geometry.window import Window

_ROUNDING = 1e-9
"""Shares nearer to 0 or 1 than this are 0 or 1."""


@dataclass(frozen=True)
class Edges:
    """The outline of an area in pixel coordinates, as edges with the area on the same side of each."""

    start: NDArray[np.float64]
    """(edge, 2) x, y."""
    end: NDArray[np.float64]

    @classmethod
    def of(cls, area: Any) -> Edges:
        """Of a valid polygon or multipolygon in pixel coordinates (x to the right, y down)."""
        turned = shapely.orient_polygons(area)
        points, ring = shapely.get_coordinates(
            shapely.get_rings(shapely.get_parts(turned)), return_index=True
        )
        inside = ring[:-1] == ring[1:]
        return cls(points[:-1][inside], points[1:][inside])

    @property
    def window(self) -> Window:
        """The pixels that it touches."""
        low, high = np.floor(self.start.min(0)).astype(int), np.ceil(self.start.max(0)).astype(int)
        height, width = max(1, int(high[1] - low[1])), max(1, int(high[0] - low[0]))
        return Window(int(low[1]), int(low[0]), height, width)


def covered_shares(edges: Edges, window: Window) -> NDArray[np.float64]:
    """(y, x) share of each pixel of a window that an area covers, 0..1."""
    near = (np.minimum(edges.start[:, 1], edges.end[:, 1]) < window.row_end) & (
        np.maximum(edges.start[:, 1], edges.end[:, 1]) > window.row
    )
    origin = np.array([window.col, window.row], np.float64)
    start, end = _pieces(edges.start[near] - origin, edges.end[near] - origin)
    middle, down = (start + end) / 2, end[:, 1] - start[:, 1]
    row = np.floor(middle[:, 1]).astype(np.int64)
    keep = (down != 0) & (row >= 0) & (row < window.height) & (middle[:, 0] < window.width)
    row, x, down = row[keep], np.maximum(middle[keep, 0], 0.0), down[keep]
    col = np.floor(x).astype(np.int64)
    side = window.width + 1
    size = window.height * side
    right = down * (x - col)
    total = np.bincount(row * side + col, down - right, size)
    total += np.bincount(row * side + col + 1, right, size)
    shares = np.abs(np.cumsum(total.reshape(window.height, side), axis=1)[:, :-1])
    shares[shares < _ROUNDING] = 0
    shares[shares > 1 - _ROUNDING] = 1
    return shares


def _pieces(
    start: NDArray[np.float64], end: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges cut at whole numbers of x and of y: (piece, 2) starts and ends, along each edge in turn."""
    edges, places = [np.arange(len(start)).repeat(2)], [np.tile([0.0, 1.0], len(start))]
    for axis in (0, 1):
        edge, place = _crossings(start[:, axis], end[:, axis])
        edges.append(edge)
        places.append(place)
    edge, place = np.concatenate(edges), np.concatenate(places)
    order = np.lexsort((place, edge))
    edge, place = edge[order], place[order]
    points = start[edge] + place[:, None] * (end[edge] - start[edge])
    same = edge[:-1] == edge[1:]
    return points[:-1][same], points[1:][same]


def _crossings(
    start: NDArray[np.float64], end: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Edge and place along it (0..1) of each crossing of a whole number, along one axis."""
    low, high = np.minimum(start, end), np.maximum(start, end)
    first = np.floor(low).astype(np.int64) + 1
    count = np.maximum(np.ceil(high).astype(np.int64) - first, 0)
    edge = np.arange(len(start)).repeat(count)
    line = first[edge] + np.arange(len(edge)) - (np.cumsum(count) - count)[edge]
    return edge, (line - start[edge]) / (end - start)[edge]
