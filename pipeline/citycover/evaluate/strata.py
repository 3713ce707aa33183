"""The strata of a sample, and what each says."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from citycover.errors import ConfigError
from citycover.evaluate.estimate import StratifiedSample
from citycover.evaluate.features import Truth
from citycover.evaluate.request import Side
from citycover.evaluate.sample import count_strata

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Strata:
    """The design of a stratified sample, as its points say."""

    names: list[str]
    members: NDArray[np.int64]
    """(point,) index into `names`."""
    pixels: list[float]
    """(stratum,)"""
    hectares: float

    @classmethod
    def of(cls, points: Truth, mapped: Side, pixel_ha: float) -> Strata:
        """From the columns `stratum`, `stratum_pixels` and `stratum_ha`.

        Without `stratum_pixels`, strata are the map's class ids and their pixels are counted.
        """
        labels = [_key(v) for v in points.columns["stratum"]]
        if "stratum_pixels" in points.columns:
            pixels = _one_per_stratum(points, labels, "stratum_pixels")
            _warn_of_lost(pixels, points, mapped)
        else:
            pixels = {str(id_): float(n) for id_, n in count_strata(mapped.path, mapped.legend).items()}
        stray = sorted(set(labels) - set(pixels))
        if stray:
            raise ConfigError(f"strata {', '.join(stray)} of {points.path} are no class ids of {mapped.path}")
        names = sorted(pixels)
        place = {name: k for k, name in enumerate(names)}
        hectares = sum(pixels.values()) * pixel_ha
        if "stratum_ha" in points.columns:
            hectares = sum(_one_per_stratum(points, labels, "stratum_ha").values())
        members = np.array([place[label] for label in labels], np.int64)
        return cls(names, members, [pixels[name] for name in names], hectares)

    def sample(self, mapped: NDArray[np.int16], truth: NDArray[np.int16], classes: int) -> StratifiedSample:
        """The points that have a class in both, counted by stratum."""
        counts = np.zeros((len(self.names), classes, classes), np.int64)
        both = (mapped >= 0) & (truth >= 0)
        np.add.at(counts, (self.members[both], mapped[both], truth[both]), 1)
        return StratifiedSample(counts, np.array(self.pixels), self.names)


def warn_of_twins(points: Truth, counted: NDArray[np.bool_]) -> None:
    """Say which points of a sample stand in a file more than once: each would be weighed so often.

    Args:
        points: of the sample.
        counted: (point,) which have a class.
    """
    xy = shapely.get_coordinates(points.geometries)[counted]
    if twins := len(xy) - len(np.unique(xy, axis=0)):
        logger.warning(
            "%d points of %s lie exactly where another does, and count again: a sample has each pixel once; "
            "keep one row of each",
            twins, points.path,
        )  # fmt: skip


def _one_per_stratum(points: Truth, labels: list[str], column: str) -> dict[str, float]:
    values: dict[str, set[str]] = {}
    for label, value in zip(labels, points.columns[column], strict=True):
        values.setdefault(label, set()).add(str(value))
    wrong = ConfigError(
        f"{points.path}: each stratum must have one number, not below 0, as {column}, and one of them must "
        f"be above; got { {label: sorted(v)[:3] for label, v in values.items()} }"
    )
    try:
        numbers = {label: float(value) for label, (value,) in values.items()}
    except ValueError:
        raise wrong from None
    if not all(math.isfinite(n) and n >= 0 for n in numbers.values()) or not sum(numbers.values()):
        raise wrong
    return numbers


def _warn_of_lost(pixels: Mapping[str, float], points: Truth, mapped: Side) -> None:
    """Say which classes of the map have no row among the points: estimates leave their area out."""
    if not set(pixels) <= {str(id_) for id_ in mapped.legend.ids}:
        return  # strata of another kind
    names = dict(zip(mapped.legend.ids, mapped.legend.names, strict=True))
    counted = count_strata(mapped.path, mapped.legend)
    lost = [f"{names[id_]} ({n} px)" for id_, n in counted.items() if str(id_) not in pixels]
    if lost:
        logger.warning(
            "area-adjusted figures leave out %s: %s has no row of it; keep points that could not be "
            "interpreted, with an empty class",
            ", ".join(lost), points.path,
        )  # fmt: skip


def _key(value: Any) -> str:
    """A stratum's name; files give the id 3 as 3, 3.0 or '3'."""
    text = str(value).strip()
    return text.removesuffix(".0")
