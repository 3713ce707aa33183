"""Class rasters: rasters of class numbers, read strip by strip, with ranks in a legend for pixels."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from citycover.classes.legend import legends_that_fit
from citycover.classes.nearest import Nearest
from citycover.classes.table import NO_CLASS, UNKNOWN, ClassTable
from citycover.errors import ConfigError
from citycover.files.gdal import brief_reason, open_raster, options_for
from citycover.files.heed import heed, listen
from citycover.files.remote import Place
from citycover.files.zarr import ZarrRaster
from citycover.geometry.crs import tie
from citycover.geometry.footprint import degrees_text
from citycover.geometry.grid import crs_of, grid_of, same_grid
from citycover.geometry.overlap import find_overlaps, seen_from
from citycover.geometry.window import Window

Progress = Callable[[float], object]
"""Is told the share that is done, 0 to 1."""

_STRIP_PIXELS = 2**22

_CACHE_BYTES = 256 * 2**20

_TOLERANCE = 0.001
"""Pixels by which a place may be off where two CRS differ: GDAL projects a few points exactly, and the rest
by lines between them. Its default is an eighth."""

_MOST_IDS = 4096
"""No legend has so many classes: a raster with more different numbers is an image or a height model."""


class ClassRaster:
    """A raster of class numbers, on its own grid or seen on another.

    On another grid the nearest pixel counts: what the raster says at the centre of each pixel there. Memory
    does not depend on the size of the raster.

    Args:
        path: any raster that GDAL reads, of one band beside opacity; an array of a Zarr store; of other files
            in an object store a GeoTIFF.
        role: `map`, `truth` or `labels`, for messages.
        onto: grid to read on; None: its own.

    Raises:
        ConfigError: not readable, of several bands, or on no grid that can be tied to `onto`.
    """

    def __init__(self, path: Place | str, role: str = "map", onto: GeoBox | None = None) -> None:
        self.path, self.role = path, role
        self._stack = ExitStack()
        try:
            with rasterio.Env(**options_for(path)), warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)  # `located` says it better
                self.dataset: Any = self._stack.enter_context(open_raster(path))
                self._refuse_bands()
                self.grid = grid_of(self.dataset)
                self._opacity = _alpha_band(self.dataset)
                self._warped = onto is not None and not _same(self.grid, onto)
                if onto is not None and self._warped:
                    tie(crs_of(self.located(onto)), crs_of(onto), f"{role} {path}")
                    self.dataset = _seen_on(self.dataset, onto, self._stack)
                    self.grid = onto
        except RasterioError as error:
            self.close()
            raise ConfigError(f"{role} {path} cannot be opened as a raster: {brief_reason(error)}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._stack.close()

    def __enter__(self) -> ClassRaster:
        self._stack.enter_context(rasterio.Env(**options_for(self.path), GDAL_CACHEMAX=_CACHE_BYTES))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def whole(self) -> Window:
        """All pixels."""
        return Window(0, 0, *(int(n) for n in self.grid.shape))

    def strips(self, part: Window | None = None, progress: Progress | None = None) -> Iterator[Window]:
        """Windows of whole rows of a part, from top to bottom, each of about four million pixels."""
        part = part or self.whole
        rows = max(1, _STRIP_PIXELS // part.width)
        for row in range(part.row, part.row_end, rows):
            window = Window(row, part.col, min(rows, part.row_end - row), part.width)
            yield window
            if progress is not None:
                progress((window.row_end - part.row) / part.height)

    def read(self, window: Window) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        """Numbers and where they are valid (by nodata tag, mask or alpha), both (y, x).

        Raises:
            ConfigError: the pixels cannot be read, or are no whole numbers.
        """
        try:
            listen()
            labels, valid = self._pixels(window)
            heed()
        except RasterioError as error:
            raise ConfigError(
                f"{self.role} {self.path} cannot be read in rows {window.row} to {window.row_end - 1}: "
                f"{brief_reason(error)}; numbers there would count as a class; fetch or copy the file again"
            ) from None
        return self._whole_numbers(labels, valid), valid

    def _pixels(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        where = RasterioWindow(window.col, window.row, window.width, window.height)
        if isinstance(self.dataset, Nearest):
            planes, valid = self.dataset.read([1], window)
        elif isinstance(self.dataset, ZarrRaster):
            planes, valid = self.dataset.read_valid([1], where)
        else:
            return self.dataset.read(1, window=where), self._valid(where)
        return planes[0], valid

    def _valid(self, where: RasterioWindow) -> NDArray[np.bool_]:
        """GDAL's masks know opacity of uint8 and uint16 alone, so its band is read as numbers."""
        if self._warped:
            opaque: NDArray[np.bool_] = self.dataset.read(self.dataset.count, window=where) > 0
            return opaque
        valid: NDArray[np.bool_] = self.dataset.read_masks(1, window=where) > 0
        if self._opacity is not None:
            valid &= self.dataset.read(self._opacity, window=where) > 0
        return valid

    def read_ranks(self, window: Window, table: ClassTable) -> NDArray[np.int16]:
        """(y, x) rank of each pixel's class, or NO_CLASS.

        Raises:
            ConfigError: it holds ids that the table does not know; they are listed with their counts.
        """
        ranks, stray = self.read_known(window, table)
        if stray.size:
            refuse_unknown(self.path, self.role, table, count_ids(self.path, self.role))
        return ranks

    def read_known(self, window: Window, table: ClassTable) -> tuple[NDArray[np.int16], NDArray[np.integer]]:
        """(y, x) rank of each pixel's class, or NO_CLASS; (n,) ids that the table lacks, of each such pixel.

        Raises:
            ConfigError: as for `read`.
        """
        labels, valid = self.read(window)
        ranks = table.ranks_of(labels)
        ranks[~valid] = NO_CLASS
        if ranks.min(initial=NO_CLASS) != UNKNOWN:
            return ranks, labels[:0].ravel()
        unknown = ranks == UNKNOWN
        ranks[unknown] = NO_CLASS
        return ranks, labels[unknown]

    def _whole_numbers(self, labels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.integer]:
        if labels.dtype.kind in "iu":
            return labels
        if labels.dtype.kind == "f":  # some tools write classes so
            valid &= np.isfinite(labels)
            whole = np.where(valid, labels, 0)
            if (whole == np.round(whole)).all():
                return whole.astype(np.int64)
        raise ConfigError(
            f"{self.role} {self.path} holds {labels.dtype} numbers that are not whole; "
            "a class raster holds class ids; name such a file"
        )

    def part_under(self, grid: GeoBox) -> Window | None:
        """The pixels of a raster on its own grid that may lie under another; None: it lies elsewhere.

        Raises:
            ConfigError: one of the two has no CRS, or nothing ties them.
        """
        return seen_from(Window(0, 0, *(int(n) for n in grid.shape)), grid, self.located(grid), slack=0)

    def located(self, other: GeoBox) -> GeoBox:
        """The grid, if it and another one say where they lie.

        Raises:
            ConfigError: one does not.
        """
        if self.grid.crs is None or other.crs is None:
            raise ConfigError(
                f"{self.role} {self.path} and the raster that it is laid on have different grids and not "
                "both have a CRS; write one into the files (gdal_edit.py -a_srs EPSG:...), or give files of "
                "the same shape"
            )
        return self.grid

    def _refuse_bands(self) -> None:
        """Colours or probabilities are no class numbers."""
        dataset = self.dataset
        if dataset.count == 1 or dataset.colorinterp[1:] == (ColorInterp.alpha,):
            return
        raise ConfigError(
            f"{self.role} {self.path} has {dataset.count} bands; needed is one band of class numbers; take "
            "it out with gdal_translate -b 1, or turn colours into numbers first"
        )


def refuse_apart(raster: ClassRaster, other: ClassRaster) -> None:
    """Refuse to compare rasters of two places, before hours of reading nothing.

    Raises:
        ConfigError: they do not overlap.
    """
    one, two = raster.grid, other.grid
    if one.crs is None or two.crs is None or find_overlaps([one, two])[0]:
        return
    raise ConfigError(
        f"{raster.role} {raster.path} covers {degrees_text(one)}, {other.role} {other.path} "
        f"{degrees_text(two)}: they do not overlap; check their CRS, or name files of one place"
    )


def count_ids(
    path: Place | str, role: str = "map", progress: Progress | None = None, under: GeoBox | None = None
) -> dict[int, int]:
    """Pixels of each number in a class raster, nodata left out, smallest number first.

    Args:
        path: as for `ClassRaster`.
        role: likewise.
        progress: is told how far it is.
        under: grid of an image; only what lies in its bounds is counted, in the raster's own pixels.

    Raises:
        ConfigError: not readable, or no class raster.
    """
    total: Counter[int] = Counter()
    with ClassRaster(path, role) as raster:
        part = raster.whole if under is None else raster.part_under(under)
        for window in raster.strips(part, progress) if part else ():
            labels, valid = raster.read(window)
            total.update(_histogram(labels[valid]))
            if len(total) > _MOST_IDS:
                raise ConfigError(
                    f"{role} {path} holds more than {_MOST_IDS} different numbers: it is an image or a "
                    "height model; name a raster of classes"
                )
    return dict(sorted(total.items()))


def name_legends(ids: Collection[int]) -> str:
    """The end of a message: which built-in legends hold these ids."""
    fits = legends_that_fit(ids)
    return (
        f"these built-in legends hold all its ids: {', '.join(fits)}" if fits else "no built-in legend does"
    )


def _histogram(labels: NDArray[np.integer]) -> dict[int, int]:
    if labels.dtype.itemsize <= 2:  # counting is many times faster than sorting
        every = np.arange(2 ** (8 * labels.dtype.itemsize), dtype=f"u{labels.dtype.itemsize}")
        counts = np.bincount(labels.view(every.dtype), minlength=len(every))
        seen = np.flatnonzero(counts)
        return dict(zip(every[seen].view(labels.dtype).tolist(), counts[seen].tolist(), strict=True))
    ids, counts = np.unique(labels, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def refuse_unknown(path: Place | str, role: str, table: ClassTable, counts: Mapping[int, int]) -> None:
    """Refuse a raster whose numbers a table does not know.

    Args:
        path: of the raster.
        role: as for `ClassRaster`.
        table: from its ids to ranks.
        counts: pixels of each of its ids.

    Raises:
        ConfigError: there are such; they are listed with the legends that know them.
    """
    stray = {i: n for i, n in counts.items() if table.ranks_of(np.array([i])) == UNKNOWN}
    if not stray:
        return
    option = "--map-legend" if role == "map" else "--legend"
    raise ConfigError(
        f"{role} {path} holds ids that {table.title} does not have: {listed(stray)}; "
        f"{name_legends(counts)}; say with {option} which one its numbers are written in"
    )


def listed(counts: Mapping[Any, int], unit: str = "px") -> str:
    """Things and how often they occur, the first dozen, for messages."""
    said = [f"{thing} ({n} {unit})" for thing, n in list(counts.items())[:12]]
    return ", ".join(said) + (f" and {len(counts) - 12} more" if len(counts) > 12 else "")


def _same(one: GeoBox, other: GeoBox) -> bool:
    if one.crs is None and other.crs is None:
        return bool(one.shape == other.shape and one.transform == other.transform)
    return same_grid(one, other)


def _alpha_band(dataset: Any) -> int | None:
    """Number of the band that holds opacity."""
    bands = zip(dataset.indexes, dataset.colorinterp, strict=True)
    return next((index for index, colour in bands if colour is ColorInterp.alpha), None)


def _seen_on(dataset: Any, grid: GeoBox, stack: ExitStack) -> Any:
    """A view of a raster on another grid; the last band of GDAL's is opacity: where it has pixels."""
    if isinstance(dataset, ZarrRaster):
        return Nearest(dataset, grid)
    view = WarpedVRT(
        dataset,
        crs=crs_of(grid).to_wkt(),
        transform=grid.transform,
        width=grid.shape[1],
        height=grid.shape[0],
        resampling=Resampling.nearest,
        add_alpha=_alpha_band(dataset) is None,
        tolerance=_TOLERANCE,
    )
    return stack.enter_context(view)
