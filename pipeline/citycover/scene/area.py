"""Area of interest: the part of a scene to map, from a box or from polygons in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS
from shapely import box
from shapely.geometry.base import BaseGeometry

from citycover.errors import ConfigError
from citycover.geometry.crs import DEGREES, to_degrees
from citycover.geometry.footprint import degrees_text
from citycover.geometry.grid import crs_of
from citycover.geometry.polygons import onto_grid, polygon_parts, repaired
from citycover.geometry.vector import read_features
from citycover.geometry.window import Window


@dataclass(frozen=True, slots=True)
class Area:
    """Where to map."""

    part: Window
    """Pixels of the scene's finest grid that enclose the area."""
    geometry: BaseGeometry | None
    """In the scene's CRS: pixels whose centre is outside stay nodata. None: the whole of `part`."""
    transform: Affine
    """Of the scene's finest grid."""

    @property
    def identity(self) -> str:
        """Text that differs where the area differs."""
        return f"{self.part}" if self.geometry is None else f"{self.part} {self.geometry.wkb_hex}"

    def mask(self, origin: tuple[int, int]) -> AreaMask:
        """The mask of windows whose pixels count from `origin` of the scene."""
        return AreaMask(self, origin)


@dataclass(frozen=True, slots=True)
class AreaMask:
    """Window -> (y, x) True inside the area; small and picklable."""

    area: Area
    origin: tuple[int, int]

    def __call__(self, window: Window) -> NDArray[np.bool_]:
        """Rasterise the polygons over one window: memory does not depend on the scene."""
        shape_ = (window.height, window.width)
        if self.area.geometry is None:
            return np.ones(shape_, np.bool_)
        row, col = window.row + self.origin[0], window.col + self.origin[1]
        transform = self.area.transform * Affine.translation(col, row)
        inside = rasterio.features.geometry_mask([self.area.geometry], shape_, transform, invert=True)
        return np.asarray(inside, np.bool_)


def area_of_box(bounds: Sequence[float], grid: GeoBox) -> Area:
    """The area of a box `west, south, east, north`.

    Degrees of longitude and latitude, also across 180 degrees, where west > east; numbers that cannot be
    degrees, or of a scene that is no place on the Earth, are taken in the scene's CRS.

    Args:
        bounds: four numbers, as `Where` looked at them.
        grid: of the scene.

    Raises:
        ConfigError: not in that order, or the box does not overlap the scene.
    """
    west, south, east, north = bounds
    degrees = (
        max(abs(west), abs(east)) <= 360
        and max(abs(south), abs(north)) <= 90
        and to_degrees(crs_of(grid)) is not None
    )
    if degrees and west > east and east + 360 - west < 180:  # else the two were swapped
        east += 360
    if west >= east or south >= north:
        raise ConfigError(
            f"--bbox takes west,south,east,north with west < east and south < north, got {list(bounds)}"
        )
    outline = np.array([box(west, south, east, north)], object)
    what = f"--bbox {','.join(map(str, bounds))}"
    geometry = onto_grid(outline, DEGREES if degrees else crs_of(grid), grid, what)[0]
    return Area(_enclosing(geometry, grid, what), None, grid.transform)


def read_area(path: Path, grid: GeoBox) -> Area:
    """The area of all polygons in a vector file; see `read_features` for what can be read.

    Raises:
        ConfigError: not readable, no polygons, or none that overlaps the scene.
    """
    what = f"--aoi {path}"
    polygons, crs = _polygons(path, what, crs_of(grid))
    if crs is None:
        raise ConfigError(f"{what} has no CRS; write it with one, or give GeoJSON in degrees")
    geometry = shapely.union_all(onto_grid(polygons, crs, grid, what))
    return Area(_enclosing(geometry, grid, what), geometry, grid.transform)


def check_area_file(path: Path) -> None:
    """Refuse a file that is an area of no scene.

    Raises:
        ConfigError: not readable, or no polygons.
    """
    _polygons(path, f"--aoi {path}", None)


def _polygons(path: Path, what: str, metres: CRS | None) -> tuple[NDArray[np.object_], CRS | None]:
    """Polygons of a file, and in which CRS they are; for `metres` see `read_features`."""
    features = read_features(path, "--aoi", metres)
    polygons = repaired(shapely.force_2d(polygon_parts(features.geometries)), what)
    if not shapely.area(polygons).any():
        raise ConfigError(f"{what} holds no polygon; give polygons, not points or lines")
    return polygons, features.crs


def _enclosing(geometry: BaseGeometry, grid: GeoBox, what: str) -> Window:
    """Pixels of the grid that enclose a geometry."""
    size = np.array([int(n) for n in grid.shape][::-1])  # x, y: columns before rows, as the transform has it
    corners = np.array(shapely.envelope(geometry).exterior.coords) if geometry.area else np.empty((0, 2))
    inverse = ~grid.transform
    pixels = np.array([inverse * (x, y) for x, y in corners if math.isfinite(x) and math.isfinite(y)])
    if len(pixels):
        col, row = (int(n) for n in np.clip(np.floor(pixels.min(0) + 1e-6), 0, size))
        col_end, row_end = (int(n) for n in np.clip(np.ceil(pixels.max(0) - 1e-6), 0, size))
        if col_end > col and row_end > row:
            return Window(row, col, row_end - row, col_end - col)
    raise ConfigError(
        f"{what} does not overlap the scene, which covers {degrees_text(grid)}; check its CRS and axis order"
    )
