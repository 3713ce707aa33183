"""How good a map of classes is, in the columns of docs/accuracy.md: pure numbers from arrays of ranks.

Ranks count the classes of one legend from 0; negative: no class. A map is compared where both map and truth
have one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

BIG = 0.01
"""Share of the truth from which on a class is big."""
_BINS = 15


@dataclass(frozen=True, slots=True)
class Scores:
    """Shares between 0 and 1; NaN where there is nothing to measure."""

    miou: float
    """Mean over all classes that the truth has, however rare."""
    big: float
    """Mean IoU over the classes with at least 1 % of the truth: the main column."""
    f1: float
    """Mean F1 over the same classes as `miou`."""
    accuracy: float
    edge: float
    """Accuracy within one coarse cell of where the coarse label changes."""
    ece: float
    """Expected calibration error of the confidence, in 15 bins; NaN without one."""
    over: float
    """Mean confidence less accuracy: positive, the map is too sure."""
    iou: tuple[float, ...]
    """By rank; NaN where neither truth nor map has the class."""
    pixels: tuple[tuple[int, int, int], ...]
    """By rank: those where truth and map agree, those of the truth, those of the map."""

    def row(self) -> dict[str, Any]:
        """As plain values, rounded to what can be told apart."""
        plain = {k: v for k, v in asdict(self).items() if k not in ("iou", "pixels")}
        row: dict[str, Any] = {k: None if np.isnan(v) else round(float(v), 4) for k, v in plain.items()}
        iou = [None if np.isnan(v) else round(float(v), 4) for v in self.iou]
        return row | {"iou": iou, "pixels": [list(counts) for counts in self.pixels]}


def score(
    mapped: NDArray[np.integer],
    truth: NDArray[np.integer],
    classes: int,
    *,
    near: NDArray[np.bool_] | None = None,
    confidence: NDArray[np.floating] | None = None,
) -> Scores:
    """Compare a map with a truth.

    Args:
        mapped: (y, x) ranks.
        truth: (y, x) ranks.
        classes: number of classes of the legend.
        near: (y, x) True near the edges of the coarse label.
        confidence: (y, x) probability of the mapped class.
    """
    both = (mapped >= 0) & (truth >= 0)
    pairs = np.bincount(
        truth[both].astype(np.int64) * classes + mapped[both], minlength=classes * classes
    ).reshape(classes, classes)  # (truth, map)
    hit, of_truth, of_map = np.diag(pairs), pairs.sum(1), pairs.sum(0)
    iou = intersection_over_union(np.stack([hit, of_truth, of_map], 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * hit / (of_truth + of_map)
    counted = of_truth > 0
    big = of_truth >= BIG * of_truth.sum()
    right = mapped == truth
    ece, over = _calibration(right[both], None if confidence is None else confidence[both])
    return Scores(
        miou=_mean(iou[counted]),
        big=_mean(iou[big]),
        f1=_mean(f1[counted]),
        accuracy=_mean(right[both]),
        edge=float("nan") if near is None else _mean(right[both & near]),
        ece=ece,
        over=over,
        iou=tuple(float(v) for v in iou),
        pixels=tuple((int(a), int(b), int(c)) for a, b, c in zip(hit, of_truth, of_map, strict=True)),
    )


def intersection_over_union(pixels: NDArray[np.integer]) -> NDArray[np.float64]:
    """(class,) from (class, 3): where truth and map agree, of the truth, of the map; NaN: of neither."""
    hit, of_truth, of_map = pixels.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(hit / (of_truth + of_map - hit))


def pooled(pixels: NDArray[np.integer]) -> tuple[float, float]:
    """Mean IoU over the classes that the truth has, and accuracy, from (class, 3) summed over places."""
    present = pixels[:, 1] > 0
    right = float(pixels[:, 0].sum() / pixels[:, 1].sum())
    return float(intersection_over_union(pixels)[present].mean()), right


def near_edges(coarse: NDArray[np.integer], cell: int) -> NDArray[np.bool_]:
    """(y, x) True within one cell of a place where the coarse label, nearest, changes.

    Args:
        coarse: (y, x) ranks on the grid of the map.
        cell: pixels along a side of a coarse cell.
    """
    size = 2 * cell + 1
    return np.asarray(maximum_filter(coarse, size) != minimum_filter(coarse, size))


def _calibration(right: NDArray[np.bool_], confidence: NDArray[np.floating] | None) -> tuple[float, float]:
    if confidence is None or not right.size:
        return float("nan"), float("nan")
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    count = np.bincount(bins, minlength=_BINS)
    sure = np.bincount(bins, confidence, _BINS)
    hits = np.bincount(bins, right, _BINS)
    return float(np.abs(sure - hits).sum() / count.sum()), float((sure.sum() - hits.sum()) / count.sum())


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values)) if values.size else float("nan")
