"""What a person sees of maps: a tile of a layer, what is at a point, how much of what is in a window."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend
from citycover.classes.table import ClassTable, common_legend, table_between
from citycover.derive.areas import Tally
from citycover.derive.change import ChangeMatrix
from citycover.derive.source import Strip
from citycover.errors import ConfigError
from citycover.geometry.areas import row_areas
from citycover.geometry.grid import ground_sample_distance
from citycover.geometry.window import Window
from citycover.plan.layers import CHANGE, CLASSES, CONFIDENCE, DISAGREEMENT, ENTROPY, Layer
from citycover.view.maps import ShownMap
from citycover.view.paint import paint_change, paint_classes, paint_steps
from citycover.view.pixels import read_at, read_on


def draw_layer(shown: ShownMap, layer: Layer, band: int, grid: GeoBox, off: Collection[int] = ()) -> bytes:
    """PNG of a layer on a grid in Mercator.

    Args:
        shown: the map.
        layer: one that it has.
        band: from 1.
        grid: pixels of the picture.
        off: ids of classes that are not shown.

    Raises:
        RasterioError: its raster cannot be read.
    """
    legend = shown.source.legend
    if layer.categorical:
        return paint_classes(_ranks(shown, layer, grid, legend), legend, off)
    pixels = read_on(shown.path(layer), grid, [band])[0]
    return paint_steps(
        pixels.data, ~np.ma.getmaskarray(pixels), layer.scale, flip=layer in (ENTROPY, DISAGREEMENT, CHANGE)
    )


def draw_change(before: ShownMap, after: ShownMap, grid: GeoBox, off: Collection[int] = ()) -> bytes:
    """PNG of what changed between two maps: the class that it became; pale where nothing did.

    Raises:
        ConfigError: their legends have no table to one another.
        RasterioError: a raster cannot be read.
    """
    legend = common_legend(before.source.legend, after.source.legend)
    one, other = (_ranks(shown, CLASSES, grid, legend) for shown in (before, after))
    return paint_change(one, other, legend, off)


def look_at(shown: ShownMap, longitude: float, latitude: float) -> dict[str, Any] | None:
    """What a map says of the pixel at a place; None: outside of it.

    Returns:
        `class` (id, or None), and each other layer by its name: a share, the id of a class, or a list with
        one of each class of the network.

    Raises:
        RasterioError: a raster cannot be read.
    """
    said: dict[str, Any] = {}
    for layer in shown.layers:
        pixel = read_at(shown.path(layer), longitude, latitude)
        if pixel is None and layer is CLASSES:
            return None
        if pixel is None:
            continue
        values = [number if layer.categorical else number * layer.scale for number in pixel]
        said["class" if layer is CLASSES else layer.name] = values if layer.per_class else values[0]
    return said


def areas_in(shown: ShownMap, grid: GeoBox) -> dict[str, Any]:
    """How much of each class lies in a window, counted in its pixels.

    Returns:
        `classes`, in legend order, with id, m2 and mean confidence; `metres` of a pixel that was counted.

    Raises:
        RasterioError: a raster cannot be read.
    """
    legend = shown.source.legend
    sure = None
    if CONFIDENCE in shown.layers:
        sure = read_on(shown.path(CONFIDENCE), grid, [1]).filled(0)[0]
    found = _tally(_ranks(shown, CLASSES, grid, legend), sure, grid, len(legend.ids)).areas(None)
    rows = zip(legend.ids, found.square_metres.tolist(), found.confidence.tolist(), strict=True)
    return {
        "classes": [{"id": k, "m2": m2, "confidence": None if c != c else c} for k, m2, c in rows],  # noqa: PLR0124
        "metres": counted_metres(shown, grid),
    }


def changes_in(before: ShownMap, after: ShownMap, grid: GeoBox) -> dict[str, Any]:
    """What became what in a window, counted in its pixels.

    Returns:
        `classes` of the legend that the two are compared in, with areas before and after, where both have a
        class; `transitions` with ids, largest first; `compared_m2` and `changed_m2`; `metres` as `areas_in`.

    Raises:
        ConfigError: their legends have no table to one another.
        RasterioError: a raster cannot be read.
    """
    legend = common_legend(before.source.legend, after.source.legend)
    one, other = (_ranks(m, CLASSES, grid, legend) for m in (before, after))
    side = len(legend.ids)
    pairs = np.where((one < 0) | (other < 0), -1, one * np.int32(side) + other)
    found = _tally(pairs, None, grid, side**2).areas(None)
    matrix = ChangeMatrix(
        None, found.pixels.reshape(side, side), found.square_metres.reshape(side, side), found.without_class
    )
    areas = matrix.square_metres
    moved = [
        {"from": legend.ids[a], "to": legend.ids[b], "m2": float(areas[a, b])}
        for a, b in np.argwhere(areas > 0).tolist()
        if a != b
    ]
    sums = zip(legend.classes, areas.sum(1).tolist(), areas.sum(0).tolist(), strict=True)
    return {
        "classes": [
            {"id": c.id, "name": c.name, "color": c.color, "before_m2": one, "after_m2": other}
            for c, one, other in sums
        ],
        "transitions": sorted(moved, key=lambda row: -float(row["m2"])),
        "compared_m2": matrix.compared,
        "changed_m2": matrix.changed,
        "metres": max(counted_metres(before, grid), counted_metres(after, grid)),
    }


def can_compare(before: ShownMap, after: ShownMap) -> bool:
    """Whether a table joins their legends."""
    try:
        common_legend(before.source.legend, after.source.legend)
    except ConfigError:
        return False
    return True


def counted_metres(shown: ShownMap, grid: GeoBox) -> float:
    """Side on the ground of what is counted: a pixel of the window, or of the map where that is larger."""
    return max(ground_sample_distance(grid), ground_sample_distance(shown.source.grid))


def _ranks(shown: ShownMap, layer: Layer, grid: GeoBox, legend: Legend) -> NDArray[np.int16]:
    """(y, x) ranks in a legend; numbers that it does not know have no class."""
    table = ClassTable.onto(legend, table_between(shown.source.legend, legend))
    pixels = read_on(shown.path(layer), grid, [1])[0]
    ranks = table.ranks_of(np.ascontiguousarray(pixels.data))
    ranks[np.ma.getmaskarray(pixels) | (ranks < 0)] = -1
    return ranks


def _tally(ranks: NDArray[np.integer], sure: NDArray[np.uint8] | None, grid: GeoBox, classes: int) -> Tally:
    tally = Tally(classes)
    whole = Window(0, 0, *(int(n) for n in grid.shape))
    tally.add(Strip(whole, ranks, sure), row_areas(grid))  # type: ignore[arg-type]  # pairs of many classes
    return tally
