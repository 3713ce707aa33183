"""Cloud Optimized GeoTIFFs of uint8 bands, written in one pass.

GDAL's COG driver copies: it wants a finished GeoTIFF, builds overviews from it, and writes on one core.
Here the tiles go straight from the working store into the file. Strategy:

1.  For every two rows of tiles, on several threads: take each tile from the source, encode it unless the
    source holds it encoded already, and put its half-size version into the one row of tiles that the next
    level keeps in memory. When that row is full it is encoded in the same way, and so on up the pyramid.
    Encoded tiles go to one spill file a level. Memory: about two rows of tiles, whatever the height.
2.  Now every length is known: write the directories, then append the spill files, smallest overview first.

Each overview is made from the level above it (`pyramid`). Pixels beyond the raster's edge are nodata and
do not vote. Bands are planes of their own, one after the other: whoever wants one reads no other.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Literal, Protocol
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend
from citycover.geometry.window import Window
from citycover.product.pyramid import HALVE, Resampling
from citycover.product.statistics import Statistics, tile_statistics, with_statistics
from citycover.product.tiff import TILE, BandInfo, Level, compose_head, frame_tile, gdal_tags, level_shapes
from citycover.store.shard import ShardedArray

Compression = Literal["zstd", "deflate"]

_CODE: dict[Compression, int] = {"zstd": 50000, "deflate": 8}

_ZSTD = Zstd(1)

_DEFLATE_LEVEL = 4
"""zlib's default, 6, is three times slower and saves some 10 % on land cover."""

_COPY = 1 << 23

_RUN = 4
"""Neighbouring tiles that one task encodes."""


class TileSource(Protocol):
    """Pixels of a raster, by window; used from several threads at once."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        ...

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(y, x) pixels of a window that lies inside the raster."""
        ...

    def zstd_frame(self, tile: Window) -> bytes | None:
        """The pixels of `tile`, padded with nodata beyond the edge, as one zstd frame, if so held."""
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

    def zstd_frame(self, tile: Window) -> bytes | None:  # noqa: ARG002  (the protocol's)
        """Nothing is held encoded."""
        return None


_: tuple[type[TileSource], ...] = (ArraySource, ShardedArray)


@dataclass(frozen=True, slots=True)
class CogInfo:
    """A file that was written."""

    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""
    statistics: tuple[Statistics, ...]
    """Of each band."""


def write_cog(
    path: Path,
    sources: Sequence[TileSource],
    grid: GeoBox,
    bands: Sequence[BandInfo],
    *,
    compress: Compression = "zstd",
    resampling: Resampling = "mode",
    threads: int = 2,
) -> CogInfo:
    """Write `path` and, where there is something for it to say, `path.aux.xml`.

    Args:
        path: the file; its folder is also where the spill files go (as much space again, for a while).
        sources: the pixels of each band; of the same shape as `grid`.
        grid: crs and transform. South-up and rotated ones are stored as they are.
        bands: nodata, colours, names, tags of each; the nodata and the tags of the dataset are those of the
            first.
        compress: codec of the tiles.
        resampling: how overviews are made: `mode` for classes, `average` or `nearest` for quantities.
        threads: how many encode.
    """
    for source in sources:
        if source.shape != tuple(grid.shape):
            raise ValueError(f"source of shape {source.shape} on a grid of shape {tuple(grid.shape)}")
    shapes = level_shapes(sources[0].shape)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="cog"))
        spills = [
            stack.enter_context(TemporaryFile(dir=path.parent, prefix=f".{path.name}.")) for _ in shapes
        ]
        pyramids = []
        for source, band in zip(sources, bands, strict=True):
            pyramids.append(_Pyramid(source, band, compress, resampling, pool, spills))
            pyramids[-1].build()
        statistics = tuple(pyramid.statistics for pyramid in pyramids)
        told = [with_statistics(band, seen) for band, seen in zip(bands, statistics, strict=True)]
        tags, whole_crs = gdal_tags(grid, told)
        lengths = zip(*(pyramid.lengths for pyramid in pyramids), strict=True)
        levels = [
            Level(shape, np.array(list(chain(*own)), dtype=np.uint32), len(bands))
            for shape, own in zip(shapes, lengths, strict=True)
        ]
        head = compose_head(levels, tags, _CODE[compress])
        size, sha256 = _assemble(path, head, reversed(spills))
    wkt = None if whole_crs or grid.crs is None else grid.crs.to_wkt()
    if bands[0].legend is not None or wkt is not None:
        write_pam(path.with_name(path.name + ".aux.xml"), bands[0].legend, wkt)
    return CogInfo(size, sha256, statistics)


class _Pyramid:
    """Step 1 for one band: every level's encoded tiles, at the end of spill files."""

    def __init__(
        self,
        source: TileSource,
        band: BandInfo,
        compress: Compression,
        resampling: Resampling,
        pool: ThreadPoolExecutor,
        spills: Sequence[BinaryIO],
    ):
        self._source = source
        self._nodata = band.nodata
        self._ids = band.legend.ids if band.legend is not None else ()
        self._compress: Compression = compress
        self._halve = HALVE[resampling]
        self._pool = pool
        self._spills = spills
        self._shapes = level_shapes(source.shape)
        self._tiles = [(math.ceil(h / TILE), math.ceil(w / TILE)) for h, w in self._shapes]
        # One row of tiles for each overview; tiles of the full raster are never held together.
        self._rows = [
            np.full((TILE, across * TILE if level else 0), band.nodata, dtype=np.uint8)
            for level, (_, across) in enumerate(self._tiles)
        ]
        self.lengths: list[list[int]] = [[] for _ in self._shapes]
        """Bytes of each tile, by level: the full raster, then its overviews."""
        self._blank = _compress(np.full((TILE, TILE), band.nodata, dtype=np.uint8), compress)
        self.statistics = Statistics()

    def build(self) -> None:
        """Write all tiles of all levels."""
        for row in range(0, self._tiles[0][0], 2):
            self._add_rows(0, range(row, min(row + 2, self._tiles[0][0])))

    def _add_rows(self, level: int, rows: range) -> None:
        """Encode rows of tiles of a level, and of the levels above that become complete by it."""
        runs = [(level, row, col) for row in rows for col in range(0, self._tiles[level][1], _RUN)]
        for tiles, statistics in self._pool.map(self._run, runs):
            for data in tiles:
                self._spills[level].write(frame_tile(data))
                self.lengths[level].append(len(data))
            self.statistics += statistics
        last = rows.stop == self._tiles[level][0]
        if level + 1 < len(self._shapes) and (rows.stop % 2 == 0 or last):
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
        if level:
            pixels = self._rows[level][:, first * TILE : stop * TILE]
        else:
            pixels = np.full((TILE, (stop - first) * TILE), self._nodata, dtype=np.uint8)
        tiles = []
        for col in range(first, stop):
            part = pixels[:, (col - first) * TILE :][:, :TILE]
            frame = None if level else self._fetch(row, col, part)
            tiles.append(self._encode(part) if frame is None else frame)
        blank = all(data is self._blank for data in tiles)
        if level + 1 < len(self._shapes) and not blank:
            top, left = (row % 2) * TILE // 2, first * TILE // 2
            half = self._halve(pixels, self._nodata)
            self._rows[level + 1][top : top + half.shape[0], left : left + half.shape[1]] = half
        if level:
            return tiles, Statistics()
        height = min(TILE, self._shapes[0][0] - row * TILE)
        width = min(pixels.shape[1], self._shapes[0][1] - first * TILE)
        if blank:
            return tiles, Statistics(height * width, counts=dict.fromkeys(self._ids, 0))
        return tiles, tile_statistics(pixels[:height, :width], self._nodata, self._ids)

    def _fetch(self, row: int, col: int, out: NDArray[np.uint8]) -> bytes | None:
        """Read a tile of the full raster into `out`; returns its encoded form if the source has it."""
        tile = Window(row * TILE, col * TILE, TILE, TILE)
        frame = self._source.zstd_frame(tile) if self._compress == "zstd" else None
        if frame is not None:
            out[:] = np.frombuffer(_ZSTD.decode(frame), dtype=np.uint8).reshape(TILE, TILE)
            return frame
        inside = tile.clip(Window(0, 0, *self._shapes[0]))
        assert inside is not None
        out[: inside.height, : inside.width] = self._source.read(inside)
        return None

    def _encode(self, pixels: NDArray[np.uint8]) -> bytes:
        """One (TILE, TILE) tile; `self._blank` itself where no pixel is valid."""
        return _compress(pixels, self._compress) if (pixels != self._nodata).any() else self._blank


def _compress(pixels: NDArray[np.uint8], how: Compression) -> bytes:
    contiguous = np.ascontiguousarray(pixels)
    return (
        bytes(_ZSTD.encode(contiguous)) if how == "zstd" else zlib.compress(contiguous.data, _DEFLATE_LEVEL)
    )


def _assemble(path: Path, head: bytes, spills: Iterable[BinaryIO]) -> tuple[int, str]:
    """Step 2. Returns size and SHA-256 of the file."""
    digest = hashlib.sha256(head)
    size = len(head)
    with path.open("wb") as out:
        out.write(head)
        for spill in spills:
            spill.seek(0)
            while piece := spill.read(_COPY):
                out.write(piece)
                digest.update(piece)
                size += len(piece)
    return size, digest.hexdigest()


def write_pam(path: Path, legend: Legend | None, wkt: str | None = None) -> None:
    """Write GDAL's side file: category names, which GeoTIFF has no place for, and a CRS it cannot express.

    Args:
        path: the raster's name plus `.aux.xml`.
        legend: category names; None: none.
        wkt: the CRS, where the GeoTIFF does not hold it whole.
    """
    root = Element("PAMDataset")
    if wkt is not None:
        SubElement(root, "SRS", dataAxisToSRSAxisMapping="1,2").text = wkt
    if legend is not None:
        names = {c.id: c.name for c in legend.classes}
        categories = SubElement(SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
        for value in range(max(names) + 1):
            SubElement(categories, "Category").text = names.get(value, "")
    indent(root, space=" ")
    ElementTree(root).write(path, encoding="utf-8")
