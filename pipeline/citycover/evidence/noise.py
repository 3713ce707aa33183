"""How noisy labels are, measured without any truth.

Where the network is surest it is hardly wrong: of each class that it predicts, the 5 % of pixels in which it
believes most are compared with their labels. The share that differs, averaged over the classes by their share
of the labels, is taken for the noise. It rather says too much than too little. Labels of classes that the
network cannot tell apart (`slopes`) are left out: there it knows nothing, however sure it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from citycover.classes.table import NO_CLASS
from citycover.evidence.offset import NO_OFFSET, LabelOffset
from citycover.evidence.rule import ENOUGH_CELLS
from citycover.evidence.slopes import Odds

_SUREST = 0.05

_BINS = 512
"""Classes of confidence, even in -log(1 - p), up to where float32 ends: 1 - p = 6e-8."""

_TOP = 16.7


NoiseSource = Literal["asked", "model", "scene"]


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
    source: NoiseSource
    """`asked`: by --trust; `model`: measured when it was trained; `scene`: measured on what is mapped."""
    offset: LabelOffset = NO_OFFSET
    """Against the image, always measured on what is mapped."""
    slopes: tuple[float, ...] = ()
    """(channel,) how far the network's word on a class counts, 0 to 1, measured likewise; empty: fully."""
    prior: tuple[float, ...] = ()
    """(channel,) mean probability of the network on what is mapped; empty: the model's own, of this place."""
    odds: tuple[Odds, ...] = ()
    """(channel,) what the network's word on a class is worth as a chance; empty: what it says."""

    @property
    def share(self) -> float:
        """Noise that is reckoned with, 0 to 1."""
        return self.noise.share if self.source == "asked" else self.noise.believed

    @property
    def measured(self) -> bool:
        """Whether that noise is known: asked for, or resting on enough labels."""
        return self.source == "asked" or self.noise.cells >= ENOUGH_CELLS

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "contradicted": self.noise.share,
            "cells": self.noise.cells,
            "noise_from": self.source,
            "offset": asdict(self.offset),
            "slopes": list(self.slopes),
            "prior": list(self.prior),
            "odds": [list(pair) for pair in self.odds],
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Belief:
        """From plain values."""
        noise = LabelNoise(facts["contradicted"], facts["cells"])
        offset = LabelOffset(**facts["offset"])
        slopes, prior = tuple(facts["slopes"]), tuple(facts.get("prior", ()))
        odds = tuple((slope, base) for slope, base in facts.get("odds", ()))
        return cls(noise, facts["noise_from"], offset, slopes, prior, odds)

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
    """(predicted class, label, bin of confidence)."""

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.classes, self.classes, _BINS), np.int64)

    def add(self, probabilities: NDArray[np.float32], labels: NDArray[np.integer]) -> None:
        """Count pixels.

        Args:
            probabilities: (class, ...) of the network alone.
            labels: (...) channels; NO_CLASS is left out.
        """
        seen = labels != NO_CLASS
        label = labels[seen].astype(np.int64)
        pixels = probabilities[:, seen]  # (class, n)
        best = pixels.argmax(0)
        depth = -np.log(np.maximum(1 - pixels.max(0, initial=0), np.exp(-_TOP)))
        place = np.minimum((depth * (_BINS / _TOP)).astype(np.int64), _BINS - 1)
        key = (best * self.classes + label) * _BINS + place
        self.counts += np.bincount(key, minlength=self.counts.size).reshape(self.counts.shape)

    def noise(self, pixels_per_cell: float, slopes: Sequence[float] = ()) -> LabelNoise:
        """What was counted, as noise.

        Args:
            pixels_per_cell: how many pixels one labelled cell is wide and high, multiplied.
            slopes: (class,) how far the network's word on a class counts; so much its labels count here.
                Empty: fully.
        """
        labels = self.counts.sum((0, 2))
        known = np.asarray(slopes or np.ones(self.classes))
        differs = np.array([_share_that_differs(own, k, known) for k, own in enumerate(self.counts)])
        weights = np.where(np.isnan(differs), 0, labels * known)
        share = float(np.nansum(differs * weights) / weights.sum()) if weights.any() else 0.0
        return LabelNoise(share, float(labels.sum()) / pixels_per_cell)


def _share_that_differs(counts: NDArray[np.int64], own: int, known: NDArray[np.float64]) -> float:
    """Of the surest pixels of one predicted class; NaN where it is never predicted, or nothing known there.

    Args:
        counts: (label, bin).
        own: the class.
        known: (label,) how much each label counts.
    """
    total = counts.sum(0)[::-1].astype(np.float64)  # surest first
    before = np.cumsum(total) - total
    taken = np.clip(_SUREST * total.sum() - before, 0, total)  # of the last bin only a part
    part = np.divide(taken, total, out=np.zeros_like(total), where=total > 0)
    surest = counts[:, ::-1] @ part * known  # (label,)
    return float(1 - surest[own] / surest.sum()) if surest.any() else float("nan")
