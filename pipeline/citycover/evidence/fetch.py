"""Labels by name into files of this machine: the part of each tile that a scene needs, and keeps.

    scene ──▶ box in degrees ──▶ tiles ──┬─ excerpt in the folder already ──────────────────▶ file
                                         ├─ whole tile put there by hand ──▶ excerpt ───────▶ file
                                         └─ at its address, block by block ──▶ excerpt ─────▶ file

Boxes are rounded outwards, so that neighbouring scenes share excerpts. Everything behind this sees plain
files: a run goes on without a network, and workers read what the run read.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds
from rasterio.windows import Window as RasterioWindow
from rasterio.windows import from_bounds

from citycover.errors import ConfigError, MachineError
from citycover.evidence.catalogue import Credit, Edited, Tile, product_asked_for
from citycover.evidence.item import asset_address
from citycover.files.atomic import atomic_path
from citycover.files.cache import FOLDER, cache_folder
from citycover.files.gdal import REMOTE_OPTIONS, brief_reason
from citycover.geometry.footprint import degrees_of
from citycover.geometry.grid import Bounds

logger = logging.getLogger(__name__)

_STEP = 0.05
"""Degrees that boxes are rounded outwards to: some 5 km."""

_MARGIN = 0.005
"""Degrees around the scene that are read in any case: cells beside it have a say."""

_ABSENT = "HTTP response code: 404"

_NONE = ".none"
"""Ending of the empty file that stands for a part that the product does not have."""

_CONNECTION = re.compile(r"/vsi|\w+:", re.IGNORECASE)

_ROWS = 1024
"""Rows that are read at once, where a tile is not cut into blocks."""


@dataclass(frozen=True, slots=True)
class LabelFile:
    """A raster of labels on this machine."""

    path: Path
    legend: str | None = None
    """That its product is written in; None: a file of the user, who says so."""
    credit: Credit | None = None


def find_labels(named: Path | str, grid: GeoBox) -> tuple[LabelFile, ...]:
    """The rasters that a name stands for where a grid lies; a raster file stands for itself.

    Args:
        named: raster file, `NAME`, `NAME:YEAR` or the file of a product.
        grid: of the scene.

    Raises:
        ConfigError: no such name or year, the product has nothing there, or its files are got by hand.
        MachineError: they cannot be fetched now.
    """
    edited = product_asked_for(named)
    if edited is None:
        if _CONNECTION.match(str(named)) and not Path(named).exists():
            raise ConfigError(
                f"labels {named} are named as GDAL names parts of files; needed is a raster file, or an "
                f"array in a Zarr store; take them out first: gdal_translate '{named}' labels.tif"
            )
        return (LabelFile(Path(named)),)
    boxes = _boxes(edited, grid)
    tiles = edited.tiles(boxes)
    folder = cache_folder() / "labels" / edited.name / str(edited.year)
    nodata = edited.product.nodata
    kept = [(tile, _Excerpts(tile, folder, nodata, tiles)) for tile in tiles]
    found = [
        LabelFile(path, edited.product.legend, edited.credit(tile))
        for tile, excerpts in kept
        for path in excerpts.files(boxes)
    ]
    if not found:  # and nothing is remembered: perhaps an address is wrong
        raise ConfigError(
            f"{edited.product.title} {edited.year} has no file where the scene lies "
            f"({', '.join(tile.file for tile in tiles)}): they leave out the sea; name labels that cover it"
        )
    for _, excerpts in kept:
        excerpts.remember(boxes)
    return tuple(found)


def _boxes(edited: Edited, grid: GeoBox) -> tuple[Bounds, ...]:
    """A scene in degrees, rounded outwards; two boxes where it crosses 180 degrees."""
    place = degrees_of(grid)
    if place is None:
        raise ConfigError(
            f"{edited.name!r} is found by where the scene lies, and the scene does not say it: its CRS is no "
            "place on the Earth; write one into the file (gdal_edit.py -a_srs EPSG:...), or name label files"
        )
    west, south, east, north = place
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    return tuple((_down(w), _down(south), _up(e), _up(north)) for w, e in spans)


def _down(value: float) -> float:
    return math.floor((value - _MARGIN) / _STEP) / (1 / _STEP)


def _up(value: float) -> float:
    return math.ceil((value + _MARGIN) / _STEP) / (1 / _STEP)


@dataclass(frozen=True, slots=True)
class _Excerpts:
    """Parts of one tile, in the folder of their product and year."""

    tile: Tile
    folder: Path
    nodata: tuple[int, ...]
    together: Sequence[Tile]
    """Tiles that the scene needs, to be named where one cannot be had."""

    def files(self, boxes: Sequence[Bounds]) -> Iterator[Path]:
        """The part under each box, made if it is not there; none where the product has no such tile."""
        for path, box in zip(self._paths(boxes), boxes, strict=True):
            if path.with_suffix(_NONE).exists():
                continue
            if path.is_file() or self._make(path, box):
                yield path

    def remember(self, boxes: Sequence[Bounds]) -> None:
        """Keep that there is nothing under a box, so that the next time nobody is asked."""
        for path in self._paths(boxes):
            if not path.is_file():
                path.with_suffix(_NONE).touch()

    def _paths(self, boxes: Sequence[Bounds]) -> list[Path]:
        names = ("_".join(f"{value:.2f}" for value in box) for box in boxes)
        return [self.folder / f"{self.tile.name}_{name}.tif" for name in names]

    def _make(self, path: Path, box: Bounds) -> bool:
        """Write the part under a box; False where there is none."""
        whole = self.folder / self.tile.file
        if not whole.is_file() and not self.tile.fetched:
            raise ConfigError(self._by_hand(f"{self.tile.product} is fetched by hand"))
        source = str(whole) if whole.is_file() else self._address()
        if source is None:
            return False
        try:
            # GeoTIFF alone: what an address answers must not name other files.
            with rasterio.Env(**REMOTE_OPTIONS), rasterio.open(source, driver="GTiff") as tile:
                window = _window(tile, box)
                if window is None:
                    return False
                logger.info("labels %s: reading %d x %d cells of %s", self.tile.product, window.width,
                            window.height, source)  # fmt: skip
                self._copy(tile, window, path)
        except RasterioError as error:
            reason = brief_reason(error)
            if _ABSENT in reason:
                logger.info("labels %s: there is no %s", self.tile.product, self.tile.file)
                return False
            raise MachineError(
                self._by_hand(f"{source.removeprefix('/vsicurl/')} cannot be read ({reason})")
            ) from None
        except OSError as error:
            raise MachineError(
                f"labels cannot be kept in {self.folder}: {error.strerror or error}; make room there, or "
                f"name another folder with the environment variable {FOLDER}"
            ) from None
        return True

    def _address(self) -> str | None:
        """Of the tile, as GDAL takes it; None where the product does not have it."""
        if self.tile.asset is None:
            return f"/vsicurl/{self.tile.source}"
        pause = float(REMOTE_OPTIONS["GDAL_HTTP_RETRY_DELAY"])
        try:
            found = asset_address(self.tile.source, self.tile.asset, pause=pause)
        except MachineError as error:
            raise MachineError(self._by_hand(str(error))) from None
        return None if found is None else f"/vsicurl/{found}"

    def _copy(self, tile: Any, window: RasterioWindow, path: Path) -> None:
        profile = {"driver": "GTiff", "dtype": tile.dtypes[self.tile.band - 1], "count": 1, "crs": tile.crs,
                   "nodata": self.nodata[0], "transform": tile.window_transform(window),
                   "width": window.width, "height": window.height, "compress": "deflate",
                   "tiled": True, "blockxsize": 512, "blockysize": 512}  # fmt: skip
        rows = tile.block_shapes[self.tile.band - 1][0]
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, rasterio.open(temporary, "w", **profile) as out:
            out.update_tags(source=self.tile.source, year=self.tile.year)
            for part in _strips(window, rows if rows > 1 else _ROWS):
                cells = tile.read(self.tile.band, window=part)
                cells[np.isin(cells, self.nodata)] = self.nodata[0]
                to = RasterioWindow(0, part.row_off - window.row_off, window.width, part.height)
                out.write(cells, 1, window=to)

    def _by_hand(self, why: str) -> str:
        files = ", ".join(tile.file if tile.asset else tile.source for tile in self.together)
        return (
            f"labels {self.tile.product!r}: {why}; put these files into {self.folder} and run again: {files}"
        )


def _window(tile: Any, box: Bounds) -> RasterioWindow | None:
    """The cells of a tile under a box in degrees; None: none."""
    bounds = transform_bounds("EPSG:4326", tile.crs, *box, densify_pts=21)
    part = from_bounds(*bounds, transform=tile.transform)
    top, left = max(0, math.floor(part.row_off)), max(0, math.floor(part.col_off))
    bottom = min(tile.height, math.ceil(part.row_off + part.height))
    right = min(tile.width, math.ceil(part.col_off + part.width))
    return RasterioWindow(left, top, right - left, bottom - top) if bottom > top and right > left else None


def _strips(window: RasterioWindow, rows: int) -> Iterator[RasterioWindow]:
    """Whole rows of a window, cut where the blocks of its raster end: no block is read twice."""
    row, end = window.row_off, window.row_off + window.height
    while row < end:
        below = min(end, (row // rows + 1) * rows)
        yield RasterioWindow(window.col_off, row, window.width, below - row)
        row = below
