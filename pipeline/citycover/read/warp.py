"""Pixels at any positions of a raster: nearest, bilinear, cubic or averaged. Pure numpy.

A kernel is a weight for each input pixel around a position, along y times along x. Where an output pixel
spans several of the input, bilinear and cubic kernels grow with it, as in GDAL, and the average weighs what
it covers. Invalid pixels have no weight; an output pixel is valid where at least half of its weight is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.model.kernel import Kernel

_HALF = 0.5 - 1e-6

_SURE = 1e-6
"""Pixels; positions on the border of two pixels are of the lower right one, whatever rounding says."""


def support(kernel: Kernel, scale: float) -> float:
    """Input pixels on each side of a position that a kernel looks at.

    Args:
        kernel: which.
        scale: input pixels along an output pixel.
    """
    wide = max(1.0, scale)
    return {"nearest": 0.5, "bilinear": wide, "cubic": 2 * wide, "average": 0.5 * wide}[kernel]


def sample(
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    rows: NDArray[np.float64],
    cols: NDArray[np.float64],
    kernel: Kernel,
    scale: tuple[float, float],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Weigh the pixels around positions together.

    Args:
        values: (y, x, band) input.
        valid: (y, x); numbers elsewhere are not looked at.
        rows: (y, x) of the output: positions in the input, in pixels from its corner; NaN: nowhere.
        cols: likewise.
        kernel: how.
        scale: (y, x) input pixels along an output pixel.

    Returns:
        (y, x, band) values, 0 where invalid, and (y, x) validity of the output.
    """
    height, width, bands = values.shape
    nowhere = ~(np.isfinite(rows) & np.isfinite(cols))
    rows, cols = np.where(nowhere, -9.0, rows), np.where(nowhere, -9.0, cols)
    first_row, row_weights = _taps(rows, kernel, scale[0])
    first_col, col_weights = _taps(cols, kernel, scale[1])
    total = np.zeros((*rows.shape, bands), np.float64)
    weight, whole = np.zeros(rows.shape), np.zeros(rows.shape)
    clean = np.where(valid[..., None], values, 0)  # NaN times no weight would be NaN
    for i, down in enumerate(row_weights):
        row = first_row + i
        for j, right in enumerate(col_weights):
            col = first_col + j
            inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
            y, x = np.where(inside, row, 0), np.where(inside, col, 0)
            share = down * right
            whole += share
            share = np.where(inside & valid[y, x], share, 0)
            weight += share
            total += share[..., None] * clean[y, x]
    seen = (weight >= _HALF * whole) & ~nowhere
    return (
        np.where(seen[..., None], total / np.where(seen, weight, 1)[..., None], 0).astype(np.float32),
        seen,
    )


def _taps(
    at: NDArray[np.float64], kernel: Kernel, scale: float
) -> tuple[NDArray[np.intp], list[NDArray[np.float64]]]:
    """The first input pixel that each position looks at, and the weights of it and of those behind it."""
    if kernel == "nearest":
        return np.floor(at + _SURE).astype(np.intp), [np.ones_like(at)]
    reach, wide = support(kernel, scale), max(1.0, scale)
    first = np.floor(at - reach + 0.5 if kernel != "average" else at - reach + _SURE).astype(np.intp)
    count = math.ceil(2 * reach) + (1 if kernel == "average" else 0)
    weights = []
    for tap in range(count):
        low = first + tap
        if kernel == "average":
            covered = np.minimum(at + reach, low + 1) - np.maximum(at - reach, low)
            weights.append(np.clip(covered, 0, 1))
        else:
            away = np.abs(low + 0.5 - at) / wide
            weights.append(np.clip(1 - away, 0, 1) if kernel == "bilinear" else _keys(away))
    return first, weights


def _keys(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic convolution with a = -0.5: Keys, IEEE Transactions on Acoustics 29(6), 1981, eq. 15."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
