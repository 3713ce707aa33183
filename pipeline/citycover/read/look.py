"""What a look at a file says of its numbers: a few statistics from a small version of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from citycover.read.small import read_small
from citycover.scene.file import FileInfo

_LONGEST = 1024
"""Pixels of a side that statistics are taken from."""


@dataclass(frozen=True, slots=True)
class Look:
    """Statistics of a file's pixels."""

    valid: float
    """Share of the pixels that are valid in every band."""
    bands: tuple[tuple[float, float, float] | None, ...]
    """(smallest, mean, largest) digital number of each band; None: it has no valid pixel."""


def look_at(info: FileInfo) -> Look | None:
    """Statistics of a file; None where a look would take too long, or its numbers are complex.

    Raises:
        RasterioError: it cannot be read.
    """
    pixels = read_small({info.path: range(1, len(info.bands) + 1)}, _LONGEST)
    if pixels is None or np.iscomplexobj(pixels):
        return None
    pixels = np.ma.masked_invalid(pixels.astype("float64"))  # (band, y, x)
    clear = np.zeros(pixels.shape[1:], np.bool_)
    for plane, colour in zip(pixels, info.colours, strict=True):
        if colour == "alpha":
            clear |= plane.filled(0) == 0
    pixels[:, clear] = np.ma.masked
    return Look(
        valid=1 - float(np.ma.getmaskarray(pixels).any(0).mean()),
        bands=tuple(
            None if band.count() == 0 else (float(band.min()), float(band.mean()), float(band.max()))
            for band in pixels
        ),
    )
