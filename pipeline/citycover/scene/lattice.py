"""Lattices: a CRS, a pixel size and where the corners of pixels lie.

A scene is laid out on the lattice of most of its sheets, unless another is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS

from citycover.errors import ConfigError
from citycover.geometry.grid import crs_of, ground_sample_distance, pixel_ground_size
from citycover.geometry.positions import reach
from citycover.geometry.vector import crs_named
from citycover.geometry.window import Window
from citycover.scene.laying import Laying

_SLACK = 0.1
"""Pixels by which a sheet may lie beside the lattice and still be of it: less than imagery is placed to, and
to warp a map for a rounded header would blur it."""

_LEAST_SIDE = 1e-15
"""Of a pixel, in units of a CRS: of smaller ones none has a place that numbers can tell."""

_LATTICES = 32
"""Different ones that are told apart; sheets of yet others are warped."""


def commonest(grids: Sequence[GeoBox]) -> GeoBox:
    """A grid on the lattice of most; of equally many the one that comes first."""
    found: list[GeoBox] = []
    counts: list[int] = []
    for grid in grids:
        known = next((n for n, lattice in enumerate(found) if window_on(lattice, grid)), None)
        if known is not None:
            counts[known] += 1
        elif len(found) < _LATTICES:
            found.append(grid)
            counts.append(1)
    return found[counts.index(max(counts))]


def window_on(lattice: GeoBox, grid: GeoBox) -> Window | None:
    """The pixels of a lattice that are the pixels of a grid; None where they are no pixels of it."""
    if lattice.crs != grid.crs:
        return None
    to = ~lattice.transform * grid.transform
    height, width = grid.shape
    row, col = round(to.f), round(to.c)
    for x, y in ((0, 0), (width, 0), (0, height)):
        at_x, at_y = to * (x, y)
        if abs(at_x - x - col) > _SLACK or abs(at_y - y - row) > _SLACK:
            return None
    return Window(row, col, int(height), int(width))


def place_on(lattice: GeoBox, grid: GeoBox) -> Window | None:
    """The pixels of a lattice that a grid reaches into; None where it lies where the CRS of the lattice ends.

    Raises:
        ConfigError: nothing ties one CRS to the other.
    """
    return window_on(lattice, grid) or reach(grid, lattice)


def lattice_of(laying: Laying, named: GeoBox | None) -> GeoBox:
    """The lattice that is asked for, whatever sheets there are.

    Args:
        laying: how they are laid out.
        named: the grid of the raster that it names; None: it names none.

    Raises:
        ConfigError: it depends on the sheets.
    """
    if named is not None:
        return named
    if laying.grid is None or "/" not in laying.grid:
        raise ConfigError(
            f"tiles need a lattice that no sheet decides, got grid {laying.grid!r}; give "
            "EPSG:<code>/<pixel size>, or a raster of it"
        )
    return asked_lattice(laying.grid, None)


def check_lattice(laying: Laying, named: GeoBox | None) -> None:
    """Refuse a lattice that is none, whatever sheets there are.

    Args:
        laying: how they are laid out.
        named: the grid of the raster that it names; None: it names none.

    Raises:
        ConfigError: no CRS, or no size of pixels.
    """
    if named is None and laying.grid is not None:
        asked_lattice(laying.grid if "/" in laying.grid else f"{laying.grid}/1", None)


def asked_lattice(text: str, sheet: GeoBox | None) -> GeoBox:
    """The lattice that a CRS means: `EPSG:32633`, or `EPSG:32633/10` for pixels of 10 of its units.

    Args:
        text: as given.
        sheet: whose pixel size is taken, as measured on the ground, where the text gives none.

    Raises:
        ConfigError: it means none.
    """
    name, _, size = text.partition("/")
    crs = crs_named(name, "give --grid a raster, EPSG:<code> or EPSG:<code>/<pixel size>")
    if crs.is_geocentric or (crs.is_vertical and not crs.is_compound):
        raise ConfigError(
            f"--grid {text}: {crs.name} is no plane that a map could lie on; give a projected CRS, or one of "
            f"longitude and latitude"
        )
    try:
        side = float(size) if size or sheet is None else _side_in(crs, sheet)
    except ValueError:
        side = math.nan
    if not size and math.isnan(side):
        raise ConfigError(
            f"--grid {text}: no pixel of the scene lies in it; give a CRS of this place, of two dimensions"
        )
    if not _LEAST_SIDE <= side < math.inf:
        raise ConfigError(f"--grid {text}: {size!r} is no pixel size; give one such as EPSG:32633/10")
    return GeoBox((1, 1), Affine(side, 0, 0, 0, -side, 0), crs)


def _side_in(crs: CRS, sheet: GeoBox) -> float:
    """Side of a pixel in units of a CRS that is as large on the ground as those of a sheet."""
    place = reach(sheet, probe := GeoBox((1, 1), Affine(1, 0, 0, 0, -1, 0), crs))
    if place is None:
        return math.nan
    middle = Affine.translation(place.col + place.width / 2, -(place.row + place.height / 2))
    height, width = pixel_ground_size(GeoBox((1, 1), middle * Affine.scale(1e-3, -1e-3), crs_of(probe)))
    side = ground_sample_distance(sheet) / math.sqrt(height * width) * 1e-3
    return float(f"{side:.3g}") if not crs_of(probe).is_geographic else side
