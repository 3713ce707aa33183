"""Square metres of a pixel, row by row.

On degrees, on Mercator and on equidistant cylindrical grids a pixel's area changes with latitude, and rows
are parallels: there the area is that of the strip of the ellipsoid between two parallels, in closed form
(J. P. Snyder 1987, Map Projections, A Working Manual, USGS Professional Paper 1395, equation 3-12). All other
CRS are taken at their word: what they say in metres is what surveyors of the place reckon with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from citycover.errors import ConfigError
from citycover.geometry.crs import to_degrees
from citycover.geometry.grid import crs_of


def row_areas(grid: GeoBox) -> NDArray[np.float64]:
    """(y,) square metres of a pixel in each row.

    Raises:
        ConfigError: the grid has no CRS, or is in degrees and rotated.
    """
    if grid.crs is None:
        raise ConfigError(
            "the map has no CRS, and areas need one; write it into the file (gdal_edit.py -a_srs EPSG:...)"
        )
    crs, t = _horizontal(crs_of(grid)), grid.transform
    height = int(grid.shape[0])
    if not _rows_are_parallels(crs):
        unit = float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0
        return np.full(height, abs(t.determinant) * unit**2)
    if t.b or t.d:
        raise ConfigError("the map's grid is rotated and in degrees; warp it to north up (gdalwarp)")
    y = t.f + t.e * np.arange(height + 1)
    own = crs.geodetic_crs
    assert own is not None, "such a CRS has an ellipsoid"
    if crs.is_geographic:
        unit = float(crs.axis_info[0].unit_conversion_factor)  # radians
        lat, width = y * unit, abs(t.a) * unit
    else:
        to = to_degrees(crs)
        assert to is not None, "Mercator is a place on the Earth"
        lon, lat = to.transform(np.full(height + 1, t.c), y)
        east = to.transform([t.c + t.a], [y[0]])[0][0]
        lat, width = np.radians(lat), abs(float(np.radians(east - lon[0])))
    areas: NDArray[np.float64] = np.abs(np.diff(_area_to_equator(lat, own))) * width
    return areas


def mean_area(grid: GeoBox) -> float:
    """Square metres of a pixel, on the mean of all rows: times their number it is the area of the grid.

    Raises:
        ConfigError: as `row_areas`.
    """
    return float(np.mean(row_areas(grid)))


def _horizontal(crs: CRS) -> CRS:
    """What says where things lie: without heights, and without a way into another datum."""
    if crs.is_bound and crs.source_crs is not None:
        return _horizontal(crs.source_crs)
    return _horizontal(crs.sub_crs_list[0]) if crs.is_compound else crs


def _rows_are_parallels(crs: CRS) -> bool:
    if crs.is_geographic:
        return True
    operation = crs.coordinate_operation
    name = operation.method_name if operation is not None else ""
    upright = not any(word in name for word in ("Transverse", "Oblique"))
    return upright and ("Mercator" in name or "Equidistant Cylindrical" in name)


def _area_to_equator(lat: NDArray[np.float64], crs: CRS) -> NDArray[np.float64]:
    """Square metres between the equator and a latitude, for each radian of longitude."""
    ellipsoid = crs.ellipsoid
    assert ellipsoid is not None, "a geodetic CRS has one"
    a = float(ellipsoid.semi_major_metre)
    b = float(ellipsoid.semi_minor_metre)
    sine, e = np.sin(lat), float(np.sqrt(1 - (b / a) ** 2))
    if e < 1e-9:
        sphere: NDArray[np.float64] = a * a * sine
        return sphere
    area: NDArray[np.float64] = b * b / 2 * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
    return area
