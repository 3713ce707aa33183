"""Statistics of a raster, as its file carries them; those of its blocks add up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_NUMBERS = ("pixels", "valid", "minimum", "maximum", "total", "squares")


@dataclass(frozen=True, slots=True)
class Statistics:
    """What was seen on the way: valid pixels only. Values are digital numbers, before any scale."""

    pixels: int = 0
    """All pixels of the raster."""
    valid: int = 0
    """Pixels other than nodata."""
    minimum: int = 255
    maximum: int = 0
    total: int = 0
    """Sum of the values."""
    squares: int = 0
    """Sum of the squared values."""
    counts: Mapping[int, int] = field(default_factory=dict)
    """Pixels by class id; empty for a quantity."""

    @property
    def mean(self) -> float:
        """Mean; NaN where nothing is valid."""
        return self.total / self.valid if self.valid else math.nan

    @property
    def stddev(self) -> float:
        """Standard deviation; NaN where nothing is valid."""
        return math.sqrt(max(self.squares / self.valid - self.mean**2, 0.0)) if self.valid else math.nan

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Statistics:
        """From `facts`, by way of JSON or not.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: they are none.
        """
        numbers = {name: int(facts[name]) for name in _NUMBERS}
        return cls(**numbers, counts={int(key): int(count) for key, count in facts["counts"].items()})

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.pixels + other.pixels,
            self.valid + other.valid,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.total + other.total,
            self.squares + other.squares,
            {k: self.counts.get(k, 0) + other.counts.get(k, 0) for k in {**self.counts, **other.counts}},
        )


def tile_statistics(pixels: NDArray[np.uint8], nodata: int, ids: tuple[int, ...]) -> Statistics:
    """Statistics of (y, x) pixels: counts for classes, moments for quantities.

    All of them follow from how often each number occurs. That is one call, and other threads run meanwhile:
    with one call an id they would mostly wait for each other.
    """
    together = np.ascontiguousarray(pixels)
    counts = Image.frombuffer("L", together.shape[::-1], together, "raw", "L", 0, 1).histogram()
    seen = {number: count for number, count in enumerate(counts) if count and number != nodata}
    valid = sum(seen.values())
    if ids:
        return Statistics(pixels.size, valid, counts={i: seen.get(i, 0) for i in ids})
    if valid == 0:
        return Statistics(pixels.size)
    return Statistics(
        pixels.size,
        valid,
        min(seen),
        max(seen),
        sum(number * count for number, count in seen.items()),
        sum(number**2 * count for number, count in seen.items()),
    )
