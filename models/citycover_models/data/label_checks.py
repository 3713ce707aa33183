"""Whether labels fit an image and a legend, before anything is learned from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from odc.geo.geobox import GeoBox
from shapely import Polygon, box, union_all

from citycover.classes.raster import ClassRaster, count_ids, refuse_unknown
from citycover.errors import ConfigError
from citycover.geometry.grid import finer_than, pixel_ground_size
from citycover.geometry.overlap import bounds_after, bounds_in
from citycover_models.data.labels import LabelRaster

_MINE = 0.9
"""Share of an image that labels should cover; below it a warning is due."""


class ElsewhereError(ConfigError):
    """Labels say nothing of an image: they lie beside it, or are nodata all over it."""


def footprint(raster: ClassRaster, grid: GeoBox) -> Polygon:
    """The part of an image's bounds that a label raster covers, nodata or not; empty where none."""
    part, own = raster.part_under(grid), raster.grid
    if part is None:
        return Polygon()
    # Only the part near the image is turned into its CRS, which may not reach to the rest of the world.
    covered = bounds_after(own.transform, part.col, part.row_end, part.col_end, part.row)
    return box(*bounds_in(grid, own, covered)).intersection(box(*grid.boundingbox))


def check_labels(rasters: Iterable[LabelRaster], grid: GeoBox, image: str) -> list[str]:
    """Look at every id under an image before anything is learned from them.

    Returns:
        Warnings, one sentence each.

    Raises:
        ElsewhereError: labels do not overlap the image, or are nodata there.
        ConfigError: they hold ids that their legend lacks, or mean nothing.
    """
    warnings: list[str] = []
    known = Counter[int]()
    rasters = tuple(rasters)
    footprints, finest = [], math.inf
    for raster in rasters:
        counts = count_ids(raster.path, "labels", under=grid)
        refuse_unknown(raster.path, "labels", raster.table, counts)
        with ClassRaster(raster.path, "labels") as opened:
            footprints.append(footprint(opened, grid))
            if opened.grid.crs is not None:  # without one it has the very grid of the image
                finest = min(finest, *pixel_ground_size(opened.grid))
        ranks = dict(raster.ranks)
        for id_, n in counts.items():
            known[ranks[id_]] += n
    covered = union_all(footprints).area / box(*grid.boundingbox).area
    names = ", ".join(r.path for r in rasters)
    if covered == 0:
        raise ElsewhereError(
            f"labels {names} and {image} do not overlap; needed are labels of the same place; check their "
            "CRS and extent with `citycover inspect`"
        )
    if not known:
        raise ElsewhereError(
            f"labels {names} have no labelled pixel where {image} lies, they are nodata there; needed are "
            "labels of the same place"
        )
    if not any(n for rank, n in known.items() if rank >= 0):
        raise ConfigError(
            f"every label under {image} means no class of the legend that is learned; choose another --to"
        )
    if math.isfinite(finest) and finer_than([finest], sides := pixel_ground_size(grid)):
        pixel = min(sides)
        warnings.append(
            f"labels {names} have cells of {finest:.3g} m, finer than the pixels of {image} ({pixel:.3g} m): "
            "of the cells in a pixel only the middle one is heard; bring them to the grid of the image by "
            f"gdalwarp -r mode -tr {pixel:.3g} {pixel:.3g} and all are"
        )
    if covered < _MINE:
        warnings.append(f"labels cover {covered:.0%} of {image}; the rest of it teaches nothing")
    return warnings
