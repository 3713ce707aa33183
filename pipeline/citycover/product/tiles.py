"""The tiles of one band of a COG, level by level: copied where the store has them, else encoded.

1.  What the store has is not made again: the raster and its first overviews lie there as the very frames
    that become tiles, and their lengths stand in its indexes. The coarsest of them is the *base*.
2.  For every two rows of tiles of the base, on several threads: put their half-size version into the one row
    of tiles that the next level keeps in memory. When that row is full it is encoded and halved in the same
    way, and so on up the pyramid. Encoded tiles go to one spill file a level. Memory: about two rows of tiles
    of the base, whatever the height.

A raster that lies in no store, and tiles of another codec than the store's, go the whole way of step 2.
Each overview is made from the level above it (`store/pyramid.py`). Pixels beyond the raster's edge are nodata
and do not vote.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol, TypeVar

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.product.tiff import TILE, BandInfo, frame_tiles
from citycover.store.levels import StoredRaster
from citycover.store.pyramid import HALVE, Resampling, level_shapes
from citycover.store.shard import ShardedArray
from citycover.store.statistics import Statistics, tile_statistics

T = TypeVar("T")
R = TypeVar("R")

Compression = Literal["zstd", "deflate"]

_ZSTD = Zstd(1)

_DEFLATE_LEVEL = 4
"""zlib's default, 6, is three times slower and saves some 10 % on land cover."""

_RUN = 4
"""Neighbouring tiles that one task encodes."""

_COPIED = 16
"""Neighbouring tiles that one task copies: at most 4 MiB."""


class TileSource(Protocol):
    """Pixels of a raster, by window; used from several threads at once."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        ...

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(y, x) pixels of a window that lies inside the raster."""
        ...


@dataclass(frozen=True, slots=True)
class ArraySource:
    """A raster in memory."""

    pixels: NDArray[np.uint8]
    """(y, x)."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def read(self, window: Window) -> NDArray[np.uint8]:
        """A view."""
        return self.pixels[window.slices]


_: tuple[type[TileSource], ...] = (ArraySource, ShardedArray, StoredRaster)


class TilePyramid:
    """Every level's tiles of a band: in the store, or encoded at the end of spill files."""

    def __init__(
        self,
        source: TileSource,
        band: BandInfo,
        compress: Compression,
        resampling: Resampling,
        pool: Executor,
        spills: Sequence[BinaryIO],
    ):
        self._shapes = level_shapes(source.shape, TILE)
        stored = source if isinstance(source, StoredRaster) else None
        self._sources: Sequence[TileSource] = stored.levels[: len(self._shapes)] if stored else [source]
        self._base = len(self._sources) - 1
        self._copied: Sequence[ShardedArray] = ()
        if stored is not None and compress == "zstd" and stored.levels[0].cell == (TILE, TILE):
            self._copied = stored.levels[: len(self._shapes)]
        self._nodata = band.nodata
        self._ids = band.legend.ids if band.legend is not None else ()
        self._compress: Compression = compress
        self._halve = HALVE[resampling]
        self._pool = pool
        self._spills = spills
        self._tiles = [(math.ceil(h / TILE), math.ceil(w / TILE)) for h, w in self._shapes]
        # One row of tiles for each level above the base; tiles of the base are never held together.
        self._rows = [
            np.full((TILE, across * TILE if level > self._base else 0), band.nodata, dtype=np.uint8)
            for level, (_, across) in enumerate(self._tiles)
        ]
        self._lengths: list[list[int]] = [[] for _ in self._shapes]
        self._blank = _compress(np.full((TILE, TILE), band.nodata, dtype=np.uint8), compress)
        self._counted = stored is not None
        self.statistics = stored.statistics if stored else Statistics()

    def build(self) -> None:
        """Make the tiles of all levels that are not copied."""
        if len(self._copied) == len(self._shapes):
            return
        for level in range(len(self._copied), self._base):
            self._add_all(level)
        self._add_all(self._base)

    def _add_all(self, level: int) -> None:
        """Encode a level that the source has, two rows of tiles at a time."""
        down, _ = self._tiles[level]
        for row in range(0, down, 2):
            self._add_rows(level, range(row, min(row + 2, down)))

    def _add_rows(self, level: int, rows: range) -> None:
        """Encode rows of tiles of a level, and of the levels above that become complete by it."""
        runs = [(level, row, col) for row in rows for col in range(0, self._tiles[level][1], _RUN)]
        for tiles, statistics in self._pool.map(self._run, runs):
            self._spills[level].write(frame_tiles(tiles))
            self._lengths[level] += map(len, tiles)
            self.statistics += statistics
        last = rows.stop == self._tiles[level][0]
        if self._base <= level < len(self._shapes) - 1 and (rows.stop % 2 == 0 or last):
            above = (rows.stop - 1) // 2
            self._add_rows(level + 1, range(above, above + 1))
            self._rows[level + 1][:] = self._nodata

    def _run(self, place: tuple[int, int, int]) -> tuple[list[bytes], Statistics]:
        """Encode neighbouring tiles; on the way, their half goes to the level above. Runs on the pool.

        Several at once, because numpy's calls on one tile are so short that threads would mostly wait for
        each other's interpreter lock.
        """
        level, row, first = place
        stop = min(first + _RUN, self._tiles[level][1])
        pixels = self._pixels(Window(row * TILE, first * TILE, TILE, (stop - first) * TILE), level)
        blank = not (pixels != self._nodata).any()
        if self._base <= level < len(self._shapes) - 1 and not blank:
            top, left = (row % 2) * TILE // 2, first * TILE // 2
            half = self._halve(pixels, self._nodata)
            self._rows[level + 1][top : top + half.shape[0], left : left + half.shape[1]] = half
        tiles = []
        if level >= len(self._copied):
            tiles = [self._encode(pixels[:, left : left + TILE]) for left in range(0, pixels.shape[1], TILE)]
        if level or self._counted:
            return tiles, Statistics()
        height = min(TILE, self._shapes[0][0] - row * TILE)
        width = min(pixels.shape[1], self._shapes[0][1] - first * TILE)
        return tiles, tile_statistics(pixels[:height, :width], self._nodata, self._ids)

    def _pixels(self, tiles: Window, level: int) -> NDArray[np.uint8]:
        """(y, x) of neighbouring tiles, nodata beyond the edge."""
        if level > self._base:
            return self._rows[level][:, tiles.col : tiles.col_end]
        pixels = np.full((tiles.height, tiles.width), self._nodata, dtype=np.uint8)
        inside = tiles.clip(Window(0, 0, *self._shapes[level]))
        assert inside is not None
        pixels[: inside.height, : inside.width] = self._sources[level].read(inside)
        return pixels

    def _encode(self, pixels: NDArray[np.uint8]) -> bytes:
        """One (TILE, TILE) tile; `self._blank` itself where no pixel is valid."""
        return _compress(pixels, self._compress) if (pixels != self._nodata).any() else self._blank

    @property
    def lengths(self) -> list[NDArray[np.uint32]]:
        """Bytes of each tile, by level: the full raster, then its overviews."""
        held = [np.where(n == 0, len(self._blank), n).ravel() for n in (a.lengths() for a in self._copied)]
        made = self._lengths[len(held) :]
        return [*(n.astype(np.uint32) for n in held), *(np.array(n, np.uint32) for n in made)]

    def copy(self, level: int, ahead: int) -> Iterator[bytes]:
        """The tiles of a level that is copied, between leaders and trailers, in the order of the file.

        Args:
            level: any; nothing of one that was encoded.
            ahead: how many runs of tiles may wait.
        """
        if level >= len(self._copied):
            return iter(())
        array, (down, across) = self._copied[level], self._tiles[level]

        def run(place: tuple[int, int]) -> bytes:
            row, first = place
            frames = array.frames(row, first, min(first + _COPIED, across))
            return frame_tiles(self._blank if frame is None else frame for frame in frames)

        return _ahead(self._pool, run, itertools.product(range(down), range(0, across, _COPIED)), ahead)


def _compress(pixels: NDArray[np.uint8], how: Compression) -> bytes:
    contiguous = np.ascontiguousarray(pixels)
    return (
        bytes(_ZSTD.encode(contiguous)) if how == "zstd" else zlib.compress(contiguous.data, _DEFLATE_LEVEL)
    )


def _ahead(pool: Executor, do: Callable[[T], R], items: Iterable[T], most: int) -> Iterator[R]:
    """Results in order, a few of them ahead of whoever takes them."""
    begun: deque[Future[R]] = deque()
    for item in items:
        begun.append(pool.submit(do, item))
        if len(begun) > most:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
