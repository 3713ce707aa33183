"""Network and labels of one place compared, pixel by pixel: what each tells of the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from citycover.evidence.noise import Contradictions, LabelNoise
from citycover.evidence.slopes import EvidenceCounts, Odds


class Comparison:
    """Counts of pixels; memory does not grow with them."""

    def __init__(self, prior: Sequence[float], pixels_per_cell: float) -> None:
        """Begin.

        Args:
            prior: (class,) mean probability of the network; 0: training never had the class.
            pixels_per_cell: pixels looked at that one labelled cell covers.
        """
        self.pixels_per_cell = pixels_per_cell
        self._contradictions = Contradictions(len(prior))
        self._evidence = EvidenceCounts(prior)

    def add(self, probabilities: NDArray[np.float32], labels: NDArray[np.integer]) -> None:
        """Count pixels.

        Args:
            probabilities: (class, ...) of the network alone.
            labels: (...) channels; NO_CLASS is left out.
        """
        self._contradictions.add(probabilities, labels)
        self._evidence.add(probabilities, labels)

    def noise(self) -> LabelNoise:
        """Of the labels, as far as the network can tell their classes apart."""
        return self._contradictions.noise(self.pixels_per_cell, self.slopes(0.0))

    def slopes(self, noise: float) -> tuple[float, ...]:
        """(class,) how far the network's word counts beside labels of which a share is wrong."""
        return self._evidence.slopes(noise, self.pixels_per_cell)

    def odds(self, noise: float) -> tuple[Odds, ...]:
        """(class,) what the network's word is most likely worth as a chance, likewise."""
        return self._evidence.odds(noise, self.pixels_per_cell)
