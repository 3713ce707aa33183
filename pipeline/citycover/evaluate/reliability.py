"""Whether a map is as often right as it says: its confidence against the truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.raster import ClassRaster
from citycover.files.remote import Place
from citycover.geometry.window import Window

BINS = 10
"""Of confidence, from 0 to 1."""


@dataclass(frozen=True)
class Reliability:
    """Pixels (points) in bins of the probability that the map gave the class it chose; two of them add up.

    >>> r = Reliability.of(np.array([0, 1]), np.array([0, 0]), np.array([204, 204]))
    >>> r.counts[8].item(), r.hits[8].item(), round(r.expected_calibration_error, 3)
    (2, 1, 0.3)
    """

    counts: NDArray[np.int64]
    """(bin,)"""
    hits: NDArray[np.int64]
    """(bin,) that the map is right about."""
    sums: NDArray[np.int64]
    """(bin,) of confidence, in steps of 1/255."""

    @classmethod
    def empty(cls) -> Reliability:
        """Nothing counted yet."""
        return cls(*(np.zeros(BINS, np.int64) for _ in range(3)))

    @classmethod
    def of(
        cls, truth: NDArray[np.integer], mapped: NDArray[np.integer], steps: NDArray[np.integer]
    ) -> Reliability:
        """Count pixels.

        Args:
            truth: (...) ranks of classes; negative: no class.
            mapped: the same for the map.
            steps: (...) confidence in 1/255; 0: none.
        """
        seen = (truth >= 0) & (mapped >= 0) & (steps > 0)
        sure, right = steps[seen].astype(np.int64), truth[seen] == mapped[seen]
        place = np.minimum(sure * BINS // 255, BINS - 1)
        weights = (None, right, sure)
        counts, hits, sums = (np.bincount(place, w, BINS).round().astype(np.int64) for w in weights)
        return cls(counts, hits, sums)

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.counts + other.counts, self.hits + other.hits, self.sums + other.sums)

    @property
    def expected_calibration_error(self) -> float:
        """Mean difference between what is right and what was said, bins weighted by their pixels.

        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger (2017): On calibration of modern neural networks. ICML.
        """
        return float(np.abs(self.hits - self.sums / 255).sum() / max(1, self.counts.sum()))

    def report(self) -> dict[str, Any]:
        """As plain values; bins that hold nothing are left out."""
        return {
            "expected_calibration_error": self.expected_calibration_error,
            "bins": [
                {
                    "from": k / BINS,
                    "to": (k + 1) / BINS,
                    "pixels": int(n),
                    "confidence": float(self.sums[k] / 255 / n),
                    "right": float(self.hits[k] / n),
                }
                for k, n in enumerate(self.counts.tolist())
                if n
            ],
        }


class Certainty:
    """The confidence of a map, read beside it and held against the truth."""

    def __init__(self, path: Place) -> None:
        self._path = path
        self._raster: ClassRaster | None = None
        self.found = Reliability.empty()
        """What was added so far."""

    @contextmanager
    def on(self, grid: GeoBox | None = None) -> Iterator[None]:
        """Opened on a grid; None: its own.

        Raises:
            ConfigError: it cannot be opened.
        """
        with ClassRaster(self._path, "confidence", onto=grid) as self._raster:
            yield
        self._raster = None

    def add(self, window: Window, truth: NDArray[np.integer], mapped: NDArray[np.integer]) -> None:
        """Count (y, x) ranks of a window."""
        assert self._raster is not None, "it is opened"
        steps, valid = self._raster.read(window)
        self.found += Reliability.of(truth, mapped, np.where(valid, steps, 0))
