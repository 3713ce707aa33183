"""Coarse labels on the grid of an image, whatever grid, CRS and resolution they lie on.

Labels are warped by nearest neighbour as they are read, window by window; nothing is ever written out. Their
codes become channel numbers 0..K-1 of the legend that is learned; what has no label becomes `IGNORE`.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from rasterio.windows import Window as RasterioWindow

from citycover.classes.legend import Legend
from citycover.errors import ConfigError
from citycover.geometry.grid import crs_of
from citycover.geometry.window import Window

IGNORE = 255
"""Channel number of pixels without a label."""


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
        refuse_unfit(source, path)
        return WarpedVRT(
            source,
            crs=crs_of(grid).to_wkt(),
            transform=grid.transform,
            width=int(width),
            height=int(height),
            resampling=Resampling.nearest,
            add_alpha=source.nodata is None and source.count == 1,
        )
    except (RasterioError, CRSError) as error:
        raise ConfigError(f"label raster {path} cannot be read: {error}") from None


def refuse_unfit(source: Any, path: str) -> None:
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
