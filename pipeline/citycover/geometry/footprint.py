"""The outline of a grid in longitude and latitude.

The border of the grid is projected point by point and its longitudes are unrolled, so that a step from 179 to
-179 degrees is one of 2 degrees. A border that then ends a whole turn from where it began goes round a pole,
and is closed over it. What reaches beyond 180 degrees is cut there, as GeoJSON wants it.

    unrolled    |   170 [=====|=====] 190   |   ->   GeoJSON   170 [==] 180, -180 [==] -170
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pyproj.enums import TransformDirection

from citycover.geometry.crs import to_degrees
from citycover.geometry.grid import Bounds, crs_of, crs_text

Outline: TypeAlias = shapely.Polygon | shapely.MultiPolygon

_SIDE = 32
"""Points along each side of the border: straight lines bend."""

_LATTICE = 65
"""Points along each side of the lattice that finds what a border off the globe encloses."""

_DIGITS = 7  # a centimetre


def footprint(grid: GeoBox) -> Outline | None:
    """Outline in longitude and latitude, edges densified, cut at the antimeridian as GeoJSON wants it.

    Where the border leaves the globe (the disk that a geostationary satellite sees), the box around what lies
    on it.

    Returns:
        None where the grid is no place on the Earth.
    """
    unrolled = unrolled_outline(grid)
    return None if unrolled is None else _cut(unrolled)


def degrees_of(grid: GeoBox) -> Bounds | None:
    """Bounds of a grid in longitude and latitude; west > east where they cross 180 degrees.

    Returns:
        None where the grid is no place on the Earth.
    """
    outline = footprint(grid)
    return None if outline is None else bbox_of(outline)


def degrees_text(grid: GeoBox) -> str:
    """Where a grid lies, in words for messages; in its own units where it is no place on the Earth."""
    bounds = degrees_of(grid)
    if bounds is None:
        west, south, east, north = grid.boundingbox
        return f"{west:.8g},{south:.8g},{east:.8g},{north:.8g} (west,south,east,north in {crs_text(grid)})"
    return f"{','.join(f'{v:.5f}' for v in bounds)} (west,south,east,north)"


def unrolled_outline(grid: GeoBox) -> Outline | None:
    """The outline whole: longitudes may lie beyond 180 degrees, by less than a turn and a half.

    Returns:
        None where the grid is no place on the Earth.
    """
    transformer = to_degrees(crs_of(grid)) if grid.crs is not None else None
    if transformer is None:
        return None
    t = np.linspace(0, 1, _SIDE + 1)
    ones, zeros = np.ones(_SIDE), np.zeros(_SIDE)
    cols = np.concatenate([t[:-1], ones, 1 - t[:-1], zeros, [0.0]])
    rows = np.concatenate([zeros, t[:-1], ones, 1 - t[:-1], [0.0]])
    lon, lat = _project(grid, transformer, cols, rows)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return _box_of_what_is_on_the_globe(grid, transformer)
    lon = np.unwrap(lon, period=360)
    if abs(lon[-1] - lon[0]) > 180:
        pole = _enclosed_pole(grid, transformer) or math.copysign(90, lat.mean())
        lon, lat = np.concatenate([lon, [lon[-1], lon[0]]]), np.concatenate([lat, [pole, pole]])
    # Near 0 degrees: a grid may count its longitudes from 0 to 360, or beyond.
    lon = lon - 360 * np.round((lon.min() + lon.max()) / 720)
    ring = np.round(np.column_stack([lon, lat.clip(-90, 90)]), _DIGITS)
    return _polygons(shapely.make_valid(shapely.Polygon(ring)))


def _project(
    grid: GeoBox, transformer: Transformer, cols: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the width and height -> longitudes, latitudes; infinite off the globe."""
    height, width = grid.shape
    x, y = grid.transform * (cols * width, rows * height)
    lon, lat = transformer.transform(x, y)
    return np.asarray(lon, np.float64), np.asarray(lat, np.float64)


def _enclosed_pole(grid: GeoBox, transformer: Transformer) -> float | None:
    """Latitude of the pole that a grid holds; None where it holds both or none."""
    x, y = transformer.transform([0.0, 0.0], [90.0, -90.0], direction=TransformDirection.INVERSE)
    with np.errstate(invalid="ignore"):  # a pole that the CRS cannot show lies at infinity
        cols, rows = ~grid.transform * (np.array(x), np.array(y))
    height, width = grid.shape
    north, south = (cols >= 0) & (cols <= width) & (rows >= 0) & (rows <= height)
    return None if north == south else 90.0 if north else -90.0


def _box_of_what_is_on_the_globe(grid: GeoBox, transformer: Transformer) -> Outline | None:
    cols, rows = (v.ravel() for v in np.meshgrid(*[np.linspace(0, 1, _LATTICE)] * 2))
    lon, lat = _project(grid, transformer, cols, rows)
    on_globe = np.isfinite(lon) & np.isfinite(lat)
    if not on_globe.any():
        return None
    west, width = _narrowest(lon[on_globe])
    south, north = np.clip([lat[on_globe].min(), lat[on_globe].max()], -90, 90)
    return _polygons(shapely.box(*np.round([west, south, west + width, north], _DIGITS)))


def _narrowest(lon: NDArray[np.float64]) -> tuple[float, float]:
    """West end and width of the narrowest arc that holds all longitudes."""
    turned = np.unique((lon + 180) % 360 - 180)
    gaps = np.diff(turned, append=turned[0] + 360)
    widest = int(gaps.argmax())
    return float(turned[(widest + 1) % len(turned)]), float(360 - gaps[widest])


def _cut(unrolled: Outline) -> Outline | None:
    """Each turn of longitudes laid over the first."""
    turns = []
    for turn in (-1, 0, 1):
        piece = unrolled.intersection(shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))
        turns.append(shapely.transform(piece, lambda xy, d=360.0 * turn: xy - np.array([d, 0.0])))
    return _polygons(shapely.union_all(turns))


def _polygons(geometry: Any) -> Outline | None:
    """The areas of a geometry, each counterclockwise; None where there are none."""
    parts = [
        shapely.geometry.polygon.orient(part)
        for part in shapely.get_parts(shapely.get_parts(geometry)).tolist()
        if isinstance(part, shapely.Polygon) and part.area > 0
    ]
    if not parts:
        return None
    return shapely.Polygon(parts[0]) if len(parts) == 1 else shapely.MultiPolygon(parts)


def bbox_of(geometry: Outline) -> Bounds:
    """West, south, east, north; west > east where the antimeridian is crossed (RFC 7946, 5.2)."""
    west, south, east, north = geometry.bounds
    if west > -180 or east < 180:
        return west, south, east, north
    spans = sorted((p.bounds[0], p.bounds[2]) for p in shapely.get_parts(geometry).tolist())
    reached, gap, found = spans[0][1], 0.0, (west, east)
    for start, end in spans[1:]:
        if start - reached > gap:  # the widest gap is what the box leaves out
            gap, found = start - reached, (start, reached)
        reached = max(reached, end)
    return found[0], south, found[1], north
