"""Class-balanced pseudo-labels (LoveCS): of the pixels that look like a class, the best tenth is believed.

Scores come as levels, whole numbers in 16 bits, because those of a city are kept on disk and counted:

    tau_c = the score at rank floor(p N_c), counted from 1, of every 16th pixel of those that look like c
    label = argmax_c score_c / tau_c, where that is 1 or more; elsewhere there is none

A logit may be 0 or less, where that ratio says nothing, or the contrary. (score_c - tau_c) / |tau_c| is the
same ratio less 1 where tau_c is positive, and grows with the score everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover_models.data.labels import IGNORE
from citycover_models.nets.semantic_fpn import Score

BASE = 255
"""A level is two digits to this base, so that each digit fits into a byte beside a number for nodata."""

LEVELS = BASE * BASE

EVERY = 16
"""Of the pixels of a class, one in so many is looked at, row by row."""

LOGIT_RANGE = 64.0
"""Logits from minus half of it to half of it are told apart."""


def score_of(level: NDArray[np.integer], score: Score) -> NDArray[np.float64]:
    """What a level stands for: a probability, or a logit."""
    share = level / (LEVELS - 1)
    values: NDArray[np.float64] = share if score == "probability" else (share - 0.5) * LOGIT_RANGE
    return values


@dataclass
class ScoreCounts:
    """How often each level was the best of its pixel, class by class."""

    counts: NDArray[np.int64]
    """(class, level)."""
    passed: NDArray[np.int64]
    """(class,) pixels of each class that went by: the 16th of them is counted, across strips and images."""

    @classmethod
    def empty(cls, classes: int) -> ScoreCounts:
        """Nothing counted yet."""
        return cls(np.zeros((classes, LEVELS), np.int64), np.zeros(classes, np.int64))

    def add(self, levels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Count a strip.

        Args:
            levels: (class, y, x), the full width of an image, strips from top to bottom.
            valid: (y, x).
        """
        predicted, best = levels.argmax(0)[valid], levels.max(0)[valid]
        for c in range(len(levels)):
            own = best[predicted == c]
            first = int(-self.passed[c] % EVERY)
            self.counts[c] += np.bincount(own[first::EVERY], minlength=LEVELS)
            self.passed[c] += len(own)

    def thresholds(self, portion: float, score: Score) -> NDArray[np.float64]:
        """(class,) tau; infinite where the rank is 0, so that nothing passes."""
        found = np.full(len(self.counts), np.inf)
        for c, counts in enumerate(self.counts):
            rank = int(portion * counts.sum())
            if rank:
                at_least = counts[::-1].cumsum()  # pixels of this level or a higher one, from the top
                level = LEVELS - 1 - int(np.searchsorted(at_least, rank))
                found[c] = score_of(np.array(level), score)
        return found


def pseudo_labels(scores: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Labels of what is believed.

    Args:
        scores: (class, y, x).
        thresholds: (class,) of `ScoreCounts.thresholds`.

    Returns:
        (y, x) ranks, `IGNORE` where no class reaches its threshold.
    """
    known = np.isfinite(thresholds)
    tau = np.where(known, thresholds, 0)[:, None, None]
    above = (scores - tau) / np.maximum(np.abs(tau), LOGIT_RANGE / LEVELS)  # a level, where tau is 0
    above[~known] = -np.inf
    return np.where(above.max(0) >= 0, above.argmax(0), IGNORE).astype(np.uint8)
