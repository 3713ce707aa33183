"""Coarse labels on the grid of an image, whatever grid, CRS and resolution they lie on.

Labels are warped by nearest neighbour as they are read, window by window; nothing is ever written out. Their
codes become channel numbers 0..K-1 of the legend that is learned; what has no label becomes `IGNORE`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window as RasterioWindow
from shapely import Polygon, box, union_all

from citycover.errors import ConfigError
from citycover.gsd import tie
from citycover.legend import Legend, legends_that_fit
from citycover.window import Window
from citycover_models.data.overlap import bounds_after, wkt

IGNORE = 255
"""Channel number of pixels without a label."""
_ROWS = 1024
_MINE = 0.9
"""Share of an image that labels should cover; below it a warning is due."""


@dataclass(frozen=True)
class LabelRaster:
    """A raster of codes, and the channel that each code means."""

    path: str
    legend: str
    """Name of the legend that the codes belong to."""
    channels: tuple[tuple[int, int], ...]
    """(code, channel) pairs; codes that mean no class have channel `IGNORE`."""

    @cached_property
    def table(self) -> dict[int, int]:
        """Code -> channel."""
        return dict(self.channels)


def label_raster(path: str, codes: Legend, learned: Legend) -> LabelRaster:
    """Join a raster of legend `codes` to the legend that is learned.

    Raises:
        ConfigError: the learned legend has no remap table for `codes`.
    """
    if codes.name == learned.name:
        table = {i: i for i in codes.ids}
        if codes.nodata is not None:
            table[codes.nodata] = learned.product_nodata
    else:
        table = dict(learned.table_from(codes.name))
    rank = {id_: k for k, id_ in enumerate(learned.ids)}
    pairs = sorted((code, rank.get(id_, IGNORE)) for code, id_ in table.items())
    return LabelRaster(path, codes.name, tuple(pairs))


class LabelReader:
    """Channels of one or several label rasters on one grid; opens them at the first read.

    With `agree` 1 the first raster that has a label gives it, so neighbouring sheets make one. With more, a
    pixel keeps a label that at least `agree` rasters share, and that no other label equals in votes.
    """

    def __init__(self, rasters: Sequence[LabelRaster], grid: GeoBox, *, agree: int = 1) -> None:
        self._rasters = tuple(rasters)
        self._grid = grid
        self._agree = agree
        self._open: list[WarpedVRT] = []

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(y, x) channels of a window that lies inside the grid; `IGNORE` where there is none.

        Raises:
            ConfigError: a raster cannot be read, or does not fit.
        """
        if not self._open:
            self._open = [_on_grid(raster.path, self._grid) for raster in self._rasters]
        where = RasterioWindow(window.col, window.row, window.width, window.height)
        votes = []
        for vrt, raster in zip(self._open, self._rasters, strict=True):
            try:
                codes, mask = vrt.read(1, window=where), vrt.dataset_mask(window=where)
            except RasterioError as error:
                raise ConfigError(f"label raster {raster.path} cannot be read: {error}") from None
            votes.append(_channels(codes, mask > 0, raster.table))
        return _first(votes) if self._agree == 1 else _consensus(np.stack(votes), self._agree)

    def close(self) -> None:
        """Let go of the files."""
        for vrt in self._open:
            vrt.close()
        self._open = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": []}


def _on_grid(path: str, grid: GeoBox) -> WarpedVRT:
    height, width = grid.shape
    try:
        source = rasterio.open(path)
        _refuse_unfit(source, path)
        return WarpedVRT(
            source,
            crs=wkt(grid),
            transform=grid.transform,
            width=int(width),
            height=int(height),
            resampling=Resampling.nearest,
            add_alpha=source.nodata is None and source.count == 1,
        )
    except (RasterioError, CRSError) as error:
        raise ConfigError(f"label raster {path} cannot be read: {error}") from None


def _refuse_unfit(source: Any, path: str) -> None:
    """A raster of codes has one band and says where it lies."""
    if source.crs is None:
        raise ConfigError(
            f"label raster {path} has no CRS, so it cannot be laid on the image; write one into it "
            "(gdal_edit.py -a_srs EPSG:...)"
        )
    if source.count != 1 and source.colorinterp[1:] != (ColorInterp.alpha,):
        raise ConfigError(
            f"label raster {path} has {source.count} bands; needed is one band of codes; take it out with "
            "gdal_translate -b 1"
        )


def _channels(codes: NDArray[Any], seen: NDArray[np.bool_], table: dict[int, int]) -> NDArray[np.uint8]:
    ids, inverse = np.unique(codes, return_inverse=True)
    # Codes are whole numbers; NaN, which some products hold outside their area, is no key of the table.
    new = np.array([table.get(i, IGNORE) for i in ids.tolist()], np.uint8)
    channels: NDArray[np.uint8] = new[inverse].reshape(codes.shape)
    channels[~seen] = IGNORE
    return channels


def _first(votes: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    chosen = votes[0]
    for other in votes[1:]:
        chosen = np.where(chosen == IGNORE, other, chosen)
    return chosen


def _consensus(votes: NDArray[np.uint8], agree: int) -> NDArray[np.uint8]:
    """(p, y, x) -> (y, x).

    >>> _consensus(np.array([[[1, 1, 2]], [[1, 2, 255]], [[0, 2, 255]]], np.uint8), 2)
    array([[  1,   2, 255]], dtype=uint8)
    """
    labels = np.unique(votes[votes != IGNORE])
    best = np.full(votes.shape[1:], IGNORE, np.uint8)
    most = np.full(votes.shape[1:], agree - 1, np.int64)
    for label in labels:
        count = (votes == label).sum(0)
        best[count == most] = IGNORE  # a tie says nothing
        best[count > most] = label
        most = np.maximum(most, count)
    return best


def count_codes(path: str, grid: GeoBox) -> Counter[int]:
    """Pixels of each code of a label raster inside the bounds of an image, in the raster's own pixels.

    Raises:
        ConfigError: the raster cannot be read, or does not overlap the image.
    """
    counts: Counter[int] = Counter()
    try:
        with rasterio.open(path) as source:
            _refuse_unfit(source, path)
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
    tie(wkt(grid), source.crs.to_wkt(), f"an image, or of label raster {source.name},")
    bounds = transform_bounds(wkt(grid), source.crs, *grid.boundingbox)
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
        covered = transform_bounds(source.crs, wkt(grid), *covered)
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
