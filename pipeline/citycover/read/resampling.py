"""Pixels of one grid from those of another that shares its origin and axes: area average and bilinear.

Both are separable, so each output row is a weighted sum of a few input rows, then each output column of a
few input columns. Rows, columns and weights depend on the position in the whole raster only: any division
into windows gives the same numbers. Invalid pixels have no weight; an output pixel is valid where at least
half of its weight is.

    input     |  0  |  1  |  2  |  3  |  4  |        scale 1.5, average
    output    |   0    |   1    |   2    |           output 1 = (0.5 * input 1 + 1 * input 2) / 1.5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["average", "bilinear"]

_HALF = 0.5 - 1e-6


@dataclass(frozen=True, slots=True)
class Taps:
    """Which input positions each output position along one axis is made of."""

    first: int
    """First input position that is needed."""
    index: NDArray[np.intp]
    """(taps, output): input positions, counted from `first`."""
    weight: NDArray[np.float32]
    """(taps, output): they sum to one over the taps, except where the input ends within an output pixel."""

    @property
    def needed(self) -> int:
        """Input positions from `first` on that are needed."""
        return int(self.index.max()) + 1


def axis_taps(start: int, stop: int, scale: float, size: int, kind: Kind) -> Taps:
    """Taps of output positions start..stop along an axis of `size` input positions.

    Args:
        start: first output position.
        stop: one past the last.
        scale: input positions per output position.
        size: length of the input.
        kind: `average` weighs by the covered length, `bilinear` by distance to the two nearest centres.
    """
    position = np.arange(start, stop, dtype=np.float64)
    if kind == "average":
        low, high = position * scale, (position + 1) * scale
        count = int(np.ceil(scale)) + 1
        base = np.floor(low + 1e-9).astype(np.intp)
        index = base + np.arange(count)[:, None]  # (taps, output)
        weight = np.clip(np.minimum(high, index + 1) - np.maximum(low, index), 0, 1) / scale
    else:
        centre = (position + 0.5) * scale - 0.5
        base = np.floor(centre).astype(np.intp)
        index = np.stack([base, base + 1])
        weight = np.stack([1 - (centre - base), centre - base])
    if kind == "average":
        weight = np.where(index < size, weight, 0)  # beyond the last pixel nothing was observed
    index = np.clip(index, 0, size - 1)
    first = int(index.min())
    return Taps(first, index - first, weight.astype(np.float32))


def resample(
    values: NDArray[Any], valid: NDArray[np.bool_], rows: Taps, cols: Taps
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Weigh input pixels together.

    Args:
        values: (y, x, band) input.
        valid: (y, x); numbers elsewhere are not looked at.
        rows: taps along y.
        cols: taps along x.

    Returns:
        (y, x, band) values, 0 where invalid, and (y, x) validity of the output.
    """
    share = valid.astype(np.float32)[..., None]  # (y, x, 1)
    masked = np.where(valid[..., None], values, 0).astype(np.float32)
    both = np.concatenate([masked, share], axis=2)
    both = _along(_along(both, rows, 0), cols, 1)  # (output y, output x, band + 1)
    weight = both[..., -1:]
    seen = weight[..., 0] >= _HALF
    return np.where(seen[..., None], both[..., :-1] / np.maximum(weight, 1e-12), 0), seen


def _along(values: NDArray[np.float32], taps: Taps, axis: int) -> NDArray[np.float32]:
    shape = [1, 1, 1]
    shape[axis] = taps.index.shape[1]
    total: NDArray[np.float32] = np.take(values, taps.index[0], axis=axis) * taps.weight[0].reshape(shape)
    for index, weight in zip(taps.index[1:], taps.weight[1:], strict=True):
        total += np.take(values, index, axis=axis) * weight.reshape(shape)
    return total


def store(values: NDArray[np.floating[Any]], out: NDArray[Any]) -> None:
    """Write numbers into an array of another type, rounded and held within its limits."""
    if out.dtype.kind in "iu":
        limits = np.iinfo(out.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    out[...] = values
