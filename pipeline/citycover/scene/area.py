"""Area of interest: the part of a scene to map, from a box or from polygons in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from citycover.errors import ConfigError
from citycover.geometry.footprint import degrees_text
from citycover.geometry.grid import crs_of
from citycover.geometry.window import Window

_WGS84 = pyproj.CRS.from_epsg(4326)

_DENSE = 64
"""Points put on each side of a box before it is projected, because straight lines bend."""


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

    Degrees of longitude and latitude; numbers that cannot be degrees are taken in the scene's CRS.

    Raises:
        ConfigError: not four numbers in that order, or the box does not overlap the scene.
    """
    if len(bounds) != 4 or not all(map(math.isfinite, bounds)):
        raise ConfigError(f"--bbox takes west,south,east,north, got {list(bounds)}")
    west, south, east, north = bounds
    if west >= east or south >= north:
        raise ConfigError(
            f"--bbox takes west,south,east,north with west < east and south < north, got {list(bounds)}"
        )
    degrees = max(abs(west), abs(east)) <= 180 and max(abs(south), abs(north)) <= 90
    outline = shapely.segmentize(box(*bounds), max(east - west, north - south) / _DENSE)
    geometry = _project(outline, _WGS84, grid) if degrees else outline
    return Area(_enclosing(geometry, grid, f"--bbox {','.join(map(str, bounds))}"), None, grid.transform)


def read_area(path: Path, grid: GeoBox) -> Area:
    """The area of all polygons in a vector file: GeoJSON (longitude, latitude), or what pyogrio reads.

    Raises:
        ConfigError: not readable, no polygons, or none that overlaps the scene.
    """
    if not path.is_file():
        raise ConfigError(f"--aoi {path} does not exist")
    if path.suffix.lower() in {".json", ".geojson"}:
        geometries, crs = _read_geojson(path)
    else:
        geometries, crs = _read_vector(path)
    polygons = [g for g in geometries if g.area > 0]
    if not polygons:
        raise ConfigError(f"--aoi {path} holds no polygon; give polygons, not points or lines")
    geometry = _project(shapely.union_all([shapely.make_valid(p) for p in polygons]), crs, grid)
    return Area(_enclosing(geometry, grid, f"--aoi {path}"), geometry, grid.transform)


def _read_geojson(path: Path) -> tuple[list[BaseGeometry], pyproj.CRS]:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = data["type"]
        parts = data["features"] if kind == "FeatureCollection" else [data]
        found = [part["geometry"] if part["type"] == "Feature" else part for part in parts]
        geometries = [shape(geometry) for geometry in found if geometry is not None]
        named = (data.get("crs") or {}).get("properties", {}).get("name")
        return geometries, pyproj.CRS.from_user_input(named) if named else _WGS84
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        pyproj.exceptions.CRSError,
        shapely.errors.ShapelyError,
    ) as error:
        raise ConfigError(f"--aoi {path} is not GeoJSON: {error}") from None


def _read_vector(path: Path) -> tuple[list[BaseGeometry], pyproj.CRS]:
    try:
        import pyogrio
    except ImportError:
        raise ConfigError(
            f"--aoi {path} needs the vector extra: pip install 'citycover[vector]', or give GeoJSON"
        ) from None
    try:
        frame = pyogrio.read_dataframe(path, columns=[])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise ConfigError(f"--aoi {path} cannot be read: {error}") from None
    if frame.crs is None:
        raise ConfigError(f"--aoi {path} has no CRS; write it with one, or give GeoJSON in degrees")
    return [g for g in frame.geometry if g is not None], pyproj.CRS.from_user_input(frame.crs)


def _project(geometry: BaseGeometry, crs: pyproj.CRS, grid: GeoBox) -> BaseGeometry:
    """Into the CRS of the grid, (x, y) order."""
    to = pyproj.Transformer.from_crs(crs, crs_of(grid), always_xy=True)
    return shapely.transform(geometry, lambda xy: np.column_stack(to.transform(xy[:, 0], xy[:, 1])))


def _enclosing(geometry: BaseGeometry, grid: GeoBox, what: str) -> Window:
    """Pixels of the grid that enclose a geometry."""
    height, width = (int(n) for n in grid.shape)
    corners = np.array(shapely.envelope(geometry).exterior.coords) if geometry.area else np.empty((0, 2))
    inverse = ~grid.transform
    pixels = np.array([inverse * (x, y) for x, y in corners if math.isfinite(x) and math.isfinite(y)])
    if len(pixels):
        col, row = np.floor(pixels.min(0) + 1e-6).astype(int)
        col_end, row_end = np.ceil(pixels.max(0) - 1e-6).astype(int)
        if col_end > col and row_end > row:
            window = Window(int(row), int(col), int(row_end - row), int(col_end - col))
            if inside := window.clip(Window(0, 0, height, width)):
                return inside
    raise ConfigError(
        f"{what} does not overlap the scene, which covers {degrees_text(grid)}; check its CRS and axis order"
    )
