"""The bytes around the pixels of a Cloud Optimized GeoTIFF: header, directories, offsets.

    header | ghost area | directory 0 | directory 1 | ... | tiles of the last level | ... | tiles of level 0

Directory 0 is the full raster, the others its overviews, each half of the one before. The ghost area tells
GDAL what to rely on: directories first, tiles in row-major order, each with its length in the four bytes
before it and its last four bytes repeated after it, so that one request fetches a tile without its index.
Sources: TIFF 6.0; BigTIFF; GDAL's "Cloud Optimized GeoTIFF" driver page, section "header ghost area".

The georeferencing tags are not composed here: GDAL writes them, into a small file in memory, and they are
copied from there. So every CRS that GDAL can store is stored the way GDAL does it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from citycover.classes.legend import Legend
from citycover.store.statistics import Statistics

TILE = 512
"""Side of a tile."""

_GHOST_BODY = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)

_GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_GHOST_BODY) + _GHOST_BODY

_SHORT, _LONG, _LONG8 = 3, 4, 16

_TYPE_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}

# What describes how pixels are stored is ours to say; everything else is copied from GDAL's file.
_STRUCTURE = {254, 256, 257, 258, 259, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339}

_PHOTOMETRIC, _COLOR_MAP, _EXTRA_SAMPLES, _NODATA = 262, 320, 338, 42113

_LIMIT = 2**32 - 2**16
"""Up to this size a file is a classic TIFF, whose offsets have 32 bits."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry of a directory."""

    code: int
    type: int
    count: int
    data: bytes
    """Little-endian."""


@dataclass(frozen=True, slots=True)
class BandInfo:
    """What a file says about a band."""

    nodata: int
    description: str
    scale: float = 1.0
    legend: Legend | None = None
    """Colours; None for a quantity."""
    tags: Mapping[str, str] | None = None
    """Metadata of the dataset."""
    band_tags: Mapping[str, str] | None = None
    """Metadata of the band, STATISTICS_* among them."""


def with_statistics(band: BandInfo, statistics: Statistics) -> BandInfo:
    """The band with the metadata that lets GDAL and QGIS skip their own pass over the pixels."""
    if not statistics.valid:
        return band
    tags = {"STATISTICS_VALID_PERCENT": f"{100 * statistics.valid / statistics.pixels:.4g}"}
    if band.legend is None:
        tags |= {
            "STATISTICS_MINIMUM": str(statistics.minimum),
            "STATISTICS_MAXIMUM": str(statistics.maximum),
            "STATISTICS_MEAN": f"{statistics.mean:.8g}",
            "STATISTICS_STDDEV": f"{statistics.stddev:.8g}",
        }
    return replace(band, band_tags={**tags, **(band.band_tags or {})})


@dataclass(frozen=True, slots=True)
class Level:
    """The full raster or one overview, its tiles already encoded."""

    shape: tuple[int, int]
    """(y, x) in pixels."""
    lengths: NDArray[np.uint32]
    """Bytes of each tile without leader and trailer, row-major, one band after the other."""
    bands: int = 1

    @property
    def size(self) -> int:
        """Bytes of all tiles with leaders and trailers."""
        return int(self.lengths.sum(dtype=np.uint64)) + 8 * self.lengths.size

    def offsets(self, start: int) -> NDArray[np.uint64]:
        """Where each tile begins in the file when the level's bytes begin at `start`."""
        spans = self.lengths.astype(np.uint64) + np.uint64(8)
        return np.concatenate([[0], np.cumsum(spans)[:-1]]).astype(np.uint64) + np.uint64(start + 4)


def frame_tiles(tiles: Iterable[bytes | memoryview]) -> bytes:
    """Tiles that follow each other, each between its leader and its trailer."""
    return b"".join(part for data in tiles for part in (struct.pack("<I", len(data)), data, data[-4:]))


def gdal_tags(grid: GeoBox, bands: Sequence[BandInfo]) -> tuple[list[Tag], bool]:
    """The tags in which GDAL stores georeferencing, nodata, colours and metadata.

    Returns:
        The tags, and whether they hold the whole CRS. There are CRSs that GeoTIFF cannot express; those
        belong into the `.aux.xml`.
    """
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=1,
            height=1,
            count=len(bands),
            dtype="uint8",
            nodata=bands[0].nodata,
            crs=grid.crs.to_wkt() if grid.crs else None,
            transform=grid.transform,
            photometric="MINISBLACK",
            ENDIANNESS="LITTLE",
        ) as dataset:
            _describe(dataset, bands)
            wanted = dataset.crs
        content = memory.read()
    # Under another name, so that no side file of the first is found.
    with MemoryFile(content) as memory, memory.open() as dataset:
        whole = dataset.crs == wanted
    return [tag for tag in read_tags(content) if tag.code not in _STRUCTURE], whole


def _describe(dataset: rasterio.io.DatasetWriter, bands: Sequence[BandInfo]) -> None:
    """Colours, names, scales and metadata."""
    legend = bands[0].legend
    if legend is not None:
        colors = {c.id: (*c.rgb, 255) for c in legend.classes}
        dataset.write_colormap(1, colors | {bands[0].nodata: (0, 0, 0, 0)})
    else:
        dataset.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (len(bands) - 1)
    if any(band.scale != 1.0 for band in bands):
        dataset.scales = [band.scale for band in bands]
    dataset.update_tags(**(bands[0].tags or {}))
    for index, band in enumerate(bands, start=1):
        dataset.set_band_description(index, band.description)
        dataset.update_tags(index, **(band.band_tags or {}))


def read_tags(content: bytes) -> list[Tag]:
    """The first directory of a little-endian classic TIFF."""
    (start,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, start)
    tags = []
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        code, kind, count = struct.unpack_from("<HHI", content, at)
        size = _TYPE_SIZE[kind] * count
        where = at + 8 if size <= 4 else struct.unpack_from("<I", content, at + 8)[0]
        tags.append(Tag(code, kind, count, content[where : where + size]))
    return tags


def compose_head(levels: Sequence[Level], tags: Sequence[Tag], compression: int) -> bytes:
    """Everything that stands before the tiles.

    Args:
        levels: the raster, then its overviews, largest first. Their tiles follow in the opposite order.
        tags: from `gdal_tags`.
        compression: TIFF's number of the codec.
    """
    size = sum(level.size for level in levels)
    index = sum(12 * level.lengths.size + 4096 for level in levels) + sum(len(t.data) for t in tags)
    big = size + index > _LIMIT
    # The length of the head does not depend on the offsets in it, so a first draft measures it.
    draft = _compose(levels, [0] * len(levels), tags, compression, big)
    starts, at = [0] * len(levels), len(draft)
    for k in reversed(range(len(levels))):
        starts[k], at = at, at + levels[k].size
    return _compose(levels, starts, tags, compression, big)


def _compose(
    levels: Sequence[Level], starts: Sequence[int], tags: Sequence[Tag], compression: int, big: bool
) -> bytes:
    first = (16 if big else 8) + len(_GHOST)
    first += first % 2  # directories begin at even offsets
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else struct.pack("<2sHI", b"II", 42, first)
    out = bytearray((head + _GHOST).ljust(first, b"\0"))
    for k, level in enumerate(levels):
        kept = (
            tags
            if k == 0
            else [t for t in tags if t.code in {_PHOTOMETRIC, _COLOR_MAP, _EXTRA_SAMPLES, _NODATA}]
        )
        own = _structure(level, starts[k], compression, big, overview=k > 0)
        entries = sorted([*own, *kept], key=lambda tag: tag.code)
        out += directory(entries, len(out), big, last=k == len(levels) - 1)
    return bytes(out)


def _structure(level: Level, start: int, compression: int, big: bool, overview: bool) -> list[Tag]:
    """The tags that say how a level is stored."""

    def number(code: int, value: int, kind: int = _LONG) -> Tag:
        return Tag(code, kind, 1, struct.pack("<H" if kind == _SHORT else "<I", value))

    def each(code: int, value: int) -> Tag:
        """The same for every band."""
        return Tag(code, _SHORT, level.bands, struct.pack(f"<{level.bands}H", *[value] * level.bands))

    count = level.lengths.size
    offsets = level.offsets(start)
    return [
        *([number(254, 1)] if overview else []),  # NewSubfileType: a reduced image
        number(256, level.shape[1]),
        number(257, level.shape[0]),
        each(258, 8),  # bits per sample
        number(259, compression, _SHORT),
        number(277, level.bands, _SHORT),  # samples per pixel
        number(284, 1 if level.bands == 1 else 2, _SHORT),  # planar configuration: bands lie apart
        number(322, TILE, _SHORT),
        number(323, TILE, _SHORT),
        Tag(324, _LONG8 if big else _LONG, count, offsets.astype("<u8" if big else "<u4").tobytes()),
        Tag(325, _LONG, count, level.lengths.astype("<u4").tobytes()),
        each(339, 1),  # unsigned integers
    ]


def directory(tags: Sequence[Tag], at: int, big: bool, last: bool) -> bytes:
    """One directory that begins at offset `at`, and behind it the data that its entries point to."""
    inline = 8 if big else 4
    size = (8 + 20 * len(tags) + 8) if big else (2 + 12 * len(tags) + 4)
    entries, data = bytearray(struct.pack("<Q" if big else "<H", len(tags))), bytearray()
    for tag in tags:
        entries += struct.pack("<HHQ" if big else "<HHI", tag.code, tag.type, tag.count)
        if len(tag.data) <= inline:
            entries += tag.data.ljust(inline, b"\0")
        else:
            entries += struct.pack("<Q" if big else "<I", at + size + len(data))
            data += tag.data + b"\0" * (len(tag.data) % 2)
    next_at = 0 if last else at + size + len(data)
    entries += struct.pack("<Q" if big else "<I", next_at)
    return bytes(entries + data)
