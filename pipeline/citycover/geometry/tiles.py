"""Tiles of a fixed grid: each is known by column and row, whatever imagery there is this month.

Tiles are squares of pixels of a lattice, counted from the origin of its CRS: columns to the east, rows to the
north. Where no corner of a pixel lies at the origin, the nearest one takes its place.

    row  1  | x-1_y1 | x0_y1 | x1_y1
    row  0  | x-1_y0 | x0_y0 | x1_y0
                     ^ origin of the CRS, at the lower left corner of x0_y0
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from citycover.errors import ConfigError
from citycover.geometry.window import Window

if TYPE_CHECKING:  # a request names tiles, and is made before numpy is needed
    from odc.geo.geobox import GeoBox


@dataclass(frozen=True, slots=True)
class Tile:
    """One square of the grid."""

    size: int
    """Pixels of the lattice along a side."""
    column: int
    """To the east of the origin; negative: to the west."""
    row: int
    """To the north of the origin; negative: to the south."""

    @classmethod
    def named(cls, name: str, size: int) -> Tile | None:
        """The tile that is called so; None: no tile is."""
        match = re.fullmatch(r"x(-?\d+)_y(-?\d+)", name)
        return cls(size, int(match[1]), int(match[2])) if match else None

    @property
    def name(self) -> str:
        """By column and row.

        >>> Tile(4096, 12, -3).name
        'x12_y-3'
        """
        return f"x{self.column}_y{self.row}"

    def window(self, lattice: GeoBox) -> Window:
        """Its pixels, counted from the first one of the lattice."""
        row, col = origin_of(lattice)
        return Window(row - (self.row + 1) * self.size, col + self.column * self.size, self.size, self.size)


def origin_of(lattice: GeoBox) -> tuple[int, int]:
    """(row, column) of the corner of a pixel that is nearest to the origin of the CRS.

    Raises:
        ConfigError: rows do not run to the south, or columns not to the east.
    """
    transform = lattice.transform
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise ConfigError(
            "tiles need a lattice whose rows run to the south and whose columns run to the east; give a grid "
            "EPSG:<code>/<pixel size>, or a raster that lies so"
        )
    col, row = ~transform * (0.0, 0.0)
    return round(row), round(col)


def tiles_in(window: Window, size: int, lattice: GeoBox) -> Iterator[Tile]:
    """Tiles that share pixels with a window of the lattice, row after row from the south.

    >>> from affine import Affine
    >>> from odc.geo.geobox import GeoBox
    >>> lattice = GeoBox((1, 1), Affine(10, 0, 500_000, 0, -10, 5_800_000), "EPSG:32633")
    >>> [tile.name for tile in tiles_in(Window(0, 0, 300, 300), 1000, lattice)]
    ['x50_y579']
    """
    row, col = origin_of(lattice)
    south, north = (row - window.row_end) // size, (row - window.row - 1) // size
    for y in range(south, north + 1):
        for x in range((window.col - col) // size, (window.col_end - 1 - col) // size + 1):
            yield Tile(size, x, y)
