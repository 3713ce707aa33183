"""How noisy labels are, measured without any truth.

Where the network is surest it is hardly wrong: of each class that it predicts, the 5 % of pixels in which it
believes most are compared with their labels. The share that differs, averaged over the classes by their share
of the labels, is taken for the noise. It rather says too much than too little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from citycover.classes.table import NO_CLASS
from citycover.evidence.offset import NO_OFFSET, LabelOffset
from citycover.evidence.rule import ENOUGH_CELLS

_SUREST = 0.05

_BINS = 1024
"""Classes of confidence, even in -log(1 - p), up to where float32 ends: 1 - p = 6e-8."""

_TOP = 16.7


def evidence_words(labels: bool) -> str:
    """Whether a map has labels of its place, or goes by what its network learned elsewhere or from rules."""
    return "with labels" if labels else "extrapolating"


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """Noise of labels, and how many of them it rests on."""

    share: float
    """Of the labels that the network contradicts where it is surest; 0 to 1."""
    cells: float
    """Labelled cells that were looked at."""

    @property
    def believed(self) -> float:
        """The noise to reckon with: none where it rests on too few cells."""
        return self.share if self.cells >= ENOUGH_CELLS else 0.0

    def __str__(self) -> str:
        if self.cells < ENOUGH_CELLS:
            return (
                f"labels: taken as they are; {self.cells:.0f} labelled cells are too few to measure their "
                f"noise ({ENOUGH_CELLS} are needed)"
            )
        return (
            f"labels: {100 * self.share:.0f} % contradicted where the network is surest; trusted accordingly"
        )


@dataclass(frozen=True, slots=True)
class Belief:
    """How far the labels of a map are believed, and why."""

    noise: LabelNoise
    source: Literal["asked", "model", "scene"]
    """`asked`: by --trust; `model`: measured when it was trained; `scene`: measured on what is mapped."""
    offset: LabelOffset = NO_OFFSET
    """Against the image, always measured on what is mapped."""

    @property
    def share(self) -> float:
        """Noise that is reckoned with, 0 to 1."""
        return self.noise.share if self.source == "asked" else self.noise.believed

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "contradicted": self.noise.share,
            "cells": self.noise.cells,
            "noise_from": self.source,
            "offset": asdict(self.offset),
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Belief:
        """From plain values."""
        noise = LabelNoise(facts["contradicted"], facts["cells"])
        return cls(noise, facts["noise_from"], LabelOffset(**facts["offset"]))

    def __str__(self) -> str:
        return (
            f"labels: trusted by {1 - self.share:.2g}, as asked for"
            if self.source == "asked"
            else str(self.noise)
        )


@dataclass
class Contradictions:
    """Counts of agreement by confidence; pixels come piece by piece, memory does not grow."""

    classes: int
    counts: NDArray[np.int64] = field(init=False)
    """(predicted class, label differs or agrees, bin of confidence)."""
    labels: NDArray[np.int64] = field(init=False)
    """(class,) pixels by label."""

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.classes, 2, _BINS), np.int64)
        self.labels = np.zeros(self.classes, np.int64)

    def add(self, probabilities: NDArray[np.float32], labels: NDArray[np.integer]) -> None:
        """Count pixels.

        Args:
            probabilities: (class, ...) of the network alone.
            labels: (...) channels; NO_CLASS is left out.
        """
        self.add_best(probabilities.argmax(0), probabilities.max(0), labels)

    def add_best(
        self, best: NDArray[np.integer], sure: NDArray[np.float32], labels: NDArray[np.integer]
    ) -> None:
        """Count pixels of which no more is known than the network's best class.

        Args:
            best: (...) channel that is most probable.
            sure: (...) its probability.
            labels: (...) channels; NO_CLASS is left out.
        """
        seen = labels != NO_CLASS
        label, class_ = labels[seen].astype(np.int64), best[seen].astype(np.int64)
        depth = -np.log(np.maximum(1 - sure[seen], np.exp(-_TOP)))
        place = np.minimum((depth * (_BINS / _TOP)).astype(np.int64), _BINS - 1)
        key = (class_ * 2 + (class_ == label)) * _BINS + place
        self.counts += np.bincount(key, minlength=self.counts.size).reshape(self.counts.shape)
        self.labels += np.bincount(label, minlength=self.classes)

    def noise(self, pixels_per_cell: float) -> LabelNoise:
        """What was counted, as noise.

        Args:
            pixels_per_cell: how many pixels one labelled cell is wide and high, multiplied.
        """
        differs = np.array([_share_that_differs(counts) for counts in self.counts])
        weights = np.where(np.isnan(differs), 0, self.labels)
        share = float(np.nansum(differs * weights) / weights.sum()) if weights.any() else 0.0
        return LabelNoise(share, float(self.labels.sum()) / pixels_per_cell)


def _share_that_differs(counts: NDArray[np.int64]) -> float:
    """Of the surest pixels of one predicted class; NaN where it is never predicted.

    Args:
        counts: (differs or agrees, bin).
    """
    total = counts.sum(0)[::-1].astype(np.float64)  # surest first
    wanted = _SUREST * total.sum()
    if wanted == 0:
        return float("nan")
    before = np.cumsum(total) - total
    taken = np.clip(wanted - before, 0, total)  # of the last bin only a part
    share = np.divide(counts[0, ::-1], total, out=np.zeros_like(total), where=total > 0)
    return float((taken * share).sum() / wanted)
