"""How far a network's word on each class can be taken, measured on labels of the place.

A network gives a number to every class, also to one that it never learned to tell from the others; that
number then rises and falls with something else. So, class by class, where its label lies is regressed on
the network's evidence for it:

    chance of label k = (1 - noise) sigmoid(slope_k log(P_k / prior_k) + base_k) + noise * share_k

This is the calibration slope of Cox (1958), with labels that may be wrong. At 1 evidence is worth what it
says, or more; below it overstates, and counts by that much less; at 0 and below it tells nothing. What counts
is what is nearly sure of it, nine times in ten: of a class with a handful of labels nobody knows
whether the network can tell it apart. The most likely slope and base are what its word is worth as a chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from citycover.classes.table import NO_CLASS

Odds = tuple[float, float]
"""Slope and base: the log odds of a class are most likely `slope * log(P / prior) + base`."""

_BINS = 256
_TOP = 16.0
"""Evidence is counted in bins that are even from -_TOP to _TOP; what lies beyond counts as that."""

_STEPS = 50
"""Of the fit; it ends long before."""

_ERRORS = 1.28
"""Standard errors by which a slope is taken to be less than it seems: it is more nine times in ten."""

_CLOSE = 1e-4
"""Step of slope and base that ends the fit."""


@dataclass
class EvidenceCounts:
    """Evidence for each class where its label lies, and where another does; memory does not grow."""

    prior: Sequence[float]
    """(class,) mean probability of the network; 0: training never had the class."""
    counts: NDArray[np.int64] = field(init=False)
    """(class, another label or its own, bin of evidence)."""

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.prior), 2, _BINS), np.int64)

    def add(self, probabilities: NDArray[np.float32], labels: NDArray[np.integer]) -> None:
        """Count pixels.

        Args:
            probabilities: (class, ...) of the network alone.
            labels: (...) channels; NO_CLASS is left out.
        """
        seen = labels != NO_CLASS
        label = labels[seen]
        for k, prior in enumerate(self.prior):
            if prior > 0:
                evidence = np.log(np.maximum(probabilities[k][seen], np.float32(1e-30)) / prior)
                place = ((evidence + _TOP) * (_BINS / (2 * _TOP))).astype(np.int64).clip(0, _BINS - 1)
                key = (label == k) * _BINS + place
                self.counts[k] += np.bincount(key, minlength=2 * _BINS).reshape(2, _BINS)

    def slopes(self, noise: float, pixels_per_cell: float) -> tuple[float, ...]:
        """(class,) how far the network's evidence counts, 0 to 1; 0 where there is no label to tell.

        Args:
            noise: share of the labels that is wrong.
            pixels_per_cell: pixels that one labelled cell covers: those of a cell are one witness.
        """
        fits = (_fit(own / pixels_per_cell, noise) for own in self.counts)
        return tuple(round(min(1.0, max(0.0, slope - _ERRORS * error)), 4) for slope, _, error in fits)

    def odds(self, noise: float, pixels_per_cell: float) -> tuple[Odds, ...]:
        """(class,) what the network's evidence is worth; see `slopes`."""
        fits = (_fit(own / pixels_per_cell, noise) for own in self.counts)
        return tuple((round(slope, 4), round(base, 4)) for slope, base, _ in fits)


def _fit(cells: NDArray[np.float64], noise: float) -> tuple[float, float, float]:
    """Most likely slope and base, by Fisher scoring, and the standard error of the slope.

    Of the slope 0 is believed beforehand, give or take one. Where there is no label it is that.

    Args:
        cells: (another label or its own, bin).
        noise: share of the labels that is wrong.
    """
    evidence = (np.arange(_BINS) + 0.5) * (2 * _TOP / _BINS) - _TOP
    total = cells.sum(0)
    if not cells[1].any():
        return 0.0, -_TOP, 1.0
    share = float(cells[1].sum() / total.sum())
    if share == 1:
        return 1.0, _TOP, 0.0
    terms = np.stack([evidence, np.ones(_BINS)])  # of slope and base
    at = np.array([0.0, np.log(share / (1 - share))])
    for _ in range(_STEPS):
        own = 1 / (1 + np.exp(-np.clip(at @ terms, -30, 30)))
        chance = np.clip((1 - noise) * own + noise * share, 1e-9, 1 - 1e-9)
        rise = (1 - noise) * own * (1 - own)
        spread = chance * (1 - chance)
        gradient = terms @ ((cells[1] - total * chance) * rise / spread) - [at[0], 0]
        information = (terms * (total * rise**2 / spread)) @ terms.T + np.diag([1.0, 1e-6])
        step = np.linalg.solve(information, gradient).clip(-1, 1)
        at += step
        if abs(step).max() < _CLOSE:
            break
    return float(at[0]), float(at[1]), math.sqrt(np.linalg.inv(information)[0, 0])
