"""Small versions of large rasters, with one rule for what is cheap.

A raster is read decimated where that decodes few bytes: the whole of it if it is small, or the overview that
is used in its stead. Else its pixels are sampled at a coarse lattice, which decodes one block a point. Where
even that is dear (blocks of 8192 px), nothing is read: a look must cost neither minutes nor gigabytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.windows import Window as RasterioWindow

from citycover.files.gdal import open_known, open_unseen, scene_options
from citycover.geometry.positions import reach
from citycover.scene.scene import SceneGroup, Sheet

HINT_BYTES = 32 << 20
"""Decoded for a hint that nobody asked for: it must not be felt before a map."""

SHOWN_BYTES = 1 << 30
"""Decoded for what a person asked to see."""

_LATTICE_BYTES = 2 << 30

_LATTICES = (32, 16, 8)
"""Points along each side, the finest that is cheap; fewer say nothing."""

_LEAST_CACHE = 8 << 20

_SHEETS = 4
"""Sheets of a scene that are looked at."""


def read_small(
    bands: Mapping[str, Sequence[int]], longest: int, budget: int = SHOWN_BYTES, *, unseen: bool = False
) -> np.ma.MaskedArray[Any, Any] | None:
    """Nearest pixels of a small version: constants stay constant.

    Args:
        bands: path of each file to numbers of its bands; files of one shape.
        longest: pixels of the small version along its longer side, at most.
        budget: bytes that may be decoded before a lattice is taken instead.
        unseen: nobody has looked at the files yet.

    Returns:
        (band, y, x), masked where GDAL says that a pixel is invalid; None where nothing was cheap.

    Raises:
        RasterioError: a file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(rasterio.Env(**scene_options(bands)))
        opened = open_unseen if unseen else open_known
        files = [(stack.enter_context(opened(path)), list(i)) for path, i in bands.items()]
        height, width = files[0][0].shape
        factor = max(1.0, max(height, width) / longest)
        if all(decoded_bytes(dataset, len(i), height * width, factor) <= budget for dataset, i in files):
            shape = max(1, round(height / factor)), max(1, round(width / factor))
            # A decimated read goes line by line, and would decode each block for every line.
            with _cache([(d, len(i), 2 * d.width) for d, i in files], budget):
                return _joined([d.read(i, out_shape=(len(i), *shape), masked=True) for d, i in files])
        for side in _LATTICES:
            rows, cols = (_cell_centres(length, side) for length in (height, width))
            if sum(_lattice_bytes(d, len(i), rows, cols) for d, i in files) <= _LATTICE_BYTES:
                with _cache([(d, len(i), 2 * _block(d)[1]) for d, i in files], budget):
                    return _joined([_points(d, i, rows, cols) for d, i in files])
    return None


def some_sheets(group: SceneGroup, within: GeoBox | None = None) -> tuple[Sheet, ...]:
    """A few sheets, spread evenly, that stand for all: a look must not take longer because there are many.

    Args:
        group: whose sheets.
        within: what is to be seen of the scene; None: all of it.
    """
    sheets = group.sheets
    if within is not None and (seen := reach(within, group.native)):
        sheets = tuple(sheet for sheet in sheets if sheet.window.clip(seen))
    count = len(sheets)
    return tuple(sheets[i * count // _SHEETS] for i in range(_SHEETS)) if count > _SHEETS else sheets


def decoded_bytes(dataset: Any, bands: int, pixels: int, factor: float) -> int:
    """What a decimated read decodes, in bytes: GDAL takes the smallest overview that is large enough.

    Args:
        dataset: an open rasterio dataset.
        bands: how many are read.
        pixels: of the part that is read.
        factor: file pixels along a pixel of the small version.
    """
    useful = [level * level for level in dataset.overviews(1) if level <= factor]
    return int(pixels / max(useful, default=1)) * bands * _itemsize(dataset)


def _itemsize(dataset: Any) -> int:
    return max(int(np.dtype(dtype).itemsize) for dtype in dataset.dtypes)


def _block(dataset: Any) -> tuple[int, int]:
    rows, cols = zip(*dataset.block_shapes, strict=True)
    return min(max(rows), int(dataset.height)), min(max(cols), int(dataset.width))


def _cache(files: Sequence[tuple[Any, int, int]], most: int) -> Any:
    """GDAL's cache for blocks of (dataset, bands, columns of a row of blocks that must stay)."""
    needed = [_block(d)[0] * cols * bands * _itemsize(d) for d, bands, cols in files]
    return rasterio.Env(GDAL_CACHEMAX=_LEAST_CACHE + min(most, max(needed)))


def _joined(planes: Sequence[Any]) -> np.ma.MaskedArray[Any, Any]:
    values = np.concatenate([np.ma.getdata(plane) for plane in planes])
    return np.ma.MaskedArray(values, np.concatenate([np.ma.getmaskarray(plane) for plane in planes]))


def _lattice_bytes(dataset: Any, bands: int, rows: Sequence[int], cols: Sequence[int]) -> int:
    height, width = _block(dataset)
    blocks = len({row // height for row in rows}) * len({col // width for col in cols})
    return blocks * height * width * bands * _itemsize(dataset)


def _points(
    dataset: Any, indexes: list[int], rows: Sequence[int], cols: Sequence[int]
) -> np.ma.MaskedArray[Any, Any]:
    kind = np.result_type(*(dataset.dtypes[index - 1] for index in indexes))
    points = np.ma.zeros((len(indexes), len(rows), len(cols)), kind)
    for y, row in enumerate(rows):
        for x, col in enumerate(cols):
            where = RasterioWindow(col, row, 1, 1)
            points[:, y, x] = dataset.read(indexes, window=where, masked=True)[:, 0, 0]
    return points


def _cell_centres(length: int, cells: int) -> list[int]:
    return [int((i + 0.5) * length / cells) for i in range(cells)]
