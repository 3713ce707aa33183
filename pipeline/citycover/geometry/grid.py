"""Grids on the ground: how large a pixel is in metres, and how two grids lie to each other."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

from citycover.geometry.crs import to_degrees

Bounds = tuple[float, float, float, float]
"""West, south, east, north."""

_GEOD = Geod(ellps="WGS84")

_PROBE_METRES = 100.0
"""Length over which a pixel is measured: one of 5 cm alone would drown in the rounding of degrees."""

_SLACK = 0.02
"""Pixels by which two grids may differ and still be the same: what software writes into file headers is
rounded."""


def grid_of(dataset: Any) -> GeoBox:
    """The grid of an open rasterio dataset; its CRS is None where the file has none."""
    return GeoBox(dataset.shape, dataset.transform, dataset.crs.to_wkt() if dataset.crs else None)


def crs_of(grid: GeoBox) -> CRS:
    """The CRS of a grid that has one."""
    assert grid.crs is not None, "scenes without a CRS are refused before anything is measured"
    return grid.crs.proj


def authority_code(crs: CRS) -> str | None:
    """`AUTHORITY:CODE` of a CRS that an authority has listed."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else None


def pixel_ground_size(grid: GeoBox) -> tuple[float, float]:
    """Height and width in metres of the pixel at the centre of a grid, measured on the WGS84 ellipsoid.

    Map units mislead: EPSG:3857 stretches with latitude, degrees shrink with it, feet are not metres.
    A CRS that cannot be tied to the Earth (a local engineering grid) is measured by its unit.

    Returns:
        (y, x) in metres.
    """
    height, width = grid.shape
    centre = (width / 2, height / 2)
    if transformer := to_degrees(crs_of(grid)):
        try:
            down, right = (_geodesic(grid, transformer, centre, step) for step in ((0, 1), (1, 0)))
        except ProjError:
            down = right = math.nan  # the centre lies off the globe
        if math.isfinite(down) and math.isfinite(right) and down > 0 and right > 0:
            return down, right
    unit = _unit_metres(grid)
    t = grid.transform
    return math.hypot(t.b, t.e) * unit, math.hypot(t.a, t.d) * unit


def _geodesic(
    grid: GeoBox, transformer: Transformer, centre: tuple[float, float], step: tuple[int, int]
) -> float:
    """Metres on the ground of one pixel step (x, y) at `centre` (x, y)."""
    metres, pixels = 0.0, 1.0
    for _ in range(2):  # first one pixel, then as many as span the probe length
        half_x, half_y = step[0] * pixels / 2, step[1] * pixels / 2
        ends = [
            grid.transform * (centre[0] - half_x, centre[1] - half_y),
            grid.transform * (centre[0] + half_x, centre[1] + half_y),
        ]
        lon, lat = transformer.transform([e[0] for e in ends], [e[1] for e in ends], errcheck=True)
        metres = _GEOD.inv(lon[0], lat[0], lon[1], lat[1])[2] / pixels
        if not math.isfinite(metres) or metres <= 0:
            return math.nan
        pixels = max(1.0, _PROBE_METRES / metres)
    return float(metres)


def _unit_metres(grid: GeoBox) -> float:
    axes = crs_of(grid).axis_info
    return float(axes[0].unit_conversion_factor) if axes else 1.0


def ground_sample_distance(grid: GeoBox) -> float:
    """Side in metres of a square as large as the pixel at the centre of a grid."""
    height, width = pixel_ground_size(grid)
    return math.sqrt(height * width)


def resampled_grid(grid: GeoBox, gsd: float) -> GeoBox:
    """The same place from the same origin with pixels that are squares of `gsd` metres on the ground.

    The last row and column may reach beyond the old grid by part of a pixel, or leave out a sliver of one.
    """
    height, width = pixel_ground_size(grid)
    scale_y, scale_x = gsd / height, gsd / width
    rows, cols = grid.shape
    # A grid that fits but for a sliver must not grow by a row that holds nothing.
    shape = (max(1, math.ceil(rows / scale_y - _SLACK)), max(1, math.ceil(cols / scale_x - _SLACK)))
    return GeoBox(shape, grid.transform * Affine.scale(scale_x, scale_y), grid.crs)


def finer_than(cell: Iterable[float], pixel: Iterable[float]) -> bool:
    """Whether cells are smaller than pixels, by more than sizes in degrees differ anyway.

    Args:
        cell: sides in metres, of one or several.
        pixel: sides in metres.

    >>> finer_than((9.7, 10), (10, 10)), finer_than((5, 10), (10, 10))
    (False, True)
    """
    return min(cell) < 0.95 * min(pixel)


def coarser_grid(grid: GeoBox, ratio: int) -> GeoBox:
    """The grid of pixels `ratio` times larger that nests; its last pixels may be half covered."""
    rows, cols = (math.ceil(n / ratio) for n in grid.shape)
    return GeoBox((rows, cols), grid.transform * Affine.scale(ratio), grid.crs)


def same_grid(one: GeoBox, other: GeoBox) -> bool:
    """True where both grids have the same CRS and shape and their corners coincide."""
    return one is other or (tuple(one.shape) == tuple(other.shape) and nested_ratio(one, other) == 1)


def same_place(one: GeoBox, other: GeoBox) -> bool:
    """Whether the edges of two grids lie within a pixel of the coarser one."""
    slack = max(abs(one.transform.a), abs(other.transform.a), abs(one.transform.e), abs(other.transform.e))
    pairs = zip(one.boundingbox.bbox, other.boundingbox.bbox, strict=True)
    return bool(one.crs == other.crs) and all(abs(a - b) <= slack for a, b in pairs)


def nested_ratio(fine: GeoBox, coarse: GeoBox) -> int | None:
    """How many fine pixels span a coarse one, where the two grids nest; None where they do not.

    They nest when they share the CRS and the origin, the ratio is the same whole number on both axes, and
    the coarse grid covers the fine one with no row or column to spare (its last pixels may be half covered).
    """
    if fine.crs != coarse.crs:
        return None
    to_fine = ~fine.transform * coarse.transform  # coarse pixels -> fine pixels
    ratio = round(float(to_fine.a))
    if ratio < 1:
        return None
    rows, cols = coarse.shape
    corners = [(0, 0), (cols, 0), (0, rows)]
    for x, y in corners:
        fine_x, fine_y = to_fine * (x, y)
        if abs(fine_x - x * ratio) > _SLACK or abs(fine_y - y * ratio) > _SLACK:
            return None
    if (rows, cols) != (math.ceil(fine.shape[0] / ratio), math.ceil(fine.shape[1] / ratio)):
        return None
    return ratio


def grid_text(grid: GeoBox) -> str:
    """A grid in words for messages."""
    t = grid.transform
    rows, cols = grid.shape
    return (
        f"{cols} x {rows} pixels of {abs(t.a):.6g} x {abs(t.e):.6g} from ({t.c:.8g}, {t.f:.8g}) "
        f"in {crs_text(grid)}"
    )


def crs_text(grid: GeoBox) -> str:
    """The EPSG code of a grid's CRS, or its name."""
    crs = crs_of(grid)
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else str(crs.name)
