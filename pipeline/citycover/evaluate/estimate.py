"""Accuracy and area from a stratified random sample, with standard errors.

P. Olofsson, G. M. Foody, M. Herold, S. V. Stehman, C. E. Woodcock, M. A. Wulder (2014): Good practices for
estimating area and assessing accuracy of land change. Remote Sensing of Environment 148, 42-57. Equation
numbers are theirs.

A map's pixel counts say how much of a class was mapped, not how much there is: what the map leaves out and
what it adds do not cancel. A stratified sample weighs each error by the area that it stands for.

Choices:

- Strata need not be the map's classes: a sample that was drawn for one map also judges another, or the same
  in a merged legend. All figures are ratios of two estimated totals (S. V. Stehman 2014, International
  Journal of Remote Sensing 35, 4923-4939). Where the strata are the map's classes, that is Olofsson's
  equations to the last digit; `tests/pipeline/evaluate/test_estimate.py` compares the two.
- No finite population correction, as in the paper: samples are small against rasters. Only a stratum that
  was looked at in full has no variance.
- Intervals of 95 % are 1.96 standard errors to both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend
from citycover.errors import ConfigError
from citycover.evaluate.confusion import plain

_Z95 = 1.96


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and how far to trust it."""

    value: float
    standard_error: float
    """NaN where a stratum has one sample unit only."""

    @property
    def margin(self) -> float:
        """Half the width of the 95 % confidence interval."""
        return _Z95 * self.standard_error

    def __mul__(self, factor: float) -> Estimate:
        """In another unit: a share of the area times the area (eq. 11)."""
        return Estimate(self.value * factor, self.standard_error * factor)

    def report(self) -> dict[str, float | None]:
        """As plain values; None stands for what is not a number."""
        return {
            "value": plain(self.value),
            "standard_error": plain(self.standard_error),
            "margin95": plain(self.margin),
        }


@dataclass(frozen=True, eq=False)
class StratifiedSample:
    """Sample units counted by stratum, by what the map says there, and by what is there.

    Raises:
        ConfigError: a stratum has an area and no sample unit.
    """

    counts: NDArray[np.int64]
    """(stratum, map class, reference class) sample units."""
    sizes: NDArray[np.float64]
    """(stratum,) pixels of each stratum."""
    names: Sequence[str]
    """(stratum,)"""

    def __post_init__(self) -> None:
        empty = [
            f"{name} ({size:.0f} px)"
            for name, size, units in zip(self.names, self.sizes, self._units, strict=True)
            if size > 0 and units == 0
        ]
        if empty:
            raise ConfigError(
                f"these strata have no point with a class: {', '.join(empty)}; "
                "interpret at least two points in each stratum"
            )

    @classmethod
    def of_matrix(cls, counts: NDArray[np.integer], sizes: Sequence[float]) -> StratifiedSample:
        """A sample whose strata are the map's classes.

        Args:
            counts: (map class, reference class) sample units, as in Olofsson's table 8.
            sizes: (map class,) pixels mapped.
        """
        classes = len(counts)
        cube = np.zeros((classes, classes, classes), np.int64)
        cube[np.arange(classes), np.arange(classes)] = counts
        return cls(cube, np.asarray(sizes, np.float64), [f"class {k + 1}" for k in range(classes)])

    @property
    def proportions(self) -> NDArray[np.float64]:
        """(map class, reference class) estimated shares of the area (eq. 4)."""
        shares: NDArray[np.float64] = np.einsum("h,hij->ij", self._weights, self._shares)
        return shares

    @property
    def overall_accuracy(self) -> Estimate:
        """Share of the area that is mapped rightly (eqs. 1 and 5)."""
        return self._ratio(self._diagonal, self._all)

    @property
    def users_accuracy(self) -> tuple[Estimate, ...]:
        """Of each class on the map, the share that is truly so (eqs. 2 and 6)."""
        return tuple(self._ratio(self._hit(k), self._mapped(k)) for k in range(self._classes))

    @property
    def producers_accuracy(self) -> tuple[Estimate, ...]:
        """Of each true class, the share that the map calls so (eqs. 3 and 7)."""
        return tuple(self._ratio(self._hit(k), self._true(k)) for k in range(self._classes))

    @property
    def areas(self) -> tuple[Estimate, ...]:
        """Share of each true class in the area (eqs. 9 and 10)."""
        return tuple(self._ratio(self._true(k), self._all) for k in range(self._classes))

    def report(self, legend: Legend, hectares: float) -> dict[str, Any]:
        """Everything as plain values, classes in legend order; None stands for what is not a number.

        Args:
            legend: the classes.
            hectares: area of all strata.
        """
        p = self.proportions
        per_class = zip(
            legend.classes, self.users_accuracy, self.producers_accuracy, self.areas, p.sum(1), strict=True
        )
        return {
            "points": int(self.counts.sum()),
            "hectares": hectares,
            "overall_accuracy": self.overall_accuracy.report(),
            "classes": [
                {
                    "id": c.id,
                    "name": c.name,
                    "users_accuracy": users.report(),
                    "producers_accuracy": producers.report(),
                    "area_share": area.report(),
                    "area_ha": (area * hectares).report(),
                    "mapped_ha": float(mapped) * hectares,
                }
                for c, users, producers, area, mapped in per_class
            ],
            "matrix": p.tolist(),
        }

    def _ratio(self, y: NDArray[np.bool_], x: NDArray[np.bool_]) -> Estimate:
        """Estimated total of y over that of x, where y and x say which (map, reference) cells count.

        With W the strata's shares of the area and the residual e = y - R x, the variance is
        sum W^2 s^2(e) / n over the square of the estimated total of x.
        """
        of_y, of_x = ((self._shares * cells).sum((1, 2)) for cells in (y, x))  # (stratum,) means
        below = float(self._weights @ of_x)
        if below == 0:
            return Estimate(math.nan, math.nan)
        ratio = float(self._weights @ of_y) / below
        residual = y - ratio * x  # (map class, reference class)
        mean = (self._shares * residual).sum((1, 2))
        spread = (self._shares * (residual - mean[:, None, None]) ** 2).sum((1, 2))  # s^2 (n - 1) / n
        units = self._units
        known = (units >= self.sizes) | (self.sizes == 0)
        if self._by_map_class and x.all(1).sum() == 1:  # what is mapped as k lies in stratum k alone (eq. 6)
            known |= of_x == 0
        with np.errstate(invalid="ignore", divide="ignore"):  # one unit tells nothing of the spread
            variances = np.where(known, 0.0, self._weights**2 * spread / (units - 1))
        return Estimate(ratio, math.sqrt(variances.sum()) / below)

    @property
    def _classes(self) -> int:
        return int(self.counts.shape[1])

    @property
    def _by_map_class(self) -> bool:
        """Whether the strata are the map's classes: each unit of a stratum is mapped alike."""
        mapped = self.counts.sum(2) > 0  # (stratum, map class)
        return bool((mapped.sum(1) <= 1).all() and (mapped.sum(0) <= 1).all())

    @property
    def _units(self) -> NDArray[np.int64]:
        """(stratum,) sample units."""
        units: NDArray[np.int64] = self.counts.sum((1, 2))
        return units

    @property
    def _weights(self) -> NDArray[np.float64]:
        """(stratum,) shares of the area."""
        weights: NDArray[np.float64] = self.sizes / self.sizes.sum()
        return weights

    @property
    def _shares(self) -> NDArray[np.float64]:
        """(stratum, map class, reference class) shares of the stratum's sample."""
        return self.counts / np.maximum(self._units, 1)[:, None, None]

    @property
    def _all(self) -> NDArray[np.bool_]:
        return np.ones((self._classes, self._classes), np.bool_)

    @property
    def _diagonal(self) -> NDArray[np.bool_]:
        return np.eye(self._classes, dtype=np.bool_)

    def _mapped(self, k: int) -> NDArray[np.bool_]:
        cells = np.zeros_like(self._all)
        cells[k] = True
        return cells

    def _true(self, k: int) -> NDArray[np.bool_]:
        return self._mapped(k).T

    def _hit(self, k: int) -> NDArray[np.bool_]:
        return self._mapped(k) & self._true(k)


def sample_size(shares: Sequence[float], users_accuracy: Sequence[float], standard_error: float) -> int:
    """Sample units that give the overall accuracy with a standard error (eq. 13).

    The paper's example: 2 %, 1.5 %, 32 % and 64.5 % of the area, conjectured user's accuracies.

    >>> sample_size([0.02, 0.015, 0.32, 0.645], [0.7, 0.6, 0.9, 0.95], 0.01)
    641

    Args:
        shares: (stratum,) shares of the mapped area.
        users_accuracy: (stratum,) what is expected of each.
        standard_error: wanted, of the overall accuracy.

    Raises:
        ConfigError: numbers that are no shares.
    """
    if not 0 < standard_error < 1 or not all(0 <= u <= 1 for u in users_accuracy):
        raise ConfigError(
            "a sample size needs a standard error and user's accuracies between 0 and 1, "
            f"got {standard_error} and {list(users_accuracy)}"
        )
    spread = sum(w * math.sqrt(u * (1 - u)) for w, u in zip(shares, users_accuracy, strict=True))
    return math.ceil((spread / standard_error) ** 2)
