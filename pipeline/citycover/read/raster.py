"""RasterReader: bands of one group from the files that hold them, through rasterio.

A window is read file by file, all bands of a file in one call, straight into the caller's array where the
pixel types agree. If GDAL cannot read it, the window is read again block by block of the file: blocks that
still fail are holes, everything else is kept. Then each file's say on validity (nodata, mask, alpha, NaN)
is combined: a pixel is valid where all bands are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from citycover.errors import SceneError
from citycover.files.gdal import READ_OPTIONS
from citycover.geometry.window import Window
from citycover.read.reader import Hole, Reader
from citycover.read.resampling import Kind, axis_taps, resample, store
from citycover.scene.scene import BandSource, SceneGroup

_ATTEMPTS = 2
"""How often a block is tried before it is a hole: networks fail for a moment, disks do not."""

_CHUNK_PIXELS = 1 << 24
"""Input pixels held at a time while resampling."""

_MaskReader = Callable[[RasterioWindow], NDArray[np.bool_]]

logger = logging.getLogger(__name__)


class RasterReader:
    """Reader of a scene group that lies in files; files are opened at the first read, in its thread."""

    def __init__(
        self,
        group: SceneGroup,
        resampling: str | None = None,
        *,
        cache_bytes: int = 8 << 20,
        threads: int = 1,
    ) -> None:
        """Prepare to read; touches no file.

        Args:
            group: what to read.
            resampling: `average` or `bilinear` where the group's grid is not that of its files
                (`Scene.resampling`).
            cache_bytes: GDAL's cache of decoded blocks; raised to two blocks of every file if it is less.
            threads: threads that GDAL may decode with.
        """
        self._group = group
        self._kind = cast("Kind | None", resampling)
        self._options = READ_OPTIONS | {"GDAL_CACHEMAX": cache_bytes, "GDAL_NUM_THREADS": str(threads)}
        self._files: list[_File] = []

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the raster."""
        return self._group.shape

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self._group.bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of what is read."""
        return np.dtype(self._group.dtype)

    @property
    def block(self) -> tuple[int, int]:
        """(y, x) shape in which pixels are compressed."""
        return self._group.block

    def read_into(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Hole, ...]:
        """Read one window, which lies inside the raster; see `Reader.read_into`."""
        with rasterio.Env(**self._options):
            if not self._files:
                self._open()
            if self._kind is None:
                return tuple(self._read_native(window, values, valid))
            return tuple(self._read_resampled(window, values, valid, self._kind))

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        for file in self._files:
            file.dataset.close()
        self._files = []

    def _open(self) -> None:
        places: dict[str, list[int]] = {}
        for place, band in enumerate(self._group.bands):
            places.setdefault(band.path, []).append(place)
        try:
            self._files = [_File(path, self._group.bands, at) for path, at in places.items()]
        except RasterioError as error:
            raise SceneError(
                f"a file of the scene could be described but not opened to read it ({_reason(error)}); "
                f"its files must stay where they are during a run; bring it back and start again"
            ) from None
        # A cache that cannot hold two blocks would decode the same block for every window in it.
        floor = sum(2 * file.block_bytes for file in self._files)
        self._options["GDAL_CACHEMAX"] = max(self._options["GDAL_CACHEMAX"], floor)

    def _read_native(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        valid[...] = True
        return [hole for file in self._files for hole in file.read(window, values, valid)]

    def _read_resampled(
        self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_], kind: Kind
    ) -> Iterator[Hole]:
        """Read and weigh a few output rows at a time, so that memory does not grow with the scale."""
        dataset = self._files[0].dataset
        to_file = ~dataset.transform * self._group.grid.transform
        cols = axis_taps(window.col, window.col_end, to_file.a, dataset.width, kind)
        step = max(1, int(_CHUNK_PIXELS / (cols.needed * max(1.0, to_file.e))))
        for top in range(window.row, window.row_end, step):
            bottom = min(top + step, window.row_end)
            rows = axis_taps(top, bottom, to_file.e, dataset.height, kind)
            source = Window(rows.first, cols.first, rows.needed, cols.needed)
            pixels = np.empty((source.height, source.width, self.bands), self.dtype)
            seen = np.empty((source.height, source.width), np.bool_)
            holes = self._read_native(source, pixels, seen)
            weighed, kept = resample(pixels, seen, rows, cols)
            part = slice(top - window.row, bottom - window.row)
            store(weighed, values[part])
            valid[part] = kept
            for hole in holes:
                touched = _scaled(hole.window, to_file.e, to_file.a).clip(window)
                if touched:
                    yield Hole(touched, hole.path, hole.reason)


def _scaled(window: Window, scale_y: float, scale_x: float) -> Window:
    """The output pixels that a window of the file touches."""
    row, col = math.floor(window.row / scale_y), math.floor(window.col / scale_x)
    row_end, col_end = math.ceil(window.row_end / scale_y), math.ceil(window.col_end / scale_x)
    return Window(row, col, row_end - row, col_end - col)


class _File:
    """An open file and the places that its bands take in the group."""

    def __init__(self, path: str, bands: Sequence[BandSource], places: Sequence[int]) -> None:
        self.dataset = rasterio.open(path)
        self._path = path
        self._places = list(places)
        self._bands = [bands[place] for place in places]
        self._indexes = [band.index for band in self._bands]
        self._dtype = np.result_type(*(np.dtype(band.dtype) for band in self._bands))
        self._broken: dict[Window, str] = {}
        first, last = self._places[0], self._places[-1]
        in_a_row = self._places == list(range(first, last + 1))
        self._slice = slice(first, last + 1) if in_a_row else None
        self._masks = self._mask_readers()

    @property
    def block_bytes(self) -> int:
        """Decoded size of the largest block of all bands: interleaved bands are decoded together."""
        pixels = max(rows * cols for rows, cols in self.dataset.block_shapes)
        return int(pixels * sum(np.dtype(name).itemsize for name in self.dataset.dtypes))

    def _mask_readers(self) -> list[_MaskReader]:
        """What to ask for validity, beside the numbers themselves."""
        dataset = self.dataset
        readers: list[_MaskReader] = []
        validities = {band.validity for band in self._bands}
        if "alpha" in validities:
            alphas = [
                i for i, c in zip(dataset.indexes, dataset.colorinterp, strict=True) if c.name == "alpha"
            ]
            # The least opacity means that something was seen: soft edges of a mosaic are imagery.
            readers += [partial(self._opacity, i) for i in alphas]
        if "mask" in validities:
            masked = [band for band in self._bands if band.validity == "mask"]
            shared = all(
                "per_dataset" in {f.name for f in dataset.mask_flag_enums[b.index - 1]} for b in masked
            )
            readers += [partial(self._mask, band.index) for band in (masked[:1] if shared else masked)]
        return readers

    def _opacity(self, index: int, where: RasterioWindow) -> NDArray[np.bool_]:
        return cast("NDArray[np.bool_]", self.dataset.read(index, window=where) > 0)

    def _mask(self, index: int, where: RasterioWindow) -> NDArray[np.bool_]:
        return cast("NDArray[np.bool_]", self.dataset.read_masks(index, window=where) > 0)

    def read(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> list[Hole]:
        """Read the file's bands of a window into their places; clear `valid` where they are not."""
        if not self._touches_broken(window):
            try:
                self._read_part(window, values, valid)
                return []
            except RasterioError as error:
                logger.debug("%s: %s at %s, trying block by block", self._path, _reason(error), window)
        return self._salvage(window, values, valid)

    def _touches_broken(self, window: Window) -> bool:
        return any(block.clip(window) for block in self._broken)

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
        return _joined(holes)

    def _blocks(self, window: Window) -> Iterator[Window]:
        """Blocks of the file that a window touches."""
        height, width = self.dataset.block_shapes[self._indexes[0] - 1]
        for row in range(window.row // height * height, window.row_end, height):
            for col in range(window.col // width * width, window.col_end, width):
                yield Window(row, col, height, width)

    def _try_part(self, part: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> str | None:
        """Read a part, more than once if need be; why it failed, None where it did not."""
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                self._read_part(part, values, valid)
                return None
            except RasterioError as error:
                reason = _reason(error)
        return reason

    def _read_part(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Read values and validity; `valid` is touched only if all of it could be read."""
        where = RasterioWindow(window.col, window.row, window.width, window.height)
        pixels = self._read_values(where, values)
        checks = [mask(where) for mask in self._masks]
        for plane, place, band in zip(pixels, self._places, self._bands, strict=True):
            if plane.dtype.kind == "f":
                checks.append(np.isfinite(values[:, :, place]))  # as kept: float64 may be too large for it
            if band.nodata is not None and not math.isnan(band.nodata):
                checks.append(plane != _as_pixel(band.nodata, plane.dtype))
        for check in checks:
            valid &= check

    def _read_values(self, where: RasterioWindow, values: NDArray[Any]) -> NDArray[Any]:
        """Fill the places of this file in `values`; the numbers as (band, y, x) in the file's own type."""
        if self._slice is not None and self._dtype == values.dtype:
            target = values[:, :, self._slice].transpose(2, 0, 1)  # a view: GDAL writes with its strides
            self.dataset.read(self._indexes, window=where, out=target)
            return target
        pixels: NDArray[Any] = self.dataset.read(self._indexes, window=where, out_dtype=self._dtype)
        with np.errstate(over="ignore"):  # a float64 too large for float32 becomes inf, which is invalid
            for place, plane in zip(self._places, pixels, strict=True):
                values[:, :, place] = plane
        return pixels


def _as_pixel(nodata: float, dtype: np.dtype[Any]) -> Any:
    """A tag as a pixel of the file holds it: tags are float64, pixels are often the nearest float32."""
    if dtype.kind in "iu":
        return int(nodata)
    with np.errstate(over="ignore"):
        return dtype.type(nodata)


def _reason(error: BaseException) -> str:
    """What GDAL said first: the last exception only says that there was one before."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(getattr(error, "errmsg", "") or error)
    return " ".join(text.split())


def _joined(holes: Sequence[Hole]) -> list[Hole]:
    """Merge holes that lie directly under each other: a lost stretch of one-row strips is one hole."""
    joined: list[Hole] = []
    for hole in holes:
        above = joined[-1] if joined else None
        if above and _continues(above.window, hole.window):
            window = above.window
            tall = Window(window.row, window.col, window.height + hole.window.height, window.width)
            joined[-1] = Hole(tall, above.path, above.reason)
        else:
            joined.append(hole)
    return joined


def _continues(above: Window, below: Window) -> bool:
    return (above.col, above.width, above.row_end) == (below.col, below.width, below.row)


_: type[Reader] = RasterReader
