"""Accuracy: the confusion matrix as a value that adds up over blocks, and the metrics read from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend
from citycover.classes.table import NO_CLASS, ClassTable


@dataclass(frozen=True)
class Confusion:
    """Counts of (truth, map) pairs of classes; two of them add up.

    >>> c = Confusion(np.array([[3, 1], [0, 4]]))
    >>> round(c.overall_accuracy, 3), [round(v, 3) for v in c.iou.tolist()]
    (0.875, [0.75, 0.8])
    """

    counts: NDArray[np.int64]
    """(truth, map) pixels, or points."""
    left_out: int = 0
    """Pixels (points) that have a class in the truth and none on the map."""

    @classmethod
    def empty(cls, classes: int) -> Confusion:
        """Nothing counted yet."""
        return cls(np.zeros((classes, classes), np.int64))

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.counts + other.counts, self.left_out + other.left_out)

    @property
    def compared(self) -> int:
        """Pixels (points) that have a class in both."""
        return int(self.counts.sum())

    @property
    def overall_accuracy(self) -> float:
        """Share of pixels on the diagonal; NaN without pixels."""
        return _ratio(self._hits.sum(), self.counts.sum())

    @property
    def iou(self) -> NDArray[np.float64]:
        """(class,) intersection over union; NaN for a class that neither has."""
        union = self.counts.sum(0) + self.counts.sum(1) - self._hits
        return _ratios(self._hits, union)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in the truth or the map."""
        return _nanmean(self.iou)

    @property
    def fwiou(self) -> float:
        """Frequency-weighted IoU: each class counts by its share of the truth."""
        frequency = self.counts.sum(1)
        return _ratio(np.nansum(frequency * self.iou), frequency.sum())

    @property
    def producers_accuracy(self) -> NDArray[np.float64]:
        """(class,) recall: share of the true pixels of a class that the map calls so."""
        return _ratios(self._hits, self.counts.sum(1))

    @property
    def users_accuracy(self) -> NDArray[np.float64]:
        """(class,) precision: share of a class's pixels on the map that are truly so."""
        return _ratios(self._hits, self.counts.sum(0))

    @property
    def f1(self) -> NDArray[np.float64]:
        """(class,) harmonic mean of user's and producer's accuracy."""
        return _ratios(2 * self._hits, self.counts.sum(0) + self.counts.sum(1))

    @property
    def mean_class_recall(self) -> float:
        """Mean producer's accuracy over the classes of the truth."""
        return _nanmean(self.producers_accuracy)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond what the class totals give by chance."""
        counts = self.counts / max(1, self.counts.sum())  # shares: products of counts leave int64 at 3 Gpx
        chance = float((counts.sum(0) * counts.sum(1)).sum())
        return _ratio(self.overall_accuracy - chance, 1 - chance)

    @property
    def _hits(self) -> NDArray[np.int64]:
        return np.diag(self.counts)

    def report(self, legend: Legend) -> dict[str, Any]:
        """Everything as plain values, classes in legend order; None stands for what is not a number.

        `pixels` of a class are those of the truth; rows of `matrix` are the truth, its columns the map.
        """
        metrics = (self.iou, self.f1, self.users_accuracy, self.producers_accuracy)
        names = ("iou", "f1", "users_accuracy", "producers_accuracy")
        return {
            "overall_accuracy": plain(self.overall_accuracy),
            "miou": plain(self.miou),
            "fwiou": plain(self.fwiou),
            "kappa": plain(self.kappa),
            "mean_class_recall": plain(self.mean_class_recall),
            "compared": self.compared,
            "left_out": self.left_out,
            "classes": [
                {"id": c.id, "name": c.name}
                | {name: plain(values[k]) for name, values in zip(names, metrics, strict=True)}
                | {"pixels": int(self.counts[k].sum())}
                for k, c in enumerate(legend.classes)
            ],
            "matrix": self.counts.tolist(),
        }


def count_pairs(truth: NDArray[np.integer], mapped: NDArray[np.integer], classes: int) -> Confusion:
    """Count pairs of ranks.

    Args:
        truth: (...) ranks of classes; negative: no class.
        mapped: the same for the map.
        classes: how many there are.
    """
    # One more row and column for pixels without a class: cheaper than picking out those that have one.
    a, b = (np.maximum(ranks.ravel(), NO_CLASS).astype(np.int32) + 1 for ranks in (truth, mapped))
    side = classes + 1
    table = np.bincount(a * side + b, minlength=side * side).reshape(side, side)
    return Confusion(table[1:, 1:].astype(np.int64), int(table[1:, 0].sum()))


def confusion_of(truth: NDArray[np.integer], mapped: NDArray[np.integer], legend: Legend) -> Confusion:
    """Count pairs of ids; a pixel whose number is no class of the legend has no class."""
    table = ClassTable.onto(legend)
    return count_pairs(table.ranks_of(truth), table.ranks_of(mapped), len(legend.ids))


def plain(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None


def _ratio(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else float("nan")


def _ratios(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratios: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratios


def _nanmean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
