"""Cells of label rasters, read at their own resolution, as channels of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.raster import ClassRaster, listed, name_legends
from citycover.classes.table import NO_CLASS, ClassTable
from citycover.errors import ConfigError
from citycover.geometry.window import Window

_CHUNK = 512
"""Cells; side of the squares that are read and kept."""

_KEPT = 32
"""Squares that are kept: 16 MiB."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A label raster, and what its numbers mean to the network; small and picklable."""

    path: Path
    grid: GeoBox
    table: ClassTable
    """Ids of the raster -> output channels of the network."""


class CellReader:
    """Windows of a sheet, on its own grid. Opens the file for each square of cells, and keeps a few."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        self._chunk = lru_cache(maxsize=_KEPT)(self._read_chunk)

    def read(self, window: Window) -> NDArray[np.int16]:
        """(y, x) channel of each cell or NO_CLASS, also outside of the raster.

        Raises:
            ConfigError: the raster cannot be read, or holds ids that its legend does not have.
        """
        channels = np.full((window.height, window.width), NO_CLASS, np.int16)
        inside = window.clip(Window(0, 0, *self.sheet.grid.shape))
        if inside is None:
            return channels
        for by in range(inside.row // _CHUNK, -(-inside.row_end // _CHUNK)):
            for bx in range(inside.col // _CHUNK, -(-inside.col_end // _CHUNK)):
                square = Window(by * _CHUNK, bx * _CHUNK, _CHUNK, _CHUNK)
                part = inside.clip(square)
                assert part is not None, "squares were chosen to meet the window"
                to = part.shift(-window.row, -window.col).slices
                channels[to] = self._chunk(by, bx)[part.shift(-square.row, -square.col).slices]
        return channels

    def _read_chunk(self, by: int, bx: int) -> NDArray[np.int16]:
        window = Window(by * _CHUNK, bx * _CHUNK, _CHUNK, _CHUNK).clip(Window(0, 0, *self.sheet.grid.shape))
        assert window is not None, "squares were chosen inside the raster"
        with ClassRaster(self.sheet.path, "labels") as raster:
            channels, stray = raster.read_known(window, self.sheet.table)
        if stray.size:
            refuse_ids(self.sheet, stray)
        return channels


def refuse_ids(sheet: Sheet, stray: NDArray[np.integer]) -> None:
    """Say which ids the legend of a sheet does not have.

    Raises:
        ConfigError: always.
    """
    ids, counts = np.unique(stray, return_counts=True)
    seen = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    raise ConfigError(
        f"labels {sheet.path} hold ids that {sheet.table.title} does not have: {listed(seen, 'cells')}; "
        f"{name_legends(seen)}; say with --labels-legend which one their numbers are written in, in the "
        "version of that legend that they were published with"
    )


def nearest_channels(sheets: Sequence[Sheet], grid: GeoBox, window: Window) -> NDArray[np.int16]:
    """(y, x) channel of the cell that each pixel centre lies in, of the first sheet that has a label there.

    Args:
        sheets: rasters of labels.
        grid: of the pixels.
        window: of the grid.
    """
    found = np.full((window.height, window.width), NO_CLASS, np.int16)
    for sheet in sheets:
        with ClassRaster(sheet.path, "labels", onto=grid) as raster:
            channels, _ = raster.read_known(window, sheet.table)  # what it does not know was refused before
        found = np.where(found == NO_CLASS, channels, found)
    return found
