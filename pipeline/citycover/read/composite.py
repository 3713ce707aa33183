"""Several dates of a place become one image, pixel by pixel. Pure numpy.

    median   of each band over the dates that are valid there; of an even number between those in the middle
    best     one date with all its bands, as it was seen: the medoid, whose bands lie nearest to those medians

The median of each band is robust to what clouds and their shadows leave over, but its bands may be of
different dates; the medoid keeps relations between bands. Two dates are equally near to what lies between
them: of equals the latest is taken. The medoid as the date nearest to the medians, by the sum of squared
differences: Kennedy et al., Remote Sensing 10(5), 2018, 691; the idea: Flood, Remote Sensing 5(12), 2013,
6481-6500.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["median", "best"]


def compose(
    kind: Kind, values: NDArray[Any], valid: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """One image of several dates.

    Args:
        kind: median or best.
        values: (date, y, x, band), the latest first; where a date is invalid its numbers are not looked at.
        valid: (date, y, x).

    Returns:
        (y, x, band) numbers: medians as float64, what was best in the type of `values`; and (y, x) where any
        date is valid.
    """
    middle = _medians(values, valid)
    seen = np.asarray(valid.any(axis=0))
    if kind == "median":
        return middle, seen
    far = np.zeros(valid.shape)
    for band in range(values.shape[3]):
        with np.errstate(invalid="ignore", over="ignore"):  # numbers that are not valid may be anything
            far += (values[..., band] - middle[..., band]) ** 2
    far[~valid] = np.inf
    nearest = far.argmin(axis=0)  # of equals the first, which is the latest
    return np.take_along_axis(values, nearest[None, ..., None], axis=0)[0], seen


def _medians(values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(y, x, band) medians of valid numbers; anything where there is none."""
    last = np.inf if values.dtype.kind == "f" else np.iinfo(values.dtype).max
    ranked = np.where(valid[..., None], values, np.asarray(last, values.dtype))
    ranked.sort(axis=0)  # what is invalid comes last
    count = valid.sum(axis=0)[None, ..., None]
    low, high = (
        np.take_along_axis(ranked, np.maximum(place, 0), axis=0)[0].astype(np.float64)
        for place in ((count - 1) // 2, count // 2)
    )
    with np.errstate(invalid="ignore"):
        return np.asarray((low + high) / 2)
