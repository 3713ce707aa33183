"""Find nodata that no tag declares: one constant that touches the border of a scene.

A hint for the user, never a guess that changes a map. Looks at a small version of the scene (`small.py`),
because reading all of a large file only to warn would cost more than the warning is worth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError

from citycover.read.small import Hints, some_sheets
from citycover.scene.scene import Scene, Sheet

COLLAR_SHARE = 0.01
"""Share of a scene above which a constant at its border is worth a warning."""


def constant_border(scene: Scene, hints: Hints, within: GeoBox | None = None) -> tuple[float | None, float]:
    """The number that may be undeclared nodata, and the share of the scene that it fills from the border in.

    Pixels count where all bands hold the same number, one that is frequent along the border, and are
    connected to the border through such pixels.

    Args:
        scene: that is looked at.
        hints: small versions of its files.
        within: what is to be seen of it; None: all.

    Returns:
        The number and its share of all pixels of the first sheet that has it, of those looked at; (None,
        0.0) where the share is at most `COLLAR_SHARE`, where the scene declares what is invalid, or where it
        cannot be read cheaply.
    """
    found = (_of_sheet(sheet, hints) for sheet in some_sheets(scene.groups[0], within))
    return next((hint for hint in found if hint[0] is not None), (None, 0.0))


def _of_sheet(sheet: Sheet, hints: Hints) -> tuple[float | None, float]:
    if any(band.validity != "none" or band.promise for band in sheet.bands):
        return None, 0.0
    try:
        small = hints.of(sheet.files)
    except RasterioError:
        return None, 0.0  # reading for the map reports what is wrong, with its place
    if small is None:
        return None, 0.0
    pixels = np.moveaxis(np.ma.getdata(small), 0, 2)  # (y, x, band)
    value = _frequent_border(pixels)
    if value is None or value not in (pixels.min(), pixels.max()):
        return None, 0.0  # fill lies at an end of the range; smooth water or cloud seldom does
    share = float(_from_border((pixels == value).all(axis=2)).mean())
    return (value, share) if share > COLLAR_SHARE else (None, 0.0)


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
