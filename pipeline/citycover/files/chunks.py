"""Pixels of an array of a Zarr store: chunks decoded once, and those kept that will be asked for again."""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import env
from rasterio.errors import RasterioError, RasterioIOError

from citycover.errors import CitycoverError
from citycover.files.folders import folder_of
from citycover.files.remote import RemotePath

_ACROSS = (frozenset({"y", "lat", "latitude", "northing"}), frozenset({"x", "lon", "longitude", "easting"}))
"""What dimensions down and across are called."""

_TIMES = frozenset({"time", "t", "date", "valid_time"})

_CACHE = 64 << 20
"""Bytes of decoded chunks that are kept where nobody told GDAL how many."""

_OWNERS = itertools.count()


@contextmanager
def as_raster_error() -> Iterator[None]:
    """What zarr-python and its codecs raise, as what rasterio does: each codec fails in a way of its own."""
    try:
        yield
    except (RasterioError, CitycoverError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - codecs are plugins, and raise what they like
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise RasterioIOError(f"{kind}{error}") from None


@dataclass(frozen=True, slots=True)
class Axes:
    """Which dimension of an array is which; all others are one long."""

    band: int | None
    y: int
    x: int
    time: int | None = None
    """None: there is one date at most."""

    @classmethod
    def of(cls, names: Sequence[str | None], shape: Sequence[int], said: Sequence[str] | None) -> Axes:
        """Find them by name, or as the last two.

        Args:
            names: of the dimensions.
            shape: of the array.
            said: names of those in space, down and across the last; None: nothing says it.

        Raises:
            ValueError: it is no raster, or more than one.
        """
        if len(shape) < 2:
            raise ValueError(f"it has {len(shape)} dimensions")
        known = [{name.lower()} for name in said[-2:]] if said and len(said) > 1 else _ACROSS
        down, across = ([i for i, name in enumerate(names) if (name or "").lower() in one] for one in known)
        y, x = (down[0], across[0]) if down and across else (len(shape) - 2, len(shape) - 1)
        rest = [i for i in range(len(shape)) if i not in {y, x}]
        long = [i for i in rest if shape[i] > 1]
        times = [i for i in long if (names[i] or "").lower() in _TIMES]
        bands = [i for i in long if i not in times]
        if len(times) > 1 or len(bands) > 1:
            sides = ", ".join(f"{names[i] or 'unnamed'} {shape[i]}" for i in long)
            raise ValueError(f"it holds several rasters ({sides}); write the one that is meant: .isel(...)")
        return cls(bands[0] if bands else None, y, x, times[0] if times else None)

    @property
    def kept(self) -> list[int]:
        """Those of a raster, as (band, y, x) or (y, x)."""
        return [at for at in (self.band, self.y, self.x) if at is not None]


@dataclass
class _Kept:
    """Decoded chunks of all arrays of the process, the latest used; as GDAL keeps blocks of all its files."""

    chunks: OrderedDict[tuple[int, ...], NDArray[Any]] = field(default_factory=OrderedDict)
    size: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: tuple[int, ...]) -> NDArray[Any] | None:
        with self.lock:
            if key in self.chunks:
                self.chunks.move_to_end(key)
            return self.chunks.get(key)

    def put(self, key: tuple[int, ...], chunk: NDArray[Any]) -> None:
        most = env.getenv().get("GDAL_CACHEMAX", _CACHE) if env.hasenv() else _CACHE
        with self.lock:
            if key not in self.chunks:
                self.chunks[key], self.size = chunk, self.size + chunk.nbytes
            while self.size > most and len(self.chunks) > 1:
                self.size -= self.chunks.popitem(last=False)[1].nbytes

    def drop(self, owner: int) -> None:
        with self.lock:
            for key in [key for key in self.chunks if key[0] == owner]:
                self.size -= self.chunks.pop(key).nbytes


_KEPT = _Kept()


class Chunks:
    """An array as (band, y, x), whatever the order of its dimensions; read in whole chunks."""

    def __init__(self, array: Any, axes: Axes, path: str, date: int = 0) -> None:
        """Touches no pixel.

        Args:
            array: of zarr-python.
            axes: of it.
            path: of its folder.
            date: which is read, where it has several.
        """
        self._date = date
        self._array, self._axes, self._place, self._owner = array, axes, folder_of(path), next(_OWNERS)
        self._objects: Container[str] | None = None
        last = array.compressors[-1] if array.compressors and array.shards is None else None
        self._blosc = "blosc" in type(last).__name__.lower()
        self.dtype = np.dtype(array.dtype).newbyteorder("=")
        self.shape = self._sides(array.shape)
        """(band, y, x)."""
        self.chunk = self._sides(array.chunks)
        """(band, y, x) of what is decoded as one piece."""
        self._file = self._sides(array.shards or array.chunks)

    def _sides(self, of: Sequence[int]) -> tuple[int, int, int]:
        axes = self._axes
        return 1 if axes.band is None else int(of[axes.band]), int(of[axes.y]), int(of[axes.x])

    def close(self) -> None:
        """Forget what was decoded."""
        _KEPT.drop(self._owner)

    def unwritten(self, bands: Sequence[int], rows: range, cols: range) -> str | None:
        """A file that bands of a part need and that is not there, by its name; None: all are."""
        names = self._files(bands, rows, cols)
        return next((name for name in names if not self._is_there(name)), None)

    def _is_there(self, name: str) -> bool:
        """Of an object store all names are asked for at once: each look would be a request."""
        if isinstance(self._place, Path) or (isinstance(self._place, RemotePath) and not self._place.listed):
            return (self._place / name).is_file()
        if self._objects is None:
            self._objects = frozenset(self._place.below())
        return name in self._objects

    def _files(self, bands: Sequence[int], rows: range, cols: range) -> Iterator[str]:
        """Names, below the array's, of the files that bands of a part lie in."""
        spans = [range(1)] * self._array.ndim
        if (time := self._axes.time) is not None:
            at_file = self._date // (self._array.shards or self._array.chunks)[time]
            spans[time] = range(at_file, at_file + 1)
        parts = (range(min(bands), max(bands) + 1), rows, cols)
        for at, part, side in zip(
            (self._axes.band, self._axes.y, self._axes.x), parts, self._file, strict=True
        ):
            if at is not None:
                spans[at] = range(part.start // side, (part.stop - 1) // side + 1)
        for place in itertools.product(*spans):
            yield self._array.metadata.encode_chunk_key(place)

    def read(
        self, bands: Sequence[int], rows: NDArray[np.intp], cols: NDArray[np.intp], values: NDArray[Any]
    ) -> None:
        """Fill (band, y, x) `values` with pixels of bands at ascending rows and columns.

        Raises:
            RasterioError: a chunk cannot be decoded.
        """
        depth, high, wide = self.chunk
        across = list(_pieces(cols, wide, self.shape[2]))
        for layer in dict.fromkeys(band // depth for band in bands):
            into = [place for place, band in enumerate(bands) if band // depth == layer]
            own = [bands[place] - layer * depth for place in into]
            for down in _pieces(rows, high, self.shape[1]):
                keep = [right.chunk for right in across if not (down.whole and right.whole)]
                chunks = self._chunks(layer, down.chunk, [right.chunk for right in across], keep)
                for right, chunk in zip(across, chunks, strict=True):
                    values[into, down.into, right.into] = chunk[own][:, down.inside][:, :, right.inside]

    def _chunks(self, layer: int, row: int, cols: Sequence[int], keep: Sequence[int]) -> list[NDArray[Any]]:
        """Decoded (band, y, x) chunks of a row; those that are missing side by side are decoded together."""
        found = {col: _KEPT.get((self._owner, layer, row, col)) for col in cols}
        missing = [col for col, chunk in found.items() if chunk is None]
        kept, wide = set(keep), self.chunk[2]
        for _, run in itertools.groupby(enumerate(missing), lambda one: one[1] - one[0]):
            side_by_side = [col for _, col in run]
            decoded = self._decode(layer, row, side_by_side)
            for place, col in enumerate(side_by_side):
                found[col] = chunk = decoded[:, :, place * wide : (place + 1) * wide]
                if col in kept:
                    _KEPT.put((self._owner, layer, row, col), chunk.copy())
        return [chunk for chunk in found.values() if chunk is not None]

    def _decode(self, layer: int, row: int, cols: Sequence[int]) -> NDArray[Any]:
        """(band, y, x) of chunks side by side, cut at the edges of the array."""
        where: list[int | slice] = [0] * self._array.ndim
        if self._axes.time is not None:
            where[self._axes.time] = self._date
        self._refuse_cut(layer, row, cols)
        starts = ((layer, layer + 1), (row, row + 1), (cols[0], cols[-1] + 1))
        for at, (first, end), side in zip(
            (self._axes.band, self._axes.y, self._axes.x), starts, self.chunk, strict=True
        ):
            if at is not None:
                where[at] = slice(first * side, end * side)
        with as_raster_error():
            read = np.asarray(self._array[tuple(where)])
        kept = self._axes.kept
        read = read.transpose([sorted(kept).index(at) for at in kept]).astype(self.dtype, copy=False)
        return read if self._axes.band is not None else read[None]

    def _refuse_cut(self, layer: int, row: int, cols: Sequence[int]) -> None:
        """Raise RasterioError for a chunk in Blosc that lost its end, of which the codec takes no notice."""
        if not self._blosc or not isinstance(self._place, Path):  # others are there wholly or not at all
            return
        depth, high, wide = self.chunk
        where = (
            [layer * depth],
            range(row * high, (row + 1) * high),
            range(cols[0] * wide, (cols[-1] + 1) * wide),
        )
        for name in self._files(*where):
            try:
                with (self._place / name).open("rb") as file:
                    head, size = file.read(16), os.fstat(file.fileno()).st_size
            except FileNotFoundError:
                continue
            said = int.from_bytes(head[12:], "little")
            if len(head) < 16 or said > size:
                raise RasterioIOError(f"chunk {name} is cut: it has {size} of {said} bytes")


@dataclass(frozen=True, slots=True)
class _Piece:
    """What of a row of places lies in one chunk."""

    chunk: int
    into: slice
    """Where it stands in the row."""
    inside: slice | NDArray[np.intp]
    """Where it lies in the chunk."""
    whole: bool
    """Whether it is all of the chunk."""


def _pieces(places: NDArray[np.intp], side: int, length: int) -> Iterator[_Piece]:
    """Ascending places along an axis, chunk by chunk."""
    ends = [*np.flatnonzero(np.diff(places // side)) + 1, len(places)]
    for start, end in itertools.pairwise([0, *map(int, ends)]):
        chunk = int(places[start]) // side
        inside = places[start:end] - chunk * side
        first, last = int(inside[0]), int(inside[-1])
        dense = last - first + 1 == end - start
        whole = dense and end - start == min(side, length - chunk * side)
        yield _Piece(chunk, slice(start, end), slice(first, last + 1) if dense else inside, whole)
