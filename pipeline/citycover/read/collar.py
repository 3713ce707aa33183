"""Find nodata that no tag declares: one constant that touches the border of a scene.

A hint for the user, never a guess that changes a map. Looks at a small version of the scene: through
overviews or a decimated read where that is cheap, else at single pixels on a coarse lattice, because reading
all of a large file only to warn would cost more than the warning is worth.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from citycover.files.gdal import READ_OPTIONS
from citycover.scene.scene import Scene, SceneGroup

COLLAR_SHARE = 0.01
"""Share of a scene above which a constant at its border is worth a warning."""

_SIDE = 1000
"""Pixels of the small version along the longer side."""

_CHEAP_PIXELS = 1 << 22
"""A file of so many pixels is decoded whole without a second thought."""

_LATTICE = 32
"""Points of the lattice along each side."""


def constant_border(scene: Scene) -> tuple[float | None, float]:
    """The number that may be undeclared nodata, and the share of the scene that it fills from the border in.

    Pixels count where all bands hold the same number, one that is frequent along the border, and are
    connected to the border through such pixels.

    Returns:
        The number and its share of all pixels; (None, 0.0) where the share is at most `COLLAR_SHARE`, where
        the scene declares what is invalid, or where it cannot be read.
    """
    group = scene.groups[0]
    if any(band.validity != "none" for band in group.bands):
        return None, 0.0
    try:
        with rasterio.Env(**READ_OPTIONS, GDAL_CACHEMAX=_cache_bytes(group)):
            pixels = _read_small(group)
    except RasterioError:
        return None, 0.0  # reading for the map reports what is wrong, with its place
    value = _frequent_border(pixels)
    if value is None or value not in (pixels.min(), pixels.max()):
        return None, 0.0  # fill lies at an end of the range; smooth water or cloud seldom does
    share = float(_from_border((pixels == value).all(axis=2)).mean())
    return (value, share) if share > COLLAR_SHARE else (None, 0.0)


def _cache_bytes(group: SceneGroup) -> int:
    """Two rows of blocks: a decimated read goes line by line, and would decode each block for every line."""
    rows = 2 * min(group.block[0], group.shape[0]) * group.shape[1]
    return max(8 << 20, rows * len(group.bands) * np.dtype(group.dtype).itemsize)


def _read_small(group: SceneGroup) -> NDArray[Any]:
    """(y, x, band) of a small version of the scene, nearest neighbour: constants stay constant."""
    places: dict[str, list[int]] = {}
    for band in group.bands:
        places.setdefault(band.path, []).append(band.index)
    planes: list[NDArray[Any]] = []
    with contextlib.ExitStack() as stack:
        datasets = [stack.enter_context(rasterio.open(path)) for path in places]
        cheap = all(map(_is_cheap, datasets))  # of one shape, whichever of the files have overviews
        for dataset, indexes in zip(datasets, places.values(), strict=True):
            planes.extend(_small_planes(dataset, indexes, cheap))
    return np.stack(planes, axis=2)


def _factor(dataset: Any) -> float:
    longer = int(max(dataset.height, dataset.width))
    return max(1.0, longer / _SIDE)


def _is_cheap(dataset: Any) -> bool:
    """Whether the small version can be read without decoding too much."""
    useful = [f * f for f in dataset.overviews(1) if f <= _factor(dataset)]
    return bool(dataset.height * dataset.width <= _CHEAP_PIXELS * max(useful, default=1))


def _small_planes(dataset: Any, indexes: list[int], cheap: bool) -> NDArray[Any]:
    height, width = dataset.height, dataset.width
    if cheap:
        factor = _factor(dataset)
        shape = (len(indexes), max(1, round(height / factor)), max(1, round(width / factor)))
        planes: NDArray[Any] = dataset.read(indexes, out_shape=shape)
        return planes
    rows, cols = _cell_centres(height), _cell_centres(width)
    points = np.empty((len(indexes), len(rows), len(cols)), np.dtype(dataset.dtypes[indexes[0] - 1]))
    for y, row in enumerate(rows):
        for x, col in enumerate(cols):
            points[:, y, x] = dataset.read(indexes, window=RasterioWindow(col, row, 1, 1))[:, 0, 0]
    return points


def _cell_centres(length: int) -> list[int]:
    return [int((i + 0.5) * length / _LATTICE) for i in range(_LATTICE)]


def _frequent_border(pixels: NDArray[Any]) -> float | None:
    """The number that most pixels of the border hold in all bands."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])  # (n, band)
    level = border[(border == border[:, :1]).all(axis=1), 0]
    if not level.size:
        return None
    numbers, counts = np.unique(level, return_counts=True)
    return float(numbers[counts.argmax()])


def _from_border(same: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of `same` that is connected to the border by rows and columns.

    A sweep carries the mark along whole rows and columns in both directions, so a collar with few corners is
    done in a few sweeps.
    """
    reached = np.zeros_like(same)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        reached[edge] = same[edge]
    count = -1
    while count != (count := int(reached.sum())):
        for axis in (0, 1):
            reached = _carried(reached, same, axis)
            reached = np.flip(_carried(np.flip(reached, axis), np.flip(same, axis), axis), axis)
    return reached


def _carried(reached: NDArray[np.bool_], same: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Marks moved forward along an axis until `same` ends: the last mark must be later than the last gap."""
    shape = [1, 1]
    shape[axis] = same.shape[axis]
    place = np.arange(1, same.shape[axis] + 1).reshape(shape)
    last_mark = np.maximum.accumulate(np.where(reached, place, 0), axis=axis)
    last_gap = np.maximum.accumulate(np.where(same, 0, place), axis=axis)
    return same & (last_mark > last_gap)
