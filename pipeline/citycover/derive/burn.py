"""Trusted vectors that overrule a map: water from a survey, buildings from a cadastre."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend
from citycover.errors import ConfigError
from citycover.geometry.grid import crs_of
from citycover.geometry.polygons import onto_grid, polygon_parts, repaired
from citycover.geometry.vector import read_features
from citycover.geometry.window import Window


@dataclass(frozen=True)
class Burn:
    """Areas of one class, ready to be burnt in."""

    rank: int
    """Place of the class in the legend."""
    areas: NDArray[np.object_]
    """(n,) polygons in pixel coordinates of the map."""

    def covered(self, window: Window) -> NDArray[np.bool_]:
        """(y, x) pixels of a window whose centre lies in one of the areas."""
        box = shapely.box(window.col, window.row, window.col_end, window.row_end)
        near = self.areas[shapely.intersects(self.areas, box)]
        shape = (window.height, window.width)
        if not len(near):
            return np.zeros(shape, np.bool_)
        place = Affine.translation(window.col, window.row)
        inside: NDArray[np.bool_] = (
            rasterio.features.rasterize(near, out_shape=shape, transform=place, dtype="uint8") > 0
        )
        return inside


def read_burn(path: Path, name: str, legend: Legend, grid: GeoBox) -> Burn:
    """Polygons of a file that are to be a class.

    Args:
        path: GeoJSON, or what pyogrio reads, in any CRS; outlines that cross themselves are repaired.
        name: of the class, or its id.
        legend: of the map.
        grid: of the map.

    Raises:
        ConfigError: not readable, no such class, no polygons, without a CRS, or none lies on the map.
    """
    rank = rank_burnt(path, name, legend)
    what = f"--burn {path}"
    features = read_features(path, what, crs_of(grid))
    if features.crs is None:
        raise ConfigError(f"{what} does not say its CRS; write it into the file (ogr2ogr -a_srs EPSG:...)")
    parts = polygon_parts(np.array([g for g in features.geometries if g is not None], object))
    if not len(parts):
        raise ConfigError(f"{what} holds no polygons; give areas (of lines, a buffer)")
    moved = onto_grid(repaired(shapely.force_2d(parts), what), features.crs, grid, what)
    t = ~grid.transform
    matrix, origin = np.array([[t.a, t.d], [t.b, t.e]]), np.array([t.c, t.f])
    pixels = shapely.transform(moved, lambda xy: xy @ matrix + origin)
    height, width = (int(n) for n in grid.shape)
    on_map = shapely.intersects(pixels, shapely.box(0, 0, width, height))
    if not on_map.any():
        raise ConfigError(f"{what} and the map do not overlap; check the CRS of both")
    return Burn(rank, np.asarray(pixels[on_map], object))


def rank_burnt(path: Path, name: str, legend: Legend) -> int:
    """Place in a legend of the class that polygons are to be.

    Raises:
        ConfigError: the legend has no such class.
    """
    known = {n.casefold(): k for k, n in enumerate(legend.names)}
    known |= {str(i): k for k, i in enumerate(legend.ids)}
    if name.strip().casefold() not in known:
        raise ConfigError(
            f"--burn {path}={name}: legend {legend.name!r} has no class {name!r}; it has "
            f"{', '.join(legend.names)}"
        )
    return known[name.strip().casefold()]
