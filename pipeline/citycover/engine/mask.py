"""Which pixels count: validity of the input, and the same on the grid of the output. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window


def valid_in_all(groups: Sequence[NDArray[np.bool_]], ratios: Sequence[int]) -> NDArray[np.bool_]:
    """Pixels that are valid in every band group.

    Args:
        groups: (y, x) of each group; the first is the finest, and the others cover at least as much.
        ratios: fine pixels along the side of one pixel of the group; 1 for the first.

    Returns:
        (y, x) of the finest group.
    """
    valid = groups[0]
    height, width = valid.shape
    for coarse, ratio in zip(groups[1:], ratios[1:], strict=True):
        fine = coarse.repeat(ratio, axis=0).repeat(ratio, axis=1)  # (y, x) of the finest group or beyond
        valid = valid & fine[:height, :width]
    return valid


def on_output(
    valid: NDArray[np.bool_], origin: tuple[int, int], window: Window, scale: Fraction
) -> NDArray[np.bool_]:
    """Validity on the grid of the output: a pixel is valid where any input pixel under it is.

    Args:
        valid: (y, x) input pixels; beyond its lower and right end nothing is valid.
        origin: (y, x) of its first pixel on the input's grid.
        window: output pixels; the input pixel under its first one lies in `valid`.
        scale: output pixels per input pixel. Both grids have the same upper left corner.

    Returns:
        (y, x) of `window`.
    """
    up, down = scale.numerator, scale.denominator
    # A window may begin inside an input pixel, where that is several output pixels wide: `above` and `left`
    # are the output pixels of the period of both grids that lie before it.
    row, above = window.row // up * down - origin[0], window.row % up
    col, left = window.col // up * down - origin[1], window.col % up
    assert min(row, col) >= 0, f"{window} begins before {origin}"
    high, wide = _ceil((above + window.height) / scale), _ceil((left + window.width) / scale)
    found = _rescale(valid[row : row + high, col : col + wide], up, down)[above:, left:]
    seen = np.zeros((window.height, window.width), np.bool_)
    height, width = min(found.shape[0], window.height), min(found.shape[1], window.width)
    seen[:height, :width] = found[:height, :width]
    return seen


def _ceil(value: Fraction) -> int:
    return int(-(-value // 1))


def _rescale(valid: NDArray[np.bool_], up: int, down: int) -> NDArray[np.bool_]:
    """Validity on a grid `up / down` as fine: a coarser pixel is valid where any pixel under it is."""
    if up > 1:
        valid = valid.repeat(up, axis=0).repeat(up, axis=1)  # (y * up, x * up)
    if down > 1:
        pad = [(0, -n % down) for n in valid.shape]
        height, width = valid.shape[0] + pad[0][1], valid.shape[1] + pad[1][1]
        cells = np.pad(valid, pad).reshape(height // down, down, width // down, down)
        valid = np.logical_or.reduce(cells, axis=(1, 3))  # (y * up / down, x * up / down), rounded up
    return valid
