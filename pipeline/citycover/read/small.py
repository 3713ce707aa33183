"""Small versions of large rasters, with one rule for what is cheap.

A raster is read decimated where that decodes few bytes: the whole of it if it is small, or the overview that
is used in its stead. Else its pixels are sampled at a coarse lattice of rows and columns, which lies in few
blocks however large the raster is. Where even that is dear (blocks of 8192 px), nothing is read: a look must
cost neither minutes nor gigabytes.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.windows import Window as RasterioWindow

from citycover.files.gdal import open_known, open_unseen, overview_for, scene_options
from citycover.geometry.positions import reach
from citycover.scene.scene import SceneGroup, Sheet

HINT_BYTES = 32 << 20
"""Decoded for a hint that nobody asked for: it must not be felt before a map."""

SHOWN_BYTES = 1 << 30
"""Decoded for what a person asked to see."""

_LATTICE_BYTES = 512 << 20

_LATTICES = {32: 6, 16: 4, 8: 3}
"""Points along each side, the finest that is cheap, for fewer say nothing; and in how many blocks they lie,
the first and the last among them, where each in its own would be dear."""

_HINT_SIDE = 1000
"""Pixels of the small version that hints are taken from, along its longer side."""

_LEAST_CACHE = 8 << 20

_SHEETS = 4
"""Sheets of a scene that are looked at."""


class Hints:
    """Small versions of files for hints that nobody asked for: each is read once for all of them."""

    def __init__(self) -> None:
        self._read: dict[tuple[Any, ...], np.ma.MaskedArray[Any, Any] | None] = {}

    def of(
        self, bands: Mapping[str, Sequence[int]], *, unseen: bool = False
    ) -> np.ma.MaskedArray[Any, Any] | None:
        """What `read_small` says of them, where that is not felt before a map; not to be changed."""
        key = (unseen, *((path, *numbers) for path, numbers in bands.items()))
        if key not in self._read:
            self._read[key] = read_small(bands, _HINT_SIDE, HINT_BYTES, unseen=unseen)
        return self._read[key]


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
        block = tuple(max(_block(d)[axis] for d, _ in files) for axis in (0, 1))
        for (side, blocks), spread in itertools.product(_LATTICES.items(), (True, False)):
            rows, cols = (
                _centres(length, side) if spread else _lattice(length, within, side, blocks)
                for length, within in zip((height, width), block, strict=True)
            )
            most = HINT_BYTES if spread else _LATTICE_BYTES
            if sum(_lattice_bytes(d, len(i), rows, cols) for d, i in files) <= most:
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
    _, useful = overview_for(dataset, factor)
    return int(pixels / useful**2) * bands * _itemsize(dataset)


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
    height, width = _block(dataset)
    # Block by block, of which the cache holds few: one call for all points of a row that lie in a block.
    for ys, xs in itertools.product(_by_block(rows, height), _by_block(cols, width)):
        first, last = cols[xs[0]], cols[xs[-1]]
        for y in ys:
            where = RasterioWindow(first, rows[y], last + 1 - first, 1)
            line = dataset.read(indexes, window=where, masked=True)[:, 0]
            points[:, y, xs] = line[:, [cols[x] - first for x in xs]]
    return points


def _by_block(places: Sequence[int], side: int) -> list[list[int]]:
    """Numbers of places along an axis, those of a block together.

    >>> _by_block([3, 7, 12, 18, 25], 10)
    [[0, 1], [2, 3], [4]]
    """
    numbers = range(len(places))
    return [list(some) for _, some in itertools.groupby(numbers, key=lambda number: places[number] // side)]


def _centres(length: int, cells: int) -> list[int]:
    return [int((i + 0.5) * length / cells) for i in range(cells)]


def _lattice(length: int, block: int, points: int, blocks: int) -> list[int]:
    """Places along an axis in a few blocks that are spread evenly, at most so many.

    >>> _lattice(80, 20, 4, 6)
    [10, 30, 50, 70]
    >>> _lattice(1000, 10, 12, 6)
    [2, 7, 192, 197, 392, 397, 592, 597, 792, 797, 992, 997]
    """
    count, within = -(-length // block), points // blocks
    if count <= blocks or within > block:
        return _centres(length, points)
    taken = [i * (count - 1) // (blocks - 1) for i in range(blocks)]
    ends = ((k * block, min(length, (k + 1) * block)) for k in taken)
    return [first + int((i + 0.5) * (end - first) / within) for first, end in ends for i in range(within)]
