"""Cloud Optimized GeoTIFFs of uint8 bands, written in one pass.

GDAL's COG driver copies: it wants a finished GeoTIFF, builds overviews from it, and writes on one core.
Here the tiles go straight from the working store into the file. Strategy:

1.  Tiles of each level and band: what the store has as the very frames that become tiles is left there, what
    is missing is encoded into one spill file a level (`tiles`).
2.  Now every length is known: write the directories, then the levels, smallest overview first, from the spill
    files and from the store. A thread of its own takes the checksum on the way.

Bands are planes of their own, one after the other: whoever wants one reads no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend
from citycover.files.hashed import HashedFile
from citycover.product.tiff import TILE, BandInfo, Level, compose_head, gdal_tags, with_statistics
from citycover.product.tiles import Compression, TilePyramid, TileSource
from citycover.store.levels import StoredRaster
from citycover.store.pyramid import Resampling, level_shapes
from citycover.store.statistics import Statistics

_CODE: dict[Compression, int] = {"zstd": 50000, "deflate": 8}

_PIECE = 1 << 23
"""Bytes of a spill file that are copied at once."""


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
        path: the file; its folder is also where the spill files go (as much space again, for a while, as the
            tiles that are encoded here).
        sources: the pixels of each band; of the same shape as `grid`, all of them in a store or none.
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
    if len({isinstance(source, StoredRaster) for source in sources}) > 1:
        raise ValueError("some bands lie in a store and some do not")
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="cog"))
        shapes = level_shapes(sources[0].shape, TILE)
        spills = [
            stack.enter_context(TemporaryFile(dir=path.parent, prefix=f".{path.name}.")) for _ in shapes
        ]
        pyramids = []
        for source, band in zip(sources, bands, strict=True):
            pyramids.append(TilePyramid(source, band, compress, resampling, pool, spills))
            pyramids[-1].build()
        statistics = tuple(pyramid.statistics for pyramid in pyramids)
        told = [with_statistics(band, seen) for band, seen in zip(bands, statistics, strict=True)]
        tags, whole_crs = gdal_tags(grid, told)
        lengths = zip(*(pyramid.lengths for pyramid in pyramids), strict=True)
        levels = [
            Level(shape, np.concatenate(own, dtype=np.uint32), len(bands))
            for shape, own in zip(shapes, lengths, strict=True)
        ]
        with HashedFile(path) as out:
            out.write(compose_head(levels, tags, _CODE[compress]))
            for piece in _tiles(spills, pyramids, threads + 2):
                out.write(piece)
    wkt = None if whole_crs or grid.crs is None else grid.crs.to_wkt()
    if bands[0].legend is not None or wkt is not None:
        write_pam(path.with_name(path.name + ".aux.xml"), bands[0].legend, wkt)
    return CogInfo(out.size, out.sha256, statistics)


def _tiles(spills: Sequence[BinaryIO], pyramids: Sequence[TilePyramid], ahead: int) -> Iterator[bytes]:
    """All tiles in the order of the file. Each level lies in its spill file or in the store."""
    for level in reversed(range(len(spills))):
        spills[level].seek(0)
        while piece := spills[level].read(_PIECE):
            yield piece
        for pyramid in pyramids:
            yield from pyramid.copy(level, ahead)


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
