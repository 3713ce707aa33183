"""The grid of web maps: its tiles, and what a window of the page shows of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from affine import Affine
from odc.geo.geobox import GeoBox

from citycover.errors import ConfigError
from citycover.geometry.grid import Bounds, ground_sample_distance

MERCATOR = "EPSG:3857"

LIMIT = 85.0511
"""Degrees of latitude at which web maps end."""

TILE = 256
"""Pixels along the side of a tile."""

DEEPEST = 24
"""Last level that is served."""

_HALF = math.pi * 6_378_137.0
"""Half the side of the square that is the world, in its units."""

_LONGEST = 1024
"""Pixels along the longer side of what is counted in a window: a million pixels answer at once."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A square of the world: row and column on a level that has 2^level of both.

    Raises:
        ConfigError: there is no such tile.
    """

    level: int
    row: int
    col: int

    def __post_init__(self) -> None:
        side = 2**self.level if 0 <= self.level <= DEEPEST else 0
        if not (0 <= self.row < side and 0 <= self.col < side):
            raise ConfigError(f"there is no tile {self.level}/{self.col}/{self.row}; reload the page")

    @property
    def grid(self) -> GeoBox:
        """Its pixels."""
        size = 2 * _HALF / 2**self.level / TILE
        left, top = self.col * TILE * size - _HALF, _HALF - self.row * TILE * size
        return GeoBox((TILE, TILE), Affine(size, 0, left, 0, -size, top), MERCATOR)


def window_grid(bounds: Bounds, longest: int = _LONGEST) -> GeoBox:
    """Square pixels over bounds in degrees; east may lie beyond 180.

    Raises:
        ConfigError: they bound nothing.
    """
    west, south, east, north = bounds
    bottom, top = (_northing(min(max(v, -LIMIT), LIMIT)) for v in (south, north))
    left, right = (v / 180 * _HALF for v in (west, east))
    if not (left < right and bottom < top and right - left <= 4 * _HALF):
        raise ConfigError(f"{west},{south},{east},{north} is no window of west,south,east,north; reload")
    size = max(right - left, top - bottom) / longest
    shape = (max(1, round((top - bottom) / size)), max(1, round((right - left) / size)))
    return GeoBox(shape, Affine(size, 0, left, 0, -size, top), MERCATOR)


def native_level(grid: GeoBox, latitude: float) -> int:
    """The first level whose pixels are no larger than those of a grid at a latitude."""
    metres = ground_sample_distance(grid)
    around = 2 * _HALF * math.cos(math.radians(latitude))
    return min(max(math.ceil(math.log2(around / TILE / metres)), 0), DEEPEST)


def _northing(latitude: float) -> float:
    return _HALF / math.pi * math.asinh(math.tan(math.radians(latitude)))
