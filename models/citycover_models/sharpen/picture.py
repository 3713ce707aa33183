"""`sharpen.png`: image, labels and map side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend
from citycover.classes.raster import ClassRaster
from citycover.classes.table import ClassTable
from citycover.draw.colours import colorize, stretch
from citycover.draw.panels import write_panels
from citycover.geometry.window import Window
from citycover.plan.layers import CLASSES
from citycover.read.picture import read_picture
from citycover_models.data.pairs import Pair

_PANEL = 560
"""Pixels of the longer side of a panel."""


def draw_sharpening(path: Path, pair: Pair, product: Path, legend: Legend, words: str) -> None:
    """Draw what was given and what came out; the middle of a scene that is too large for a picture.

    Args:
        path: of the PNG.
        pair: image and labels.
        product: folder of the map.
        legend: of the map.
        words: above the panels.
    """
    shown = read_picture(pair.scene, Window(0, 0, *pair.shape), _PANEL)
    grid = _decimated(pair.scene.grid, shown.part, shown.valid.shape)
    labels = np.full(shown.valid.shape, legend.product_nodata, np.uint8)
    for raster in pair.labels:
        seen = _classes(raster.path, "labels", grid, raster.table, legend)
        labels = np.where(labels == legend.product_nodata, seen, labels)
    mapped = _classes(product / CLASSES.file, "map", grid, ClassTable.onto(legend), legend)
    panels = [("image", stretch(shown.values, shown.valid)), ("labels", labels), ("map", mapped)]
    drawn = [(name, p if p.ndim == 3 else colorize(p, legend)) for name, p in panels]
    write_panels(path, drawn, legend, words)


def _decimated(grid: GeoBox, part: Window, shape: tuple[int, int]) -> GeoBox:
    """The grid of a picture of a part."""
    step = Affine.scale(part.width / shape[1], part.height / shape[0])
    return GeoBox(shape, grid.transform * Affine.translation(part.col, part.row) * step, grid.crs)


def _classes(
    path: Path | str, role: str, grid: GeoBox, table: ClassTable, legend: Legend
) -> NDArray[np.uint8]:
    """(y, x) ids of the legend; its nodata where there is none."""
    with ClassRaster(path, role, onto=grid) as raster:
        ranks, _ = raster.read_known(raster.whole, table)
    ids = np.array([*legend.ids, legend.product_nodata], np.uint8)  # NO_CLASS = -1 picks the last
    found: NDArray[np.uint8] = ids[ranks]
    return found
