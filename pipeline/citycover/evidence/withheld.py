"""Every fourth cell of the labels kept back, so that what is said of it can be compared with its label.

# . # .      #  kept back: no label
. . . .      .  evidence as ever; all eight neighbours of a cell that is kept back are
# . # .
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from citycover.classes.table import NO_CLASS
from citycover.evidence.cells import CellReader
from citycover.evidence.place import Placement, between_nodes
from citycover.geometry.window import Window


class WithheldCells(CellReader):
    """Cells as they are, but for those that are kept back."""

    def read(self, window: Window) -> NDArray[np.int16]:
        """(y, x) channel of each cell; NO_CLASS where it is kept back too."""
        channels = super().read(window)
        channels[window.row % 2 :: 2, window.col % 2 :: 2] = NO_CLASS  # even rows and columns
        return channels


def cells_under(place: Placement, window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(y, x) row and column of the cell that each pixel centre lies in; may lie outside of the raster.

    Args:
        place: how pixels lie among the cells.
        window: of pixels.
    """
    y, x = between_nodes(window.row, window.height), between_nodes(window.col, window.width)
    rows, cols = (np.rint(y @ (nodes @ x.T)).astype(np.int64) for nodes in place.nodes(window))
    return rows, cols


def is_withheld(row: NDArray[np.int64], col: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a cell is kept back."""
    kept_back: NDArray[np.bool_] = (row % 2 == 0) & (col % 2 == 0)
    return kept_back
