"""Chips as tensors: decoded by worker processes, in the order of the plan."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.geometry.window import Window
from citycover.read.raster import RasterReader
from citycover_models.data.labels import IGNORE, LabelReader
from citycover_models.data.pairs import Pair
from citycover_models.data.sampling import Chip
from citycover_models.imagery.aerial import AerialStatistics

logger = logging.getLogger(__name__)

_TOLD: set[str] = set()
"""Images of which it was said, by this process or the one that it is a fork of, that parts are lost."""

_OPEN = 64
"""Images kept open at once by a process: thousands would use up its file handles."""


class ChipReader:
    """Reads chips of several pairs; files are opened at the first read, in the process that reads.

    Args:
        pairs: what chips are of.
        fill: one digital number a band, for pixels that are invalid; NaN: the mean of the others of a chip.
        brought: statistics of these images and of others: numbers are brought from the one to the other, band
            by band, and come out as float32; None: raw numbers.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        fill: Sequence[float],
        brought: tuple[AerialStatistics, AerialStatistics] | None = None,
    ) -> None:
        self._pairs = tuple(pairs)
        self._fill = tuple(fill)
        self._brought = brought
        # One type for all images: chips of several stand in one batch.
        eight_bit = all(pair.scene.groups[0].dtype == "uint8" for pair in self._pairs)
        self._kind = np.uint8 if eight_bit and brought is None else np.float32
        self._open: dict[int, tuple[RasterReader, LabelReader]] = {}

    def read(self, chip: Chip) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """(y, x, band) uint8 or float32 numbers, and (y, x) channels."""
        image, labels = self._readers(chip.pair)
        height, width = image.shape
        side = chip.window.height
        kept = chip.side or side
        channels = np.full((side, side), IGNORE, np.uint8)
        inside = chip.window.clip(Window(0, 0, height, width))
        assert inside is not None, "chips touch their image"
        values = np.empty((inside.height, inside.width, image.bands), image.dtype)
        valid = np.empty((inside.height, inside.width), np.bool_)
        holes = image.read_into(inside, values, valid)
        if holes and (name := self._pairs[chip.pair].name) not in _TOLD:
            _TOLD.add(name)
            first = f"{holes[0].path}: {holes[0].reason}"
            logger.warning("parts of %s cannot be read (%s): nothing is learned there", name, first)
        here = inside.shift(-chip.window.row, -chip.window.col).slices
        seen = self._brought_over(values[valid])
        fill = np.asarray(self._fill, np.float64)
        if np.isnan(fill).any():
            fill = np.where(np.isnan(fill), seen.mean(0, np.float64) if len(seen) else 0, fill)
        pixels = np.empty((side, side, image.bands), self._kind)
        pixels[...] = fill.astype(self._kind)
        pixels[here][valid] = seen
        channels[here] = np.where(valid, labels.read(inside), IGNORE)
        return (pixels, channels) if kept == side else resized(pixels, channels, kept)

    def _brought_over(self, values: NDArray[Any]) -> NDArray[Any]:
        """(pixel, band) numbers of these images as the other sensor would have given them."""
        if self._brought is None:
            return values
        (mean, std), (to_mean, to_std) = (np.array((s.mean, s.std), np.float32) for s in self._brought)
        return (values - mean) / std * to_std + to_mean

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


def as_planes(pixels: NDArray[Any]) -> Tensor:
    """(y, x, band) numbers of a chip -> (band, y, x), as networks take them."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def resized(
    pixels: NDArray[Any], channels: NDArray[np.uint8], side: int
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """A square chip brought to another side: pixels bilinear (averaged where they shrink), labels nearest.

    Args:
        pixels: (y, x, band).
        channels: (y, x).
        side: in pixels.
    """
    planes = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))[None]
    fitted = torch.nn.functional.interpolate(planes, size=[side, side], mode="bilinear", antialias=True)
    values = fitted[0].numpy().transpose(1, 2, 0)
    if pixels.dtype == np.uint8:
        values = values.round().clip(0, 255)
    nearest = ((np.arange(side) + 0.5) * len(channels) / side).astype(np.intp)
    return values.astype(pixels.dtype), channels[np.ix_(nearest, nearest)]
