"""Pair: an image and the label rasters that teach it; small, and made before any pixel is read."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from affine import Affine
from odc.geo.geobox import GeoBox

from citycover.read.raster import RasterReader
from citycover.scene.scene import Scene
from citycover_models.data.labels import LabelRaster, LabelReader

PLACED = "vrt://"
"""How the connection string of an image begins that was given a place, see `placing.py`."""

_CACHE = 192 << 20
"""Bytes of decoded blocks that one worker keeps of an image: chips come back to the same places."""


@dataclass(frozen=True, slots=True)
class ImageAndLabels:
    """One line of a list: an image, and label rasters of the same place."""

    image: str
    """Its first file."""
    labels: tuple[str, ...]
    truth: str | None = None
    """High-resolution reference; never learned from, kept for `citycover evaluate`."""
    further: tuple[str, ...] = ()
    """Other files of the image: a band each, or some."""

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the image, in the order of their bands."""
        return (self.image, *self.further)


@dataclass(frozen=True, slots=True)
class Pair:
    """One image with its labels."""

    scene: Scene
    labels: tuple[LabelRaster, ...]
    """Empty for an image of the target domain that nothing has labelled yet."""
    agree: int = 1
    """Label rasters that must agree on a pixel; 1: the first that has a label gives it."""

    @property
    def name(self) -> str:
        """The image's first file."""
        return plain_path(self.scene.groups[0].bands[0].path)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file."""
        images = (plain_path(path) for group in self.scene.groups for path in group.paths)
        return tuple(dict.fromkeys((*images, *(plain_path(raster.path) for raster in self.labels))))

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the image."""
        return self.scene.shape

    def image_reader(self) -> RasterReader:
        """A reader of the image; opens nothing yet."""
        return RasterReader(self.scene.groups[0], self.scene.resampling, cache_bytes=_CACHE)

    def label_reader(self, step: int = 1) -> LabelReader:
        """A reader of the labels on the image's grid, or on one `step` times coarser; opens nothing yet."""
        grid = self.scene.grid
        if step > 1:
            shape = (math.ceil(self.shape[0] / step), math.ceil(self.shape[1] / step))
            grid = GeoBox(shape, grid.transform * Affine.scale(step), grid.crs)
        return LabelReader(self.labels, grid, agree=self.agree)


def files_of(named: str, separator: str) -> tuple[str, ...]:
    """The files of an image that is named by one word; one file where a file is called so, separator and all.

    >>> files_of("B04.tif,B03.tif", ",")
    ('B04.tif', 'B03.tif')
    """
    if separator not in named or os.path.isfile(named):  # noqa: PTH113 - False for names that cannot be
        return (named,)
    return tuple(name for part in named.split(separator) if (name := part.strip()))


def plain_path(path: str) -> str:
    """The file of a connection string that places it, as the user knows it; other paths as they are.

    >>> plain_path("vrt://a/b.png?a_srs=EPSG:3857&a_ullr=0,8,8,0"), plain_path("c.tif")
    ('a/b.png', 'c.tif')
    """
    return path.removeprefix(PLACED).partition("?")[0] if path.startswith(PLACED) else path
