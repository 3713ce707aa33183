"""Evaluate a map: find out what is compared with what and in which legend, and compare."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend
from citycover.classes.raster import ClassRaster, Progress
from citycover.classes.table import NO_CLASS, ClassTable, table_between
from citycover.errors import ConfigError
from citycover.evaluate.confusion import Confusion, count_pairs
from citycover.evaluate.decide import write_decided
from citycover.evaluate.estimate import StratifiedSample
from citycover.evaluate.features import (
    VECTOR_ENDINGS,
    Truth,
    compare_polygons,
    map_at_points,
    pixels_of,
    read_truth,
)
from citycover.evaluate.rasters import check_compared, compare_rasters
from citycover.evaluate.reliability import Certainty, Reliability
from citycover.evaluate.request import EvaluationRequest, Side, resolve
from citycover.evaluate.strata import Strata, warn_of_twins
from citycover.files.remote import Place
from citycover.geometry.areas import mean_area
from citycover.plan.layers import CLASSES, CONFIDENCE, PROBABILITIES
from citycover.scene.file import check_class_file

logger = logging.getLogger(__name__)

_SQUARE_METRES = 10_000.0  # of a hectare


@dataclass(frozen=True)
class Evaluation:
    """What came out."""

    legend: Legend
    """Compared in."""
    confusion: Confusion
    kind: str
    """Of the truth: `raster`, `points` or `polygons`."""
    unlabelled: int = 0
    """Points or polygons whose class is empty."""
    sample: StratifiedSample | None = None
    """Where the truth is a stratified sample of points."""
    hectares: float = 0.0
    """Area of the strata."""
    reliability: Reliability | None = None
    """Of a map with confidence."""

    def report(self) -> dict[str, Any]:
        """Everything as plain values; see `report` of `Confusion`, `StratifiedSample` and `Reliability`."""
        facts = {"legend": self.legend.name, "truth_kind": self.kind, "unlabelled": self.unlabelled}
        adjusted = self.sample.report(self.legend, self.hectares) if self.sample else None
        reliability = self.reliability.report() if self.reliability else None
        return (
            self.confusion.report(self.legend)
            | facts
            | {"area_adjusted": adjusted, "reliability": reliability}
        )


def evaluate(request: EvaluationRequest, progress: Progress | None = None) -> Evaluation:
    """Compare a map with the truth; `progress` is told how far it is.

    Raises:
        ConfigError: a file cannot be read, a legend is missing or is not the one that a file is written in,
            or map and truth do not overlap.
    """
    ours, theirs, legend = resolve(request)
    table = table_between(ours.legend, legend, ours.table)
    certainty = _certainty(request, ours)
    with _decided(request, ours, legend, table) as (path, map_table):
        if theirs.path.suffix.lower() in VECTOR_ENDINGS:
            found = _compare_features(request, path, map_table, (ours, theirs), legend, progress, certainty)
        else:
            truth_table = table_between(theirs.legend, legend, theirs.table)
            found = Evaluation(
                legend,
                compare_rasters(path, theirs.path, legend, map_table, truth_table, progress, certainty),
                "raster",
            )
    return found if certainty is None else replace(found, reliability=certainty.found)


def _certainty(request: EvaluationRequest, ours: Side) -> Certainty | None:
    """The confidence of a product whose classes are judged as they are."""
    path = ours.path.with_name(CONFIDENCE.file)
    anew = request.probabilities is not None or request.merge == "first"
    if anew or ours.path.name != CLASSES.file or not path.is_file():
        return None
    check_class_file(path, "confidence", request.trust)
    return Certainty(path)


@contextmanager
def _decided(
    request: EvaluationRequest, ours: Side, legend: Legend, table: dict[int, int]
) -> Iterator[tuple[Place, dict[int, int]]]:
    """The class raster to compare, and the table from its numbers to ids of the legend."""
    probabilities: Place | None = request.probabilities
    if probabilities is None and request.merge == "first":
        probabilities = ours.path.with_name(PROBABILITIES.file)
        if not probabilities.exists():
            raise ConfigError(
                f"--merge first needs probabilities, and {probabilities} does not exist; map again with "
                "--probabilities, give --probabilities FILE (a band for each class), or --merge last"
            )
    if probabilities is None:
        yield ours.path, table
        return
    if not probabilities.is_dir():
        check_class_file(probabilities, "--probabilities", request.trust)
    ranks = ClassTable.onto(legend, table).ranks_of(np.array(ours.legend.ids))
    with tempfile.TemporaryDirectory(prefix="citycover-") as folder:
        path = Path(folder) / "decided.tif"
        write_decided(probabilities, path, ranks, len(legend.ids), request.merge)
        yield path, dict(enumerate(legend.ids))


def _compare_features(
    request: EvaluationRequest,
    path: Place,
    map_table: dict[int, int],
    sides: tuple[Side, Side],
    legend: Legend,
    progress: Progress | None,
    certainty: Certainty | None,
) -> Evaluation:
    mapped_side, theirs = sides
    truth_table = ClassTable.onto(legend, table_between(theirs.legend, legend, theirs.table))
    ours = ClassTable.onto(legend, map_table)
    classes = len(legend.ids)
    with ClassRaster(path) as raster, certainty.on() if certainty else nullcontext():
        if raster.grid.crs is None:
            raise ConfigError(f"map {path} has no CRS, so no point can be found on it; give it one")
        assert isinstance(theirs.path, Path), "resolve looked"
        features = read_truth(theirs.path, raster.grid, request.truth_crs)
        truth = _ranks(features, request, theirs.legend, truth_table)
        unlabelled = int((truth == NO_CLASS).sum())
        if unlabelled == len(truth):
            raise ConfigError(
                f"truth {theirs.path} has no class in field {request.field!r} of any of its {unlabelled} "
                "features; fill it in, or name another with --field"
            )
        elsewhere = _elsewhere(request, features, theirs, truth_table)
        if not features.are_points:
            confusion = compare_polygons(
                raster, features, truth, ours, classes, elsewhere, progress, certainty
            )
            return Evaluation(legend, confusion, "polygons", unlabelled)
        mapped = map_at_points(raster, features, ours)
        if certainty is not None:
            for place, window in pixels_of(features, raster.grid):
                certainty.add(window, truth[[[place]]], mapped[[[place]]])  # (1, 1)
        hectares = mean_area(raster.grid) / _SQUARE_METRES
    confusion = check_compared(count_pairs(truth, mapped, classes), path, theirs.path)
    found = Evaluation(legend, confusion, "points", unlabelled)
    if "stratum" in features.columns:
        try:
            strata = Strata.of(features, mapped_side, hectares)
            sample = strata.sample(mapped, truth, classes)
            warn_of_twins(features, (mapped >= 0) & (truth >= 0))
            return replace(found, sample=sample, hectares=strata.hectares)
        except ConfigError as error:
            logger.warning("no area-adjusted figures: %s", error)
    return found


def _elsewhere(request: EvaluationRequest, features: Truth, theirs: Side, table: ClassTable) -> int:
    """Rank of what lies outside of polygons, or NO_CLASS.

    Raises:
        ConfigError: it is given beside points, or means no class.
    """
    if request.elsewhere is None:
        return NO_CLASS
    if features.are_points:
        raise ConfigError(
            f"--elsewhere says what lies outside of polygons, and truth {theirs.path} holds points; "
            "leave it out"
        )
    return _class_named("--elsewhere", request.elsewhere, theirs.legend, table)


def _ranks(
    features: Truth, request: EvaluationRequest, legend: Legend, table: ClassTable
) -> NDArray[np.int16]:
    """(feature,) rank of each one's class, or NO_CLASS; warns where a column of ones may be no class."""
    if request.truth_class is not None:
        rank = _class_named("--truth-class", request.truth_class, legend, table)
        return np.full(len(features.geometries), rank, np.int16)
    ranks = features.ranks(request.field, legend, table)
    values = {str(value).strip() for value in features.column(request.field) if value is not None}
    if request.legend is None and len(legend.ids) > 1 and values in ({"1"}, {"1.0"}):
        logger.warning(
            "every feature of %s has %s = 1, class %r of legend %r; if that only says that something is "
            "there, name its class with --truth-class",
            features.path, request.field, legend.classes[legend.ids.index(1)].name, legend.name,
        )  # fmt: skip
    return ranks


def _class_named(option: str, name: str, legend: Legend, table: ClassTable) -> int:
    """Rank of a class by its name or id.

    Raises:
        ConfigError: the legend has none.
    """
    for id_, known in zip(legend.ids, legend.names, strict=True):
        if name.casefold() in {known.casefold(), str(id_)}:
            return int(table.ranks_of(np.array([id_]))[0])
    raise ConfigError(
        f"{option} {name!r} is no class of legend {legend.name!r}; it has {', '.join(legend.names)}"
    )
