"""MaskReader: where the ground of a sheet is hidden, as a mask of any resolution says.

Pixels of the sheet take the pixel of the mask that their centre lies in. What is hidden grows by a distance
in pixels of the mask; a window is read with that much around it, so any division into windows hides the same.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.geometry.window import Window
from citycover.read.file import BandFile
from citycover.read.reader import Hole
from citycover.scene.scene import MaskSource


class MaskReader:
    """Reads one mask for windows of a sheet."""

    def __init__(self, mask: MaskSource, sheet: GeoBox) -> None:
        """Open it.

        Args:
            mask: what is read.
            sheet: the grid whose pixels are asked for.

        Raises:
            RasterioError: it cannot be opened.
        """
        self.mask, self.sheet = mask, sheet
        self.file = BandFile(mask.source.path, [mask.source], [0])
        self._to_mask = ~mask.grid.transform * sheet.transform

    def hide(self, window: Window, valid: NDArray[np.bool_]) -> list[Hole]:
        """Clear `valid` (y, x) of a window of the sheet where the ground is hidden, or the mask says nothing.

        Returns:
            Parts of the mask that cannot be read, in pixels of the sheet.
        """
        to, (height, width) = self._to_mask, self.mask.grid.shape
        rows = _indexes(window.row, window.height, to.e, to.f, height)
        cols = _indexes(window.col, window.width, to.a, to.c, width)
        needed = Window(
            int(rows.min()), int(cols.min()), int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1
        )  # north may be down
        own = needed.grow(math.ceil(max(self.mask.grow))).clip(Window(0, 0, height, width))
        assert own is not None, "indexes lie inside the mask"
        numbers = np.empty((own.height, own.width, 1), self.mask.source.dtype)
        seen = np.ones((own.height, own.width), np.bool_)
        holes = self.file.read(own, numbers, seen)
        hidden = self._hidden(numbers[:, :, 0]) & seen
        if any(self.mask.grow) and hidden.any():
            from scipy.ndimage import distance_transform_edt  # takes as long as a small map

            down, right = self.mask.grow
            hidden = np.asarray(distance_transform_edt(~hidden, sampling=(1 / down, 1 / right)) <= 1)
        valid &= ~(hidden | ~seen)[np.ix_(rows - own.row, cols - own.col)]
        return [there for hole in holes if (there := self._on_sheet(hole, window))]

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()

    def _hidden(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        if self.mask.bits:
            return np.asarray(numbers.astype(np.int64) & sum(1 << bit for bit in self.mask.bits) != 0)
        return np.isin(numbers, self.mask.values)

    def _on_sheet(self, hole: Hole, window: Window) -> Hole | None:
        """A hole in pixels of the sheet, as far as it lies in the window."""
        back, part = ~self._to_mask, hole.window
        ys = sorted(back.e * row + back.f for row in (part.row, part.row_end))
        xs = sorted(back.a * col + back.c for col in (part.col, part.col_end))
        row, col = math.floor(ys[0]), math.floor(xs[0])
        there = Window(row, col, math.ceil(ys[1]) - row, math.ceil(xs[1]) - col).clip(window)
        return Hole(there, hole.path, hole.reason) if there else None


def _indexes(start: int, count: int, scale: float, offset: float, most: int) -> NDArray[np.intp]:
    """Pixels of the mask that centres of pixels lie in; the last one where it ends a pixel too early."""
    at = np.floor(scale * (np.arange(start, start + count) + 0.5) + offset)
    return np.asarray(np.clip(at, 0, most - 1), np.intp)
