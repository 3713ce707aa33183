"""How well scores say which labels scenes have: several labels each, from scores and not from yes and no.

Ranking figures need the scores themselves: computed on thresholded ones, as is sometimes published, they are
not comparable with anybody's. A class that no scene has is left out of the means over classes, because every
answer to it is either right by default or wrong without a chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FMeasures:
    """Precision, recall, F1 and F2 in one kind of mean, 0..1; what is 0 / 0 counts as 0."""

    precision: float
    recall: float
    f1: float
    f2: float


@dataclass(frozen=True, slots=True)
class MultiLabelScores:
    """All figures of n scenes with k labels."""

    micro: FMeasures
    """Of all answers together."""
    macro: FMeasures
    """Mean over the classes that some scene has."""
    samples: FMeasures
    """Mean over scenes."""
    class_f2: tuple[float | None, ...]
    """(class,); None: no scene has it."""
    average_precision: tuple[float | None, ...]
    """(class,); None: no scene has it."""
    micro_ap: float
    """Average precision of all answers together."""
    lrap: float
    """Label ranking average precision: how much of what ranks above a true label is true."""
    ranking_loss: float
    """Share of pairs of a true and a false label whose order is not right; a tie is not."""
    coverage: float
    """Labels, from the best on, that must be taken to have all true ones; mean over scenes."""
    hamming_loss: float
    """Share of answers that are wrong."""
    subset_accuracy: float
    """Share of scenes whose labels are all right."""

    @property
    def macro_ap(self) -> float:
        """Mean average precision over the classes that some scene has ("mAP")."""
        known = [ap for ap in self.average_precision if ap is not None]
        return float(np.mean(known)) if known else 0.0

    def facts(self) -> dict[str, Any]:
        """As plain values, flat."""
        means = {
            f"{mean}_{name}": round(float(getattr(getattr(self, mean), name)), 6)
            for mean in ("micro", "macro", "samples")
            for name in ("precision", "recall", "f1", "f2")
        }
        single = (
            "micro_ap",
            "macro_ap",
            "lrap",
            "ranking_loss",
            "coverage",
            "hamming_loss",
            "subset_accuracy",
        )
        return means | {name: round(float(getattr(self, name)), 6) for name in single}


def score_labels(
    scores: NDArray[np.floating], truth: NDArray[np.bool_], threshold: float = 0.5
) -> MultiLabelScores:
    """Compare.

    Args:
        scores: (n, k) probabilities, n > 0.
        truth: (n, k) which labels each scene has.
        threshold: from which probability on a label is said to be there.
    """
    if scores.shape != truth.shape or not len(scores):
        raise ValueError(f"scores of shape {scores.shape} for labels of shape {truth.shape}")
    given = scores.astype(np.float64)
    said = given >= threshold
    parts = (said & truth, said, truth)  # right, answered, there
    present = np.asarray(truth.any(0))
    precisions = [
        average_precision(given[:, c], truth[:, c]) if present[c] else None for c in range(truth.shape[1])
    ]
    right, answered, there = (part.sum(0) for part in parts)
    f2 = _f_measure(right, answered, there, beta=2)
    return MultiLabelScores(
        micro=_measures(*(np.asarray([part.sum()]) for part in parts)),
        macro=_measures(right[present], answered[present], there[present]),
        samples=_measures(*(part.sum(1) for part in parts)),
        class_f2=tuple(float(f) if p else None for f, p in zip(f2, present, strict=True)),
        average_precision=tuple(precisions),
        micro_ap=average_precision(given.ravel(), truth.ravel()) if truth.any() else 0.0,
        lrap=_lrap(given, truth),
        ranking_loss=_ranking_loss(given, truth),
        coverage=_coverage(given, truth),
        hamming_loss=float((said != truth).mean()),
        subset_accuracy=float((said == truth).all(1).mean()),
    )


def average_precision(scores: Floats, truth: NDArray[np.bool_]) -> float:
    """Sum over thresholds of (gain in recall) * precision; equal scores share one threshold.

    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))
    0.8333333333333333
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    hits = np.cumsum(truth[order])[ends]
    precision, recall = hits / (ends + 1), hits / truth.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def label_distance(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Chi-square distance of the labels of two regions, 0 (alike) to 1 (no label in common).

    1/2 sum_c (p(c) - q(c))^2 / (p(c) + q(c)) over the frequencies of labels, which sum to one in a region.
    """
    p, q = (labels.sum(0) / max(1, labels.sum()) for labels in (a, b))
    together = p + q
    parts = np.divide((p - q) ** 2, together, out=np.zeros(len(p)), where=together > 0)
    return float(0.5 * parts.sum())


def _measures(right: NDArray[Any], answered: NDArray[Any], there: NDArray[Any]) -> FMeasures:
    """Means over the entries of three counts: right, answered yes, true."""
    if not len(right):
        return FMeasures(0.0, 0.0, 0.0, 0.0)
    return FMeasures(
        float(_ratio(right, answered).mean()),
        float(_ratio(right, there).mean()),
        float(_f_measure(right, answered, there, beta=1).mean()),
        float(_f_measure(right, answered, there, beta=2).mean()),
    )


def _f_measure(right: NDArray[Any], answered: NDArray[Any], there: NDArray[Any], beta: int) -> Floats:
    """(1 + b2) TP / (answered + b2 there); with beta 2 that is TP / (TP + 0.2 FP + 0.8 FN)."""
    return _ratio((1 + beta**2) * right, answered + beta**2 * there)


def _ratio(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    ratio: Floats = np.divide(a, b, out=np.zeros(len(a)), where=b > 0)
    return ratio


def _coverage(scores: Floats, truth: NDArray[np.bool_]) -> float:
    least = np.where(truth, scores, np.inf).min(1)  # of the true labels; inf where there are none
    return float((scores >= least[:, None]).sum(1).mean())


def _ranking_loss(scores: Floats, truth: NDArray[np.bool_]) -> float:
    losses = []
    for given, true in zip(scores, truth, strict=True):
        pairs = true.sum() * (~true).sum()
        wrong = (given[true][:, None] <= given[~true][None]).sum()
        losses.append(wrong / pairs if pairs else 0.0)
    return float(np.mean(losses))


def _lrap(scores: Floats, truth: NDArray[np.bool_]) -> float:
    values = []
    for given, true in zip(scores, truth, strict=True):
        if true.all() or not true.any():
            values.append(1.0)
            continue
        above = given[None] >= given[true][:, None]  # (true label, label)
        values.append(((above & true).sum(1) / above.sum(1)).mean())
    return float(np.mean(values))
