"""Sheets of a map become one scene: on which lattice all lie, and where.

    files --split.py--> files of each sheet --assemble.py--> its band groups --lay_out--> band groups

Sheets of the lattice (see `lattice.py`) are taken pixel by pixel, all others are warped onto it. The scene
extends as far as any sheet, from a corner at which the coarser band groups have corners too.

Sheets of several dates that are to be composed lie date by date, the latest first; a date may have many.

    sheet 1  |==========|                   lattice of 1 and 2:  shared corners
    sheet 2          |==========|           overlap: the first, the newest, the nearest, or both weighed
    sheet 3               /==========/      of another CRS: warped
    scene    |======================|       one grid; windows cross the borders of sheets

Metadata in, metadata out; nothing is opened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.errors import LayoutError, SceneError
from citycover.geometry.grid import coarser_grid, crs_text, grid_text
from citycover.geometry.positions import Positions, reach
from citycover.geometry.window import Window
from citycover.model.kernel import Kernel
from citycover.scene.lattice import asked_lattice, commonest, place_on, window_on
from citycover.scene.laying import Laying, Overlap
from citycover.scene.scene import SceneGroup, Sheet
from citycover.scene.when import day_of

_AVERAGED = 1.5
"""Pixels of a sheet along one of the lattice, from which on all of them are averaged."""

_WEIGHED = 256
"""Pixels along a larger one that are weighed at most: the time grows with their square."""

_MOST_SHARED = 0.5
"""Share of a sheet that another may show, too, before it has to be said which counts."""

_LEAST_COVERED = 1e-3
"""Share of the scene that sheets must fill: sheets of two continents are no scene."""

_BLOCK = (256, 256)
"""(y, x) pixels that a warped sheet is read in."""


@dataclass(frozen=True, slots=True)
class SheetGroups:
    """The band groups of one sheet, each of them one sheet itself."""

    groups: tuple[SceneGroup, ...]
    time: str | None
    name: str
    """Its first file, for messages."""

    @property
    def day(self) -> str:
        """Of its time; empty where that is not known."""
        return day_of(self.time)


def lay_out(
    sheets: Sequence[SheetGroups],
    laying: Laying,
    lattice: GeoBox | None = None,
    frame: GeoBox | None = None,
) -> tuple[SceneGroup, ...]:
    """Lay sheets onto one grid for each band group.

    Args:
        sheets: with the same bands in the same groups.
        laying: how.
        lattice: of the raster that `laying.grid` names; None: it names none.
        frame: the grid of the scene, which sheets may leave gaps in and reach beyond; None: one on the
            lattice that holds them all.

    Raises:
        SceneError: they are no sheets of one scene.
        ConfigError: nothing ties the CRS of a sheet to that of the lattice.
    """
    sheets = _of_one_type(sheets)
    _check_alike(sheets)
    if len(sheets) == 1 and laying.grid is None and frame is None:
        return sheets[0].groups
    sheets = _ordered(sheets, laying.overlap or "first")
    if laying.composite is not None:
        sheets = sorted(sheets, key=lambda sheet: sheet.day, reverse=True)
    if frame is None:
        fine = [sheet.groups[0].grid for sheet in sheets]
        if lattice is None:
            lattice = asked_lattice(laying.grid, fine[0]) if laying.grid else commonest(fine)
        unit = math.lcm(*(group.ratio for group in sheets[0].groups))
        names = [sheet.name for sheet in sheets]
        frame = _union(fine, lattice, unit, names)
        if laying.grid is not None:
            _check_size(fine, lattice, names)
    groups = tuple(_laid(number, sheets, frame, laying) for number in range(len(sheets[0].groups)))
    own = iter(sheets)
    for date in groups[0].dates if laying.overlap is None else ():
        _check_apart(date, [next(own).name for _ in date.sheets])
    return groups


def _of_one_type(sheets: Sequence[SheetGroups]) -> Sequence[SheetGroups]:
    """The sheets, groups that are read as they are in the pixel type of those that are converted.

    Of two dates of one sensor often one has numbers of another meaning (Sentinel-2 before and since its
    baseline 04.00). What becomes of both is of one kind, unless numbers would not be kept.
    """
    types: dict[int, str] = {}
    for sheet in sheets:
        for number, group in enumerate(sheet.groups):
            if not all(band.plain for band in group.bands):
                types[number] = group.dtype
    if not types:
        return sheets
    return [
        replace(sheet, groups=tuple(_typed(group, types.get(n)) for n, group in enumerate(sheet.groups)))
        for sheet in sheets
    ]


def _typed(group: SceneGroup, dtype: str | None) -> SceneGroup:
    if dtype is None or dtype == group.dtype or not np.can_cast(group.dtype, dtype):
        return group
    return replace(group, dtype=dtype)


def _check_alike(sheets: Sequence[SheetGroups]) -> None:
    """Raise SceneError where sheets differ in their bands or pixel types."""
    first = sheets[0]
    for other in sheets[1:]:
        bands, wanted = (
            [(group.ratio, [band.name for band in group.bands]) for group in sheet.groups]
            for sheet in (other, first)
        )
        if bands != wanted:
            raise SceneError(
                f"{first.name} lies on {grid_text(first.groups[0].grid)} and has {_bands_text(first)}, "
                f"{other.name} lies on {grid_text(other.groups[0].grid)} and has {_bands_text(other)}; "
                f"files of one place are bands of one scene, files of several places are its sheets and have "
                f"the same bands; warp one file onto the grid of the other, or choose bands with --bands"
            )
        for one, another in zip(first.groups, other.groups, strict=True):
            if one.dtype != another.dtype:
                raise SceneError(
                    f"pixels of {first.name} are {one.dtype}, those of {other.name} are {another.dtype}; "
                    f"sheets of one scene hold numbers of one kind; convert them to one, or map them apart"
                )


def _bands_text(sheet: SheetGroups) -> str:
    return ", ".join(
        f"{band.name}{f' at 1:{group.ratio}' if group.ratio > 1 else ''}"
        for group in sheet.groups
        for band in group.bands
    )


def _ordered(sheets: Sequence[SheetGroups], overlap: Overlap) -> Sequence[SheetGroups]:
    """The sheet that counts most first."""
    if overlap != "newest":
        return sheets
    if untimed := next((sheet for sheet in sheets if sheet.time is None), None):
        raise LayoutError(
            f"--overlap newest needs the date of each sheet, and nothing says when {untimed.name} was taken; "
            f"write it into its name (20240531), or give --overlap first and the sheets in order"
        )
    return sorted(sheets, key=lambda sheet: sheet.time or "", reverse=True)


def _union(grids: Sequence[GeoBox], lattice: GeoBox, unit: int, names: Sequence[str]) -> GeoBox:
    """The grid on the lattice that holds all; its corner is one of each `unit` x `unit` pixels too."""
    windows = []
    for grid, name in zip(grids, names, strict=True):
        window = place_on(lattice, grid)
        if window is None:
            raise LayoutError(
                f"{name} lies where {crs_text(lattice)}, the CRS of the scene, ends; choose another with "
                f"--grid EPSG:<code>, or map it by itself"
            )
        windows.append(window)
    row, col = (min(starts) // unit * unit for starts in zip(*((w.row, w.col) for w in windows), strict=True))
    height = max(w.row_end for w in windows) - row
    width = max(w.col_end for w in windows) - col
    _check_one_side(windows, lattice, names)
    if sum(w.pixels for w in windows) < _LEAST_COVERED * height * width:
        raise LayoutError(
            f"{len(names)} sheets lie far apart ({names[0]}, {names[-1]}): a grid that holds all has "
            f"{width} x {height} pixels, of which they fill less than {_LEAST_COVERED:.1%}; map them one by "
            f"one"
        )
    return GeoBox((height, width), lattice.transform * Affine.translation(col, row), lattice.crs)


def _check_size(grids: Sequence[GeoBox], lattice: GeoBox, names: Sequence[str]) -> None:
    """Raise LayoutError where pixels that were asked for are so small that nothing is known of them."""
    kinds = {(str(grid.crs), grid.transform.a): (grid, name) for grid, name in zip(grids, names, strict=True)}
    scale, name = max((min(Positions(grid, lattice).scale), name) for grid, name in kinds.values())
    if not scale * _WEIGHED >= 1:
        raise LayoutError(
            f"--grid: {name} is to be mapped in pixels {scale:.3g} times as large as its own, and they are "
            f"at least 1/{_WEIGHED} of them; give a coarser one"
        )


def _check_one_side(windows: Sequence[Window], lattice: GeoBox, names: Sequence[str]) -> None:
    """Raise LayoutError where sheets lie on both sides of 180 degrees, where longitudes jump.

    They would be a raster around the Earth, and windows of the network would not cross from one to the other.
    """
    if lattice.crs is None or not lattice.crs.geographic:
        return
    to = lattice.transform
    middles = np.array([to * (w.col + w.width / 2, w.row + w.height / 2) for w in windows])
    turned = middles[:, 0] % 360
    if np.ptp(middles[:, 0]) > 180 > np.ptp(turned):
        zone = 60 if np.median(turned) < 180 else 1
        code = (32600 if middles[:, 1].mean() >= 0 else 32700) + zone
        west, east = names[int(turned.argmin())], names[int(turned.argmax())]
        raise LayoutError(
            f"{west} and {east} lie on both sides of 180 degrees, where longitudes jump; give a CRS that "
            f"goes on there, as UTM does: --grid EPSG:{code}"
        )


def _check_apart(group: SceneGroup, names: Sequence[str]) -> None:
    """Raise LayoutError where two sheets show the same place: two dates, and which is meant is not said."""
    boxes = shapely.box(*_edges(group))
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    pairs = one < other
    one, other = one[pairs], other[pairs]
    area = shapely.area(boxes)
    shared = shapely.area(shapely.intersection(boxes[one], boxes[other])) / np.minimum(area[one], area[other])
    if len(shared) and shared[worst := int(shared.argmax())] > _MOST_SHARED:
        raise LayoutError(
            f"{names[one[worst]]} and {names[other[worst]]} both show {shared[worst]:.0%} of a place; if "
            f"they are two dates, say which counts: --overlap newest, or first in the order given, or what "
            f"becomes of both: --composite median, best or mean-probability; if they are sheets that overlap "
            f"so far, --overlap first, nearest-centre or feather"
        )


def _edges(group: SceneGroup) -> NDArray[np.float64]:
    """(4, sheet) first and last columns and rows, as west, south, east, north of a box."""
    windows = [sheet.window for sheet in group.sheets]
    return np.array([(w.col, w.row, w.col_end, w.row_end) for w in windows], np.float64).T


def _laid(number: int, sheets: Sequence[SheetGroups], frame: GeoBox, laying: Laying) -> SceneGroup:
    """One band group of all sheets."""
    groups = [sheet.groups[number] for sheet in sheets]
    grid = coarser_grid(frame, groups[0].ratio)
    if groups[0].filled:
        return replace(groups[0], grid=grid)
    kernels: dict[tuple[str, float], Kernel] = {}
    laid: list[Sheet] = []
    blocks: list[tuple[int, int]] = []
    for sheet, group in zip(sheets, groups, strict=True):
        window, kernel = window_on(grid, group.grid), None
        if window is None:
            window = reach(group.grid, grid)
            kind = str(group.grid.crs), group.grid.transform.a
            if kind not in kernels:
                kernels[kind] = kernel_onto(grid, group.grid, laying.resampling, group.paths[0])
            kernel = kernels[kind]
        assert window, "it is known where sheets lie"
        laid.append(Sheet(group.bands, group.grid, window, kernel, group.sheets[0].masks, sheet.time))
        blocks.append(group.block if kernel is None else _BLOCK)
    return replace(
        groups[0],
        grid=grid,
        sheets=tuple(laid),
        block=(max(b[0] for b in blocks), max(b[1] for b in blocks)),
        overlap=laying.overlap or "first",
        composite=laying.composite if len({sheet.day for sheet in sheets}) > 1 else None,
    )


def kernel_onto(lattice: GeoBox, grid: GeoBox, asked: Kernel | None, name: str) -> Kernel:
    """How pixels of a grid are warped onto a lattice: as asked, else averaged where there are many in one.

    Args:
        lattice: that they come to lie on.
        grid: theirs.
        asked: how; None: as is usual.
        name: of the image, for the message.

    Raises:
        LayoutError: more of them would be weighed for a pixel than can be in a sensible time.
    """
    scale = max(Positions(grid, lattice).scale)
    kernel = asked or ("average" if scale >= _AVERAGED else "bilinear")
    if kernel != "nearest" and not scale <= _WEIGHED:
        raise LayoutError(
            f"{name} is to be mapped in pixels {scale:.3g} times as large as its own, and {_WEIGHED} times "
            "is the most that is averaged; give a finer --grid, --resampling nearest, or an image with "
            "larger pixels (gdalwarp -r average)"
        )
    return kernel
