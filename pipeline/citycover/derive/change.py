"""What changed between two maps, as numbers: how much of each class became each other one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend, LegendClass

_HECTARE = 10_000.0

UNCHANGED = 1
"""Number of unchanged pixels in a raster of change; 0 is nodata."""

_MOST = 254
"""Transitions that a raster of change can tell apart: numbers 2 to 255."""


@dataclass(frozen=True)
class ChangeMatrix:
    """Pairs of classes in one place; (before, after), in legend order."""

    zone: str | None
    """Name; None: all that both maps show."""
    pixels: NDArray[np.float64]
    """Of the later map; parts of pixels count as what they are."""
    square_metres: NDArray[np.float64]
    left_out: float
    """Square metres without a class in one of the maps, or where one is not sure enough."""

    @property
    def changed(self) -> float:
        """Square metres whose class is another."""
        return float(self.square_metres.sum() - np.trace(self.square_metres))

    @property
    def compared(self) -> float:
        """Square metres that have a class in both."""
        return float(self.square_metres.sum())


@dataclass(frozen=True)
class Change:
    """What changed."""

    legend: Legend
    """Compared in."""
    whole: ChangeMatrix
    zones: tuple[ChangeMatrix, ...] = ()
    warped: bool = False
    """Whether the earlier map was seen on the grid of the later one."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each pair of classes that occurs, whole map first."""
        for place in (self.whole, *self.zones):
            for a, b in np.argwhere(place.pixels > 0).tolist():
                one, other = self.legend.classes[a], self.legend.classes[b]
                row: dict[str, Any] = {"zone": place.zone} if self.zones else {}
                area = float(place.square_metres[a, b])
                yield row | {
                    "from": one.id,
                    "from_name": one.name,
                    "to": other.id,
                    "to_name": other.name,
                    "pixels": round(float(place.pixels[a, b]), 6),
                    "area_m2": area,
                    "area_ha": area / _HECTARE,
                    "percent": 100 * area / place.compared,
                }

    def facts(self) -> dict[str, Any]:
        """The whole map as plain values."""
        return {
            "legend": self.legend.name,
            "warped": self.warped,
            "compared_m2": self.whole.compared,
            "changed_m2": self.whole.changed,
            "left_out_m2": self.whole.left_out,
            "classes": [{"id": c.id, "name": c.name} for c in self.legend.classes],
            "matrix_pixels": np.round(self.whole.pixels).astype(int).tolist(),
            "matrix_m2": self.whole.square_metres.tolist(),
        }


@dataclass(frozen=True)
class Transitions:
    """Numbers of a raster of change."""

    legend: Legend
    table: NDArray[np.uint8]
    """(before * classes + after + 1,) number of each pair, nodata first."""

    @classmethod
    def of(cls, matrix: ChangeMatrix, legend: Legend) -> Transitions:
        """Each transition that occurs gets a number, in legend order; beyond 253, the rarest share the last.

        Its colour is mostly that of what it became.
        """
        changes = matrix.square_metres * ~np.eye(len(legend.ids), dtype=bool)
        order = np.argsort(-changes.ravel(), kind="stable")
        found = order[changes.ravel()[order] > 0]
        named = np.sort(found[: _MOST if len(found) <= _MOST else _MOST - 1])
        table = np.zeros(changes.size + 1, np.uint8)
        table[1 + np.arange(0, changes.size, len(legend.ids) + 1)] = UNCHANGED
        table[1 + found] = 255
        table[1 + named] = np.arange(2, 2 + len(named))
        classes = [LegendClass(id=UNCHANGED, name="unchanged", color="#e6e6e3")]
        for number, pair in enumerate(named.tolist(), start=2):
            one, other = (legend.classes[k] for k in divmod(pair, len(legend.ids)))
            name = f"{one.name} → {other.name}"[:200]
            classes.append(LegendClass(id=number, name=name, color=_mixed(one, other)))
        if len(named) < len(found):
            classes.append(LegendClass(id=255, name="other changes", color="#404040"))
        return cls(Legend(name=f"change-{legend.name}", nodata=0, classes=tuple(classes)), table)


def _mixed(one: LegendClass, other: LegendClass) -> str:
    mixed = [round(0.25 * a + 0.75 * b) for a, b in zip(one.rgb, other.rgb, strict=True)]
    return "#" + "".join(f"{value:02x}" for value in mixed)
