"""Chips as tensors: decoded by worker processes, in the order of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.read.raster import RasterReader
from citycover_models.data.labels import IGNORE, LabelReader
from citycover_models.data.pairs import Pair
from citycover_models.data.sampling import Chip

_OPEN = 64
"""Images kept open at once by a process: thousands would use up its file handles."""


class ChipReader:
    """Reads chips of several pairs; files are opened at the first read, in the process that reads."""

    def __init__(self, pairs: Sequence[Pair], fill: Sequence[float]) -> None:
        self._pairs = tuple(pairs)
        self._fill = tuple(fill)
        # One type for all images: chips of several stand in one batch.
        eight_bit = all(pair.scene.groups[0].dtype == "uint8" for pair in self._pairs)
        self._kind = np.uint8 if eight_bit else np.float32
        self._open: dict[int, tuple[RasterReader, LabelReader]] = {}

    def read(self, chip: Chip) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """(y, x, band) uint8 or float32 numbers, and (y, x) channels."""
        image, labels = self._readers(chip.pair)
        height, width = image.shape
        side = chip.window.height
        pixels = np.empty((side, side, image.bands), self._kind)
        pixels[...] = np.nan_to_num(np.asarray(self._fill)).astype(self._kind)
        channels = np.full((side, side), IGNORE, np.uint8)
        inside = chip.window.clip(Window(0, 0, height, width))
        assert inside is not None, "chips touch their image"
        values = np.empty((inside.height, inside.width, image.bands), image.dtype)
        valid = np.empty((inside.height, inside.width), np.bool_)
        image.read_into(inside, values, valid)
        here = inside.shift(-chip.window.row, -chip.window.col).slices
        pixels[here][valid] = values[valid]
        channels[here] = np.where(valid, labels.read(inside), IGNORE)
        return pixels, channels

    def _readers(self, number: int) -> tuple[RasterReader, LabelReader]:
        """Readers of a pair; those used longest ago are closed when there are many."""
        pair = self._pairs[number]
        readers = self._open.pop(number, None) or (pair.image_reader(), pair.label_reader())
        self._open[number] = readers
        if len(self._open) > _OPEN:
            for reader in self._open.pop(next(iter(self._open))):
                reader.close()
        return readers

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}
