"""Whether labels fit an image and a legend, before anything is learned from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds
from rasterio.windows import Window as RasterioWindow
from shapely import Polygon, box, union_all

from citycover.classes.legend import legends_that_fit
from citycover.errors import ConfigError
from citycover.geometry.crs import tie
from citycover.geometry.grid import crs_of
from citycover.geometry.overlap import bounds_after
from citycover.geometry.window import Window
from citycover_models.data.labels import IGNORE, LabelRaster, refuse_unfit

_ROWS = 1024

_MINE = 0.9
"""Share of an image that labels should cover; below it a warning is due."""


def count_codes(path: str, grid: GeoBox) -> Counter[int]:
    """Pixels of each code of a label raster inside the bounds of an image, in the raster's own pixels.

    Raises:
        ConfigError: the raster cannot be read, or does not overlap the image.
    """
    counts: Counter[int] = Counter()
    try:
        with rasterio.open(path) as source:
            refuse_unfit(source, path)
            part = _overlap(source, grid)
            if part is None:
                return counts
            for row in range(part.row, part.row_end, _ROWS):
                rows = min(_ROWS, part.row_end - row)
                where = RasterioWindow(part.col, row, part.width, rows)
                codes, mask = source.read(1, window=where), source.dataset_mask(window=where)
                ids, numbers = np.unique(codes[(mask > 0) & np.isfinite(codes)], return_counts=True)
                counts.update({int(i): int(n) for i, n in zip(ids, numbers, strict=True)})
    except RasterioError as error:
        raise ConfigError(f"label raster {path} cannot be read: {error}") from None
    return counts


def _overlap(source: Any, grid: GeoBox) -> Window | None:
    """Pixels of a label raster that lie inside the bounds of an image."""
    tie(crs_of(grid).to_wkt(), source.crs.to_wkt(), f"an image, or of label raster {source.name},")
    bounds = transform_bounds(crs_of(grid).to_wkt(), source.crs, *grid.boundingbox)
    west, north, east, south = bounds_after(~source.transform, *bounds)
    if not all(map(math.isfinite, (west, north, east, south))):
        return None  # the image lies where the CRS of the labels is not defined
    row, col = math.floor(north), math.floor(west)
    height, width = math.ceil(south) - row, math.ceil(east) - col
    if height < 1 or width < 1:
        return None
    return Window(row, col, height, width).clip(Window(0, 0, source.height, source.width))


def footprint(path: str, grid: GeoBox) -> Polygon:
    """The part of an image's bounds that a label raster covers, nodata or not; empty where none."""
    with rasterio.open(path) as source:
        part = _overlap(source, grid)
        if part is None:
            return Polygon()
        # Only the part near the image is turned into its CRS, which may not reach to the rest of the world.
        covered = bounds_after(source.transform, part.col, part.row_end, part.col_end, part.row)
        covered = transform_bounds(source.crs, crs_of(grid).to_wkt(), *covered)
    return box(*covered).intersection(box(*grid.boundingbox))


def check_labels(rasters: Iterable[LabelRaster], grid: GeoBox, image: str) -> list[str]:
    """Look at every code under an image before anything is learned from them.

    Returns:
        Warnings, one sentence each.

    Raises:
        ConfigError: labels do not overlap the image, hold codes that their legend lacks, or mean nothing.
    """
    warnings: list[str] = []
    known = Counter[int]()
    rasters = tuple(rasters)
    footprints = []
    for raster in rasters:
        counts = count_codes(raster.path, grid)
        unknown = {code: n for code, n in counts.items() if code not in raster.table}
        if unknown:
            raise ConfigError(_unknown_codes(raster, unknown, counts))
        footprints.append(footprint(raster.path, grid))
        for code, n in counts.items():
            known[raster.table[code]] += n
    if not known:
        names = ", ".join(r.path for r in rasters)
        raise ConfigError(
            f"labels {names} have no labelled pixel where {image} lies; needed are labels of the same place; "
            "check their CRS and extent with `citycover inspect`"
        )
    if not any(n for channel, n in known.items() if channel != IGNORE):
        raise ConfigError(
            f"every label under {image} means no class of the legend that is learned; choose another --to"
        )
    covered = union_all(footprints).area / box(*grid.boundingbox).area
    if covered < _MINE:
        warnings.append(f"labels cover {covered:.0%} of {image}; the rest of it teaches nothing")
    return warnings


def _unknown_codes(raster: LabelRaster, unknown: dict[int, int], counts: Counter[int]) -> str:
    said = ", ".join(f"{code} ({n} px)" for code, n in sorted(unknown.items())[:12])
    fitting = legends_that_fit(counts.keys())
    advice = (
        f"legends that hold all its codes: {', '.join(fitting)}" if fitting else "no built-in legend fits"
    )
    return (
        f"label raster {raster.path} holds codes that legend {raster.legend!r} gives no class for: {said}; "
        f"{advice}; give --legend that names its codes, and --to a legend with a table for it"
    )
