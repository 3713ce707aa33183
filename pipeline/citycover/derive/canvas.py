"""A raster that is filled strip by strip and then written as a COG.

It lies in a file without a name, mapped into memory: what is not looked at costs none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from odc.geo.geobox import GeoBox

from citycover.files.atomic import put_in_place
from citycover.geometry.window import Window
from citycover.product.cog import write_cog
from citycover.product.tiff import BandInfo
from citycover.product.tiles import TileSource


@contextmanager
def canvas(folder: Path, grid: GeoBox, dtype: DTypeLike) -> Iterator[NDArray[Any]]:
    """(y, x) zeros, on the disk of a folder.

    Raises:
        OSError: there is no space.
    """
    shape = tuple(int(n) for n in grid.shape)
    with TemporaryFile(dir=folder, prefix=".canvas.") as file:
        # Asked for now: a page that finds no space later ends the process without a word.
        os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        yield np.memmap(file, dtype, "r+", shape=shape)


@dataclass(frozen=True)
class CodedSource:
    """Pixels of a COG by a table from the numbers on a canvas."""

    codes: NDArray[np.integer]
    """(y, x) places in the table."""
    table: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.codes.shape[0], self.codes.shape[1]

    def read(self, window: Window) -> NDArray[np.uint8]:
        """The table's numbers."""
        pixels: NDArray[np.uint8] = self.table[self.codes[window.slices]]
        return pixels


_: type[TileSource] = CodedSource


def write_whole(path: Path, source: TileSource, grid: GeoBox, band: BandInfo) -> None:
    """Write a COG, and the names of its classes beside it, so that it is there wholly or not at all."""
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        draft = Path(folder) / path.name
        write_cog(draft, [source], grid, [band])
        for name in (f"{path.name}.aux.xml", path.name):
            if (draft.parent / name).exists():
                put_in_place(draft.parent / name, path.parent / name)
