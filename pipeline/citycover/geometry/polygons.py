"""Polygons brought onto a grid: repaired, clipped to what lies near it, and projected.

A continent does not fit into a UTM zone, so what is far from the grid is cut off first, in the polygons' own
CRS. Straight lines of one CRS bend in another, so they get points in between before they are projected.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from citycover.errors import ConfigError
from citycover.geometry.crs import tie
from citycover.geometry.footprint import unrolled_outline
from citycover.geometry.grid import Bounds, crs_of

_POLYGON = 3

_DENSE = 256
"""Points put on a line as long as the grid: its error is then far below a pixel."""

_MARGIN = 0.05
"""Share of the grid's extent that is kept around it."""

_DATUM = 0.01
"""Degrees by which two datums may differ."""

_SLIT = 1e-3
"""Pixels."""

_MOST_CROSSINGS = 20_000
"""Of one outline with itself. Repair takes time and memory by their number."""

_SEGMENTS = 1000


def polygon_parts(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    """(n,) all polygons in geometries of any kind, also such as lie in collections."""
    parts = shapely.get_parts(geometries)
    while (shapely.get_type_id(parts) > _POLYGON).any():  # collections in collections
        parts = shapely.get_parts(parts)
    return np.asarray(parts[shapely.get_type_id(parts) == _POLYGON], object)


def repaired(geometries: NDArray[np.object_], what: str) -> NDArray[np.object_]:
    """(n,) the same, each polygon valid: a bow-tie becomes its two halves.

    Raises:
        ConfigError: an outline crosses itself too often to be repaired.
    """
    valid = shapely.is_valid(geometries) | (shapely.get_type_id(geometries) != _POLYGON)
    if valid.all():
        return geometries
    if not np.isfinite(shapely.get_coordinates(geometries)).all():
        raise ConfigError(f"{what} holds coordinates that are no numbers (NaN or infinite); draw it anew")
    mended = geometries.copy()
    for place in np.flatnonzero(~valid):
        if _crosses_too_often(geometries[place]):
            raise ConfigError(
                f"{what} holds an outline that crosses itself more than {_MOST_CROSSINGS} times; "
                "its points are not in their order along the outline; draw it anew"
            )
        try:
            areas = polygon_parts(np.array([shapely.make_valid(geometries[place])], object))
        except shapely.errors.GEOSException as error:
            raise ConfigError(f"{what} holds an outline that is none: {error}; draw it anew") from None
        mended[place] = shapely.multipolygons(areas)
    return mended


def _crosses_too_often(polygon: Any) -> bool:
    coordinates, ring = shapely.get_coordinates(shapely.get_rings(polygon), return_index=True)
    segments = shapely.linestrings(np.stack([coordinates[:-1], coordinates[1:]], 1)[ring[:-1] == ring[1:]])
    tree, crossings = shapely.STRtree(segments), 0
    for first in range(0, len(segments), _SEGMENTS):
        pairs = tree.query(segments[first : first + _SEGMENTS], predicate="crosses")
        crossings += pairs.shape[1]
        if crossings > 2 * _MOST_CROSSINGS:  # each is met from both sides
            return True
    return False


def onto_grid(geometries: NDArray[np.object_], source: CRS, grid: GeoBox, what: str) -> NDArray[np.object_]:
    """(n,) points or valid polygons of a CRS in that of a grid.

    Polygons lose what is far from the grid; one that is far as a whole, or cannot be projected, is empty.

    Raises:
        ConfigError: nothing ties the two CRS.
    """
    target = crs_of(grid)
    if source == target and not source.is_geographic:
        return geometries
    project = tie(source, target, what).transform
    areas = shapely.get_dimensions(geometries) == 2
    geometries = geometries.copy()
    if areas.any():
        geometries[areas] = _clipped(geometries[areas], source, grid)

    def move(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = project(xy[:, 0], xy[:, 1])
        if target.is_geographic:  # a grid may count its longitudes from 0 to 360
            near = xy[:, 0] if source.is_geographic and areas.any() else _centre(grid)
            turns = np.round((near - x) / 360)
            x = x + 360 * np.where(np.isfinite(turns), turns, 0)
        return np.column_stack([x, y])

    moved: NDArray[np.object_] = shapely.transform(geometries, move)
    moved[areas & ~np.isfinite(shapely.bounds(moved)).all(1)] = shapely.Polygon()
    if areas.any() and not target.is_geographic:
        moved[areas] = _without_seam(repaired(moved[areas], what), grid)
    return moved


def _without_seam(polygons: NDArray[np.object_], grid: GeoBox) -> NDArray[np.object_]:
    """Around a pole the first and the last longitude become one line: a slit that rounding leaves open."""
    outline = unrolled_outline(grid)
    if outline is None or outline.bounds[2] - outline.bounds[0] < 360:
        return polygons
    closed: NDArray[np.object_] = shapely.set_precision(polygons, _SLIT * abs(float(grid.transform.a)))
    return closed


def _clipped(polygons: NDArray[np.object_], source: CRS, grid: GeoBox) -> NDArray[np.object_]:
    """The part of polygons that may lie on a grid, with points along their lines."""
    bounds = _degrees_near(grid, source) if source.is_geographic else _bounds_in(grid, source)
    if bounds is None:
        return polygons
    near = shapely.box(*bounds)
    if source.is_geographic:  # whichever way longitudes are counted
        turned = [
            shapely.transform(polygons, lambda xy, d=360.0 * turn: xy + np.array([d, 0.0]))
            for turn in (-2, -1, 0, 1, 2)
        ]
        clipped = shapely.union_all(shapely.intersection(np.array(turned, object), near), axis=0)
    else:
        clipped = shapely.intersection(polygons, near)
    west, south, east, north = bounds
    dense: NDArray[np.object_] = shapely.segmentize(clipped, max(east - west, north - south) / _DENSE)
    return dense


def _degrees_near(grid: GeoBox, source: CRS) -> Bounds | None:
    """Bounds of a grid in degrees, with a margin, as the grid counts them; None where it is not known."""
    outline = unrolled_outline(grid)
    if outline is None or source.axis_info[0].unit_name != "degree":
        return None
    west, south, east, north = _widened(outline.bounds, _DATUM)
    beyond = max(0.0, east - west - 360) / 2  # more than a turn would lie over itself around a pole
    west, east = west + beyond, east - beyond
    turn = 360 * round((_centre(grid) - (west + east) / 2) / 360) if crs_of(grid).is_geographic else 0
    return west + turn, south, east + turn, north


def _centre(grid: GeoBox) -> float:
    west, _, east, _ = grid.boundingbox
    return float(west + east) / 2


def _widened(bounds: Bounds, least: float = 0.0) -> Bounds:
    west, south, east, north = bounds
    margin = least + _MARGIN * max(east - west, north - south)
    return west - margin, south - margin, east + margin, north + margin


def _bounds_in(grid: GeoBox, to: CRS) -> Bounds | None:
    """Bounds of a grid in a CRS; None where one of the two does not show the other's ground."""
    transformer = tie(crs_of(grid), to, "an image")
    height, width = grid.shape
    cols, rows = (v.ravel() for v in np.meshgrid(np.linspace(0, width, 33), np.linspace(0, height, 33)))
    x, y = grid.transform * (cols, rows)
    there = transformer.transform(x, y)
    back_x, back_y = transformer.transform(*there, direction="INVERSE")
    if not np.isfinite([*there, back_x, back_y]).all():
        return None
    slack = _MARGIN * math.hypot(np.ptp(x), np.ptp(y))
    if np.hypot(back_x - x, back_y - y).max() > slack:
        return None  # far outside of the zone numbers come out that mean another place
    return _widened((there[0].min(), there[1].min(), there[0].max(), there[1].max()))
