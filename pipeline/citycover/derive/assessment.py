"""Areas corrected by a sample: what `citycover evaluate` found out about a map, taken to its areas."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from citycover.classes.legend import Legend
from citycover.errors import ConfigError
from citycover.files.plain import parse_json

logger = logging.getLogger(__name__)

_HECTARE = 10_000.0

_APART = 0.01
"""Share by which the area of a sample and of a map may differ: one is reckoned by the mean of all pixels."""


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Estimated share of a class in the area, with half the width of its 95 % confidence interval."""

    share: float
    margin: float | None
    """None where it is not known: a stratum with one point."""

    NONE: ClassVar[Mapping[str, None]] = {"adjusted_ha": None, "margin95_ha": None}

    def facts(self, square_metres: float) -> dict[str, float | None]:
        """In hectares of a map of so many square metres."""
        area = square_metres / _HECTARE
        return {
            "adjusted_ha": self.share * area,
            "margin95_ha": None if self.margin is None else self.margin * area,
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a report says of areas."""

    path: Path
    adjusted: tuple[Adjusted, ...]
    """(class,) in the order of the legend."""
    hectares: float | None
    """That the sample stands for; None: the report does not say."""

    def warn_if_elsewhere(self, square_metres: float) -> None:
        """Say where a map's area is not that of the sample, whose shares then are of another place."""
        area = square_metres / _HECTARE
        if self.hectares is not None and abs(area - self.hectares) > _APART * max(area, self.hectares):
            logger.warning(
                "--assessment %s is of a sample of %.6g ha, and the map has %.6g ha with a class: its shares "
                "are those of another extent; draw a sample of this map (citycover sample)",
                self.path, self.hectares, area,
            )  # fmt: skip


def read_assessment(path: Path, legend: Legend) -> Assessment:
    """Estimates for each class of a legend.

    Raises:
        ConfigError: no report, one without a stratified sample, or one in other classes.
    """
    try:
        report = parse_json(path.read_text(encoding="utf-8"))
        found = report["area_adjusted"]
        shares = {int(c["id"]): _adjusted(c["area_share"]) for c in found["classes"]} if found else None
        hectares = float(found["hectares"]) if found and found.get("hectares") is not None else None
    except OSError as error:
        raise ConfigError(f"--assessment {path} cannot be read: {error.strerror}; check the path") from None
    except (ValueError, KeyError, TypeError, OverflowError):
        raise ConfigError(
            f"--assessment {path} is no report of citycover evaluate; make one: citycover evaluate MAP "
            f"--truth points.csv -o {path.name}"
        ) from None
    if shares is None:
        raise ConfigError(
            f"--assessment {path} holds no adjusted areas: they need a stratified sample of points; draw one "
            "with citycover sample, and judge the map by it"
        )
    if set(shares) != set(legend.ids) or report.get("legend") != legend.name:
        raise ConfigError(
            f"--assessment {path} is in legend {report.get('legend')!r}, the map in {legend.name!r}; "
            "evaluate the map in its own legend (--to)"
        )
    return Assessment(path, tuple(shares[id_] for id_ in legend.ids), hectares)


def _adjusted(estimate: Mapping[str, Any]) -> Adjusted:
    margin = estimate["margin95"]
    return Adjusted(float(estimate["value"] or 0.0), None if margin is None else float(margin))
