"""Colours from numbers: a stretch of an image, a palette of classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend

_STOPS = np.array([(122, 4, 3), (239, 138, 98), (253, 219, 199), (146, 197, 222), (33, 102, 172)])
"""From no confidence to full: red to blue, which differ to the colour-blind too."""

CONFIDENCE_RAMP: NDArray[np.uint8] = (
    np.stack([np.interp(np.arange(256), np.linspace(0, 255, len(_STOPS)), c) for c in _STOPS.T], 1)
    .round()
    .astype(np.uint8)
)
"""(256, 3) colour of each step of 1/255."""


def stretch(image: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(y, x, 3) uint8: each band from its 2nd to its 98th percentile over valid pixels."""
    planes = np.moveaxis(image.astype(np.float32), 2, 0)
    bands = [between(band, *shown_range(band, valid)) for band in planes]
    return np.stack(bands if len(bands) == 3 else bands[:1] * 3, axis=2)


def shown_range(band: NDArray[np.floating], valid: NDArray[np.bool_]) -> tuple[float, float]:
    """2nd and 98th percentile of a (y, x) band over valid pixels; 0 and 1 where there are none."""
    good = valid & np.isfinite(band)
    if not good.any():
        return 0.0, 1.0
    low, high = np.percentile(band[good], (2, 98))
    return low, high


def between(band: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """(y, x) uint8: 0 at and below `low`, 255 at and above `high`."""
    scaled = (np.nan_to_num(band) - low) * (255 / max(high - low, 1e-6))
    shown: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return shown


def colorize(classes: NDArray[np.uint8], legend: Legend) -> NDArray[np.uint8]:
    """(y, x, 3) uint8: legend colours; ids without one are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for entry in legend.classes:
        table[entry.id] = entry.rgb
    return table[classes]
