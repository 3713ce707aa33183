"""The target domain: images without labels, of which any part with pixels may be drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from citycover.errors import ConfigError
from citycover.geometry.window import Window
from citycover_models.data.cells import CELLS, Cells, cell_side
from citycover_models.data.pairs import Pair
from citycover_models.data.sampling import SamplePlan

_OTHER = 1 << 40
"""Added to the seed: chips of the target are drawn by numbers of their own."""


def plan_targets(
    pairs: Sequence[Pair], *, chip: int, chips_per_epoch: int, seed: int, scales: tuple[float, ...] = (1.0,)
) -> SamplePlan:
    """Look at every pixel of the targets once, and draw chips evenly from those that are valid.

    Args:
        pairs: images; labels are not looked at, and none are held out.
        chip: side in pixels, after enlargement.
        chips_per_epoch: as of the source, so that either domain fills its half of a step.
        seed: of the training.
        scales: enlargements to draw from.

    Raises:
        ConfigError: a target has no valid pixel.
    """
    cells = tuple(_count_valid(pair, chip, CELLS // len(pairs)) for pair in pairs)
    return SamplePlan(cells, chip, chips_per_epoch, "uniform", seed + _OTHER, scales)


def _count_valid(pair: Pair, chip: int, most: int) -> Cells:
    """Valid pixels of an image on cells, read in strips of one row of cells."""
    height, width = pair.shape
    side = cell_side((height, width), chip, most)
    rows, cols = -(-height // side), -(-width // side)
    counts = np.zeros((rows, cols, 1), np.float32)
    reader = pair.image_reader()
    for row in range(rows):
        strip = Window(row * side, 0, min(side, height - row * side), width)
        values = np.empty((strip.height, width, reader.bands), reader.dtype)
        valid = np.empty((strip.height, width), np.bool_)
        reader.read_into(strip, values, valid)
        counts[row, :, 0] = _by_columns(valid.sum(0), side, cols)
    reader.close()
    if not counts.any():
        raise ConfigError(
            f"target {pair.name} has no valid pixel: all of it is nodata; give imagery with pixels, or check "
            "--nodata"
        )
    return Cells((height, width), side, counts, np.zeros((1, 1), np.bool_), max(height, width))


def _by_columns(per_column: NDArray[np.int64], side: int, cols: int) -> NDArray[np.int64]:
    """(x,) -> (cell col,) sums; the last cell may be narrower."""
    padded = np.zeros(cols * side, np.int64)
    padded[: len(per_column)] = per_column
    summed: NDArray[np.int64] = padded.reshape(cols, side).sum(1)
    return summed
