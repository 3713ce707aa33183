"""Accuracy: the confusion matrix as a value that adds up over blocks, and the metrics read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from citycover.errors import ConfigError
from citycover.legend import Legend

_ROWS = 1024
_NO_CLASS = -1


@dataclass(frozen=True)
class Confusion:
    """Counts of (truth, map) pairs of classes; two of them add up.

    >>> c = Confusion(np.array([[3, 1], [0, 4]]))
    >>> round(c.overall_accuracy, 3), [round(v, 3) for v in c.iou.tolist()]
    (0.875, [0.75, 0.8])
    """

    counts: NDArray[np.int64]
    """(truth, map) pixels."""

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.counts + other.counts)

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
        """Everything as plain values, classes in legend order."""
        per_class = zip(
            legend.classes, self.iou, self.f1, self.users_accuracy, self.producers_accuracy, strict=True
        )
        return {
            "overall_accuracy": self.overall_accuracy,
            "miou": self.miou,
            "kappa": self.kappa,
            "mean_class_recall": self.mean_class_recall,
            "classes": [
                {"id": c.id, "name": c.name, "iou": i, "f1": f, "users_accuracy": u, "producers_accuracy": p}
                for c, i, f, u, p in per_class
            ],
        }


def confusion_of(truth: NDArray[np.integer], mapped: NDArray[np.integer], legend: Legend) -> Confusion:
    """Count pairs; pixels that are no class of the legend in either array are left out."""
    size = len(legend.ids)
    rank = {id_: k for k, id_ in enumerate(legend.ids)}
    top = max(int(truth.max(initial=0)), int(mapped.max(initial=0)), *legend.ids) + 2
    table = np.full(top, -1, np.int64)
    for id_, k in rank.items():
        table[id_] = k
    a, b = (table[labels.ravel()] for labels in (truth, mapped))  # table[-1] is the last one: no class
    both = (a >= 0) & (b >= 0)
    pairs = np.bincount(a[both] * size + b[both], minlength=size * size)
    return Confusion(pairs.reshape(size, size))


def compare_rasters(
    mapped: Path,
    truth: Path,
    legend: Legend,
    map_table: Mapping[int, int] | None = None,
    truth_table: Mapping[int, int] | None = None,
) -> Confusion:
    """Compare a class raster with a truth raster, streamed in strips of the truth's grid.

    Args:
        mapped: class raster on any grid; read at the truth's pixels by nearest neighbour.
        truth: class raster.
        legend: classes to compare in.
        map_table: ids of `mapped` to ids of the legend; None: they are the same.
        truth_table: the same for `truth`.

    Raises:
        ConfigError: a file cannot be read.
    """
    total = Confusion(np.zeros((len(legend.ids),) * 2, np.int64))
    try:
        with rasterio.open(truth) as reference, rasterio.open(mapped) as source:
            grid = {
                "crs": reference.crs,
                "transform": reference.transform,
                "width": reference.width,
                "height": reference.height,
            }
            with WarpedVRT(source, resampling=Resampling.nearest, **grid) as same:
                for row in range(0, reference.height, _ROWS):
                    window = RasterioWindow(0, row, reference.width, min(_ROWS, reference.height - row))
                    a, b = reference.read(1, window=window), same.read(1, window=window)
                    total += confusion_of(_remap(a, truth_table), _remap(b, map_table), legend)
    except rasterio.errors.RasterioError as error:
        raise ConfigError(f"cannot compare {mapped} with {truth}: {error}") from None
    return total


def _remap(labels: NDArray[Any], table: Mapping[int, int] | None) -> NDArray[np.int64]:
    """Ids by table; those that it does not know become a number that is no class."""
    whole = labels.astype(np.int64)
    if table is None:
        return whole
    ids, inverse = np.unique(whole, return_inverse=True)
    new = np.array([table.get(int(i), _NO_CLASS) for i in ids], np.int64)
    return new[inverse].reshape(labels.shape)


def _ratio(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else float("nan")


def _ratios(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratios: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratios


def _nanmean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
