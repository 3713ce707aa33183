"""Images that lie over each other: what is held out of one, no other may be learned from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from shapely import Polygon, STRtree, box

from citycover.geometry.crs import tie
from citycover.geometry.footprint import degrees_of
from citycover.geometry.grid import Bounds, crs_of
from citycover.geometry.window import Window

_TOUCH = 1e-3
"""Pixels by which neighbours may overlap by rounding alone."""


def find_overlaps(grids: Sequence[GeoBox]) -> list[list[int]]:
    """For each image, the others whose bounds meet its own, in rising order."""
    boxes = [_box(grid) for grid in grids]
    one, other = STRtree(boxes).query(boxes, predicate="intersects")
    found: list[list[int]] = [[] for _ in grids]
    for i, k in sorted(zip(one.tolist(), other.tolist(), strict=True)):
        if i != k:
            found[i].append(k)
    return found


def _box(grid: GeoBox) -> Polygon:
    """Bounds in degrees: all longitudes where they cross 180, the whole world where they are not known."""
    west, south, east, north = degrees_of(grid) or (-180.0, -90.0, 180.0, 90.0)
    return box(west, south, east, north) if west <= east else box(-180.0, south, 180.0, north)


def seen_from(window: Window, grid: GeoBox, other: GeoBox, slack: float = _TOUCH) -> Window | None:
    """The smallest window of another image that holds what it shares with a window of one; None: nothing.

    Args:
        window: pixels of `grid`.
        grid: of the one.
        other: grid of the other.
        slack: pixels of the other that count for nothing at its edges.
    """
    bounds = bounds_after(grid.transform, window.col, window.row_end, window.col_end, window.row)
    bounds = bounds_in(other, grid, bounds)
    if not all(map(math.isfinite, bounds)):
        return None
    left, top, right, bottom = bounds_after(~other.transform, *bounds)
    row, col = math.floor(top + slack), math.floor(left + slack)
    height, width = math.ceil(bottom - slack) - row, math.ceil(right - slack) - col
    if height < 1 or width < 1:
        return None
    return Window(row, col, height, width).clip(Window(0, 0, *other.shape))


def bounds_in(other: GeoBox, grid: GeoBox, bounds: Bounds) -> Bounds:
    """Bounds in the CRS of one grid as bounds in that of another; not finite where they lie beyond it.

    Across 180 degrees longitudes go on: 179 to 181.

    Raises:
        ConfigError: nothing ties one CRS to the other.
    """
    if grid.crs == other.crs:
        return bounds  # also where it is no place on the Earth
    to = tie(crs_of(grid), crs_of(other), "an image")
    try:
        west, south, east, north = to.transform_bounds(*bounds)
    except ProjError:
        return (math.inf,) * 4
    if west > east and crs_of(other).is_geographic:
        east += 360
    return west, south, east, north


def bounds_after(transform: Affine, west: float, south: float, east: float, north: float) -> Bounds:
    """Smallest and largest coordinates (x, y, x, y) of a box after a transform, which may flip or turn it."""
    corners = [transform * corner for corner in ((west, south), (west, north), (east, south), (east, north))]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
