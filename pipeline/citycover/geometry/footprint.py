"""The outline of a grid in longitude and latitude."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import shapely
from odc.geo.geobox import GeoBox


def footprint(grid: GeoBox) -> shapely.Polygon | shapely.MultiPolygon | None:
    """Outline in longitude and latitude, edges densified, cut at the antimeridian as GeoJSON wants it.

    Returns:
        None where the CRS does not map the outline to the globe.
    """
    if grid.crs is None:
        return None
    height, width = grid.shape
    t = np.linspace(0, 1, 33)[:-1]
    cols = np.concatenate([t, np.ones_like(t), 1 - t, np.zeros_like(t)]) * width
    rows = np.concatenate([np.zeros_like(t), t, np.ones_like(t), 1 - t]) * height
    x, y = grid.transform * (cols, rows)
    to_globe = pyproj.Transformer.from_crs(grid.crs.to_wkt(), "OGC:CRS84", always_xy=True)
    lon, lat = to_globe.transform(x, y)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    if np.ptp(lon) <= 180:
        return _outline(lon, lat)
    whole = _outline(np.where(lon < 0, lon + 360, lon), lat)
    east = whole.intersection(shapely.box(0, -90, 180, 90))
    west = shapely.transform(
        whole.intersection(shapely.box(180, -90, 360, 90)), lambda xy: xy - np.array([360.0, 0.0])
    )
    return shapely.MultiPolygon([part for part in (east, west) if isinstance(part, shapely.Polygon)])


def _outline(lon: Any, lat: Any) -> shapely.Polygon:
    ring = np.round(np.column_stack([lon, lat]), 7)  # a centimetre
    return shapely.geometry.polygon.orient(shapely.Polygon(ring))


def bbox_of(geometry: shapely.Polygon | shapely.MultiPolygon) -> list[float]:
    """west, south, east, north; west > east where the antimeridian is crossed (RFC 7946, 5.2)."""
    west, south, east, north = geometry.bounds
    if isinstance(geometry, shapely.MultiPolygon) and len(geometry.geoms) == 2:
        west, east = geometry.geoms[0].bounds[0], geometry.geoms[1].bounds[2]
    return [west, south, east, north]
