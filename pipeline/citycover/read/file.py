"""BandFile: bands of one open file, and what is left of a window that cannot be read.

A handle of GDAL that has failed is never used again. It keeps what a failed read left in its cache of
blocks, and remembers of a VRT's source that it could not be opened: the next read through the same handle
"succeeds" and delivers garbage or zeros. So a window that fails is read again block by block through a fresh
handle, decoded in one thread, which is closed in turn as soon as a block fails; blocks that fail for good are
holes.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.windows import Window as RasterioWindow

from citycover.errors import SceneError
from citycover.files.gdal import brief_reason, open_known, open_unseen
from citycover.files.heed import heed, listen
from citycover.files.zarr import ZarrRaster
from citycover.geometry.window import Window
from citycover.machine.descriptors import need_descriptors
from citycover.read.convert import convert
from citycover.read.promise import kept
from citycover.read.reader import Hole
from citycover.read.valid import ValidityReader, differs, mask_readers, opacities
from citycover.scene.scene import BandSource

_ATTEMPTS = 2
"""How often a block is tried before it is a hole: networks fail for a moment, disks do not."""

_FAILURES = (RasterioError, UnicodeDecodeError)
"""GDAL quotes a broken file byte by byte, and rasterio cannot read the quotation."""

_POOL = 100
"""Sources that GDAL holds open at a time in all VRTs of a process (GDAL_MAX_DATASET_POOL_SIZE)."""

_SPARE = 8
"""Descriptors that opening one file may take, its side-cars included."""

logger = logging.getLogger(__name__)


class _Pool:
    """The sources that GDAL holds open in all VRTs of this process."""

    def __init__(self) -> None:
        self._granted = 0
        self._lock = threading.Lock()

    def need(self, sources: int) -> None:
        """Make sure that the sources of one more VRT can be opened.

        What another thread's handle of the same file has opened since is no longer free, and is not needed
        twice. Should others take the descriptors later, the read that fails asks again.
        """
        with self._lock:
            count = min(_POOL, sources)
            need_descriptors(max(0, count - self._granted) + _SPARE)
            self._granted = max(self._granted, count)


_pool = _Pool()


class _Handle:
    """An open dataset and the ways to ask it for validity."""

    def __init__(self, path: str, bands: Sequence[BandSource]) -> None:
        self.dataset = open_unseen(path) if bands[0].promise else open_known(path)
        self.bands = bands = kept(self.dataset, bands)
        self.masks: list[ValidityReader] = mask_readers(self.dataset, bands)
        self.opacities = opacities(self.dataset, bands)
        for band in bands:
            flags = {flag.name for flag in self.dataset.mask_flag_enums[band.index - 1]}
            lost_mask = band.validity == "mask" and "all_valid" in flags
            if self.dataset.dtypes[band.index - 1] != band.dtype or lost_mask:
                raise SceneError(
                    f"{path} is not what it was when the run began (pixel type or mask differ); "
                    f"files of a scene must stay as they are during a run; start again"
                )


class BandFile:
    """An open file and the places that its bands take in the group."""

    def __init__(self, path: str, bands: Sequence[BandSource], places: Sequence[int]) -> None:
        """Open a file.

        Raises:
            RasterioError: it cannot be opened.
            SceneError: it is not what was described.
            MachineError: too few file descriptors are left to read it.
        """
        self._path = path
        self._places = list(places)
        self._bands = [bands[place] for place in places]
        self._indexes = [band.index for band in self._bands]
        self._dtype = np.result_type(*(np.dtype(band.dtype) for band in self._bands))
        self._broken: dict[Window, str] = {}
        self._losses = list(dict.fromkeys(loss for band in self._bands for loss in band.losses))
        first, last = self._places[0], self._places[-1]
        self._plain = all(band.plain for band in self._bands)
        in_a_row = self._places == list(range(first, last + 1))
        self._slice = slice(first, last + 1) if in_a_row else None
        need_descriptors(_SPARE)
        self._main: _Handle | None = _Handle(path, self._bands)
        self._alone: _Handle | None = None
        dataset = self._main.dataset
        self._steady = isinstance(dataset, ZarrRaster)
        self.transform, self.height, self.width = dataset.transform, dataset.height, dataset.width
        self._block = dataset.block_shapes[self._indexes[0] - 1]
        pixels = max(rows * cols for rows, cols in dataset.block_shapes)
        self.block_bytes = int(pixels * sum(np.dtype(name).itemsize for name in dataset.dtypes))
        """Decoded size of the largest block of all bands: interleaved bands are decoded together."""
        if dataset.driver == "VRT":
            _pool.need(len(dataset.files))

    def close(self) -> None:
        """Let go of the file."""
        for handle in (self._main, self._alone):
            if handle is not None:
                handle.dataset.close()
        self._main = self._alone = None

    def _distrust(self) -> None:
        """Use no handle again that has failed; one of zarr-python keeps nothing of a failure."""
        if not self._steady:
            self.close()

    def decoded_bytes(self, window: Window) -> int:
        """Size of all blocks that a window touches."""
        height, width = self._block
        rows = (window.row_end - 1) // height - window.row // height + 1
        cols = (window.col_end - 1) // width - window.col // width + 1
        return int(rows * cols * self.block_bytes)

    def read(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        """Read the file's bands of a window into their places; clear `valid` where they are not."""
        lost = [(part, loss) for loss in self._losses if (part := loss.window.clip(window))]
        if not lost:
            return self._read(window, values, valid)
        holes = [Hole(part, loss.path, loss.reason) for part, loss in lost]
        gaps = [part for part, _ in lost]
        for gap in gaps:
            valid[gap.shift(-window.row, -window.col).slices] = False
        for part in around(window, gaps):
            inside = part.shift(-window.row, -window.col).slices
            holes += self._read(part, values[inside], valid[inside])
        return holes

    def _read(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        if not any(block.clip(window) for block in self._broken):
            try:
                self._main = self._main or _Handle(self._path, self._bands)
                self._read_part(self._main, window, values, valid)
                return []
            except _FAILURES as error:
                logger.debug("%s: %s at %s, trying block by block", self._path, brief_reason(error), window)
                need_descriptors(_SPARE)  # too few look like a damaged file
                self._distrust()
        return self._salvage(window, values, valid)

    def _salvage(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        """Read a window block by block of the file; what fails for good is a hole."""
        holes: list[Hole] = []
        for block in self._blocks(window):
            part = block.clip(window)
            assert part is not None, "blocks are those that the window touches"
            inside = part.shift(-window.row, -window.col).slices
            reason = self._broken.get(block)
            if reason is None:
                reason = self._try_part(part, values[inside], valid[inside])
                if reason is None:
                    continue
                # Whatever reads this block later must see the same: remembered, not tried again.
                self._broken[block] = reason
                logger.info("unreadable block of %s at %s: %s", self._path, block, reason)
            valid[inside] = False
            holes.append(Hole(part, self._path, reason))
        return joined(holes)

    def _blocks(self, window: Window) -> Iterator[Window]:
        """Blocks of the file that a window touches."""
        height, width = self._block
        for row in range(window.row // height * height, window.row_end, height):
            for col in range(window.col // width * width, window.col_end, width):
                yield Window(row, col, height, width)

    def _try_part(self, part: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> str | None:
        """Read a part, more than once if need be; why it failed, None where it did not."""
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                if self._alone is None and self._steady:
                    self._alone = self._main
                if self._alone is None:
                    with rasterio.Env(GDAL_NUM_THREADS="1"):
                        self._alone = _Handle(self._path, self._bands)
                self._read_part(self._alone, part, values, valid)
                return None
            except _FAILURES as error:
                reason = brief_reason(error)
                need_descriptors(_SPARE)
                self._distrust()
        return reason

    def _read_part(
        self, handle: _Handle, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]
    ) -> None:
        """Read values and validity; `valid` is touched only if all of it could be read."""
        listen()
        where = RasterioWindow(window.col, window.row, window.width, window.height)
        if isinstance(handle.dataset, ZarrRaster):
            _refuse_unwritten(handle.dataset, self._bands, where)
        pixels, opacity = self._read_values(handle, where, values)
        checks = [plane > 0 for plane in opacity] + [mask(where) for mask in handle.masks]
        heed()
        for plane, place, band in zip(pixels, self._places, handle.bands, strict=True):
            if plane.dtype.kind == "f":
                # As kept: float64 may be too large for it; whole numbers keep no sign of it.
                checks.append(np.isfinite(values[:, :, place] if values.dtype.kind == "f" else plane))
            if band.nodata is not None and not math.isnan(band.nodata):
                checks.append(differs(plane, band.nodata))
        for check in checks:
            valid &= check

    def _read_values(
        self, handle: _Handle, where: RasterioWindow, values: NDArray[Any]
    ) -> tuple[NDArray[Any], Sequence[NDArray[Any]]]:
        """Fill the places of this file in `values`.

        Returns:
            The numbers as (band, y, x) in the file's own type, and (y, x) of each band of opacity.
        """
        dataset, alphas = handle.dataset, handle.opacities
        apart = any(dataset.dtypes[index - 1] != self._dtype for index in alphas)
        if self._slice is not None and self._dtype == values.dtype and self._plain and not alphas:
            target = values[:, :, self._slice].transpose(2, 0, 1)  # a view: GDAL writes with its strides
            dataset.read(self._indexes, window=where, out=target)
            return target, ()
        # In one read: threads that decode keep nothing of a block for a second one.
        indexes = self._indexes if apart else [*self._indexes, *alphas]
        read: NDArray[Any] = dataset.read(indexes, window=where, out_dtype=self._dtype)
        pixels, opacity = read[: len(self._indexes)], list(read[len(self._indexes) :])
        if apart:
            opacity = [dataset.read(index, window=where) for index in alphas]
        with np.errstate(over="ignore"):  # a float64 too large for float32 becomes inf, which is invalid
            for place, plane, band in zip(self._places, pixels, self._bands, strict=True):
                values[:, :, place] = plane if band.plain else convert(plane, band, values.dtype)
        return pixels, opacity


def _refuse_unwritten(raster: ZarrRaster, bands: Sequence[BandSource], where: RasterioWindow) -> None:
    """Raise RasterioError where numbers of a window would be those of chunks that are not in the store.

    Whether they were never written or are lost, nobody can tell. Where they say that there is no value, that
    is so in either case.
    """
    fill = raster.fill
    if math.isnan(fill) or all(band.nodata == fill for band in bands):
        return
    if name := raster.unwritten([band.index for band in bands], where):
        raise RasterioIOError(
            f"chunk {name} is not in the store, and {fill:g} would count as its pixels; if it was left out "
            f"because it holds nothing else, give --nodata {fill:g}"
        )


def around(window: Window, gaps: Sequence[Window]) -> Iterator[Window]:
    """What is left of a window beside gaps in it, as rectangles: rows of it between the edges of gaps."""
    rows = sorted({window.row, window.row_end, *(g.row for g in gaps), *(g.row_end for g in gaps)})
    for top, bottom in itertools.pairwise(rows):
        col = window.col
        for gap in sorted((g for g in gaps if g.row <= top and g.row_end >= bottom), key=lambda g: g.col):
            if gap.col > col:
                yield Window(top, col, bottom - top, gap.col - col)
            col = max(col, gap.col_end)
        if col < window.col_end:
            yield Window(top, col, bottom - top, window.col_end - col)


def joined(holes: Sequence[Hole]) -> list[Hole]:
    """Merge holes that lie directly under each other: a lost stretch of one-row strips is one hole."""
    joined: list[Hole] = []
    for hole in holes:
        above = joined[-1] if joined else None
        if above and above.path == hole.path and _continues(above.window, hole.window):
            window = above.window
            tall = Window(window.row, window.col, window.height + hole.window.height, window.width)
            joined[-1] = Hole(tall, above.path, above.reason)
        else:
            joined.append(hole)
    return joined


def _continues(above: Window, below: Window) -> bool:
    return (above.col, above.width, above.row_end) == (below.col, below.width, below.row)
