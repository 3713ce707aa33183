"""Evaluate a map: find out what is compared with what and in which legend, and compare."""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from citycover.accuracy import Confusion, check_compared, compare_rasters, count_pairs
from citycover.classraster import ClassRaster, Progress, count_ids, name_legends
from citycover.classtable import NO_CLASS, ClassTable, common_legend, table_between
from citycover.errors import ConfigError
from citycover.estimation import StratifiedSample
from citycover.gsd import pixel_ground_size
from citycover.legend import Legend, read_legend
from citycover.merging import Merge, write_decided
from citycover.sampling import count_strata
from citycover.truth import VECTOR_ENDINGS, Features, compare_polygons, map_at_points, read_features

logger = logging.getLogger(__name__)

_SQUARE_METRES = 10_000.0  # of a hectare


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What a user asks for."""

    mapped: Path
    """Product folder, or class raster."""
    truth: Path
    """Class raster, product folder, or points or polygons in a file."""
    legend: str | None = None
    """Of the truth: name, name:variant or file; None: the map's."""
    map_legend: str | None = None
    """Of a map that is no product, in the same way."""
    to: str | None = None
    """Legend to compare in; None: that of the two which has a remap table from the other."""
    field: str = "class"
    """Attribute of points and polygons that holds the class: id or name."""
    truth_crs: str | None = None
    """CRS of points and polygons, instead of what their file says."""
    elsewhere: str | None = None
    """Class, in the truth's legend, of what lies outside all polygons; None: unknown."""
    probabilities: Path | None = None
    """Of the map, to decide from anew: multi-band raster or Zarr."""
    merge: Merge = "last"
    """Whether classes are merged before or after the most probable one is taken."""


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

    def report(self) -> dict[str, Any]:
        """Everything as plain values; see `Confusion.report` and `StratifiedSample.report`."""
        facts = {"legend": self.legend.name, "truth_kind": self.kind, "unlabelled": self.unlabelled}
        adjusted = self.sample.report(self.legend, self.hectares) if self.sample else None
        return self.confusion.report(self.legend) | facts | {"area_adjusted": adjusted}


@dataclass(frozen=True)
class Side:
    """The map or the truth: where it is, and what its numbers mean."""

    path: Path
    legend: Legend
    table: str
    """Name of the remap table from it."""

    @classmethod
    def named(cls, path: Path, text: str) -> Side:
        """With a legend by name, name:variant or file.

        `nlcd:wet_is_water` is NLCD under a contested remap table.

        Raises:
            ConfigError: there is no such legend.
        """
        if Path(text).suffix == ".toml":
            legend = read_legend(text)
            return cls(path, legend, legend.name)
        return cls(path, read_legend(text.partition(":")[0]), text)


def evaluate(request: EvaluationRequest, progress: Progress | None = None) -> Evaluation:
    """Compare a map with the truth; `progress` is told how far it is.

    Raises:
        ConfigError: a file cannot be read, a legend is missing or is not the one that a file is written in,
            or map and truth do not overlap.
    """
    ours, theirs, legend = resolve(request)
    table = table_between(ours.legend, legend, ours.table)
    with _decided(request, ours, legend, table) as (path, map_table):
        if theirs.path.suffix.lower() in VECTOR_ENDINGS:
            return _compare_features(request, path, map_table, (ours, theirs), legend, progress)
        truth_table = table_between(theirs.legend, legend, theirs.table)
        confusion = compare_rasters(path, theirs.path, legend, map_table, truth_table, progress)
    return Evaluation(legend, confusion, "raster")


def find_raster(path: Path) -> tuple[Path, Legend | None]:
    """The class raster of a product folder with the legend that its run.json holds; or a raster as it is.

    Raises:
        ConfigError: there is nothing, or a folder that is no product.
    """
    raster = path / "landcover.tif" if path.is_dir() else path
    if not raster.exists():
        what = "holds no landcover.tif" if path.is_dir() else "does not exist"
        raise ConfigError(f"{path} {what}; give a folder that `citycover map` wrote, or a class raster")
    run = raster.with_name("run.json")
    if raster.name != "landcover.tif" or not run.is_file():
        return raster, None
    try:
        card = json.loads(run.read_text(encoding="utf-8"))["card"]
        return raster, Legend.model_validate(card["legend"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(f"{run} holds no legend; map again, or give --map-legend: {error}") from None


def resolve_map(path: Path, legend: str | None) -> Side:
    """The class raster of a map and what its numbers mean.

    Args:
        path: product folder or class raster.
        legend: see `Side.named`; None: what the product says.

    Raises:
        ConfigError: not found, or its legend is not known.
    """
    raster, said = find_raster(path)
    if legend is not None:
        return Side.named(raster, legend)
    if said is None:
        raise ConfigError(
            f"{path} does not say what its numbers mean; {name_legends(count_ids(raster))}; "
            "name one, or a legend file, with --map-legend"
        )
    return Side(raster, said, said.name)


def resolve(request: EvaluationRequest) -> tuple[Side, Side, Legend]:
    """Map, truth, and the legend to compare them in.

    Raises:
        ConfigError: a file or legend is missing, or no remap table joins the legends.
    """
    ours = resolve_map(request.mapped, request.map_legend)
    truth, said = request.truth, None
    if truth.suffix.lower() not in VECTOR_ENDINGS:
        truth, said = find_raster(truth)
    if request.legend is not None:
        theirs = Side.named(truth, request.legend)
    elif said is not None:
        theirs = Side(truth, said, said.name)
    else:
        theirs = Side(truth, ours.legend, ours.table)
    to = read_legend(request.to) if request.to else common_legend(ours.legend, theirs.legend)
    return ours, theirs, to


@contextmanager
def _decided(
    request: EvaluationRequest, ours: Side, legend: Legend, table: dict[int, int]
) -> Iterator[tuple[Path, dict[int, int]]]:
    """The class raster to compare, and the table from its numbers to ids of the legend."""
    probabilities = request.probabilities
    if probabilities is None and request.merge == "first":
        probabilities = ours.path.with_name("landcover.zarr")
        if not probabilities.exists():
            raise ConfigError(
                f"--merge first needs probabilities, and {probabilities} does not exist; "
                "give --probabilities FILE (a band for each class), or --merge last"
            )
    if probabilities is None:
        yield ours.path, table
        return
    ranks = ClassTable.onto(legend, table).ranks_of(np.array(ours.legend.ids))
    with tempfile.TemporaryDirectory(prefix="citycover-") as folder:
        path = Path(folder) / "decided.tif"
        write_decided(probabilities, path, ranks, len(legend.ids), request.merge)
        yield path, dict(enumerate(legend.ids))


def _compare_features(
    request: EvaluationRequest,
    path: Path,
    map_table: dict[int, int],
    sides: tuple[Side, Side],
    legend: Legend,
    progress: Progress | None,
) -> Evaluation:
    mapped_side, theirs = sides
    truth_table = ClassTable.onto(legend, table_between(theirs.legend, legend, theirs.table))
    ours = ClassTable.onto(legend, map_table)
    classes = len(legend.ids)
    with ClassRaster(path) as raster:
        if raster.grid.crs is None:
            raise ConfigError(f"map {path} has no CRS, so no point can be found on it; give it one")
        features = read_features(theirs.path, raster.grid.crs.proj, request.truth_crs)
        truth = features.ranks(request.field, theirs.legend, truth_table)
        unlabelled = int((truth == NO_CLASS).sum())
        if unlabelled == len(truth):
            raise ConfigError(
                f"truth {theirs.path} has no class in field {request.field!r} of any of its {unlabelled} "
                "features; fill it in, or name another with --field"
            )
        if not features.are_points:
            elsewhere = _elsewhere(request.elsewhere, theirs.legend, truth_table)
            confusion = compare_polygons(raster, features, truth, ours, classes, elsewhere, progress)
            return Evaluation(legend, confusion, "polygons", unlabelled)
        mapped = map_at_points(raster, features, ours)
        height, width = pixel_ground_size(raster.grid)
    confusion = check_compared(count_pairs(truth, mapped, classes), path, theirs.path)
    sample, hectares = None, 0.0
    if "stratum" in features.columns:
        try:
            strata = _Strata.of(features, mapped_side, height * width / _SQUARE_METRES)
            sample, hectares = strata.sample(mapped, truth, classes), strata.hectares
        except ConfigError as error:
            logger.warning("no area-adjusted figures: %s", error)
    return Evaluation(legend, confusion, "points", unlabelled, sample, hectares)


def _elsewhere(name: str | None, legend: Legend, table: ClassTable) -> int:
    if name is None:
        return NO_CLASS
    for id_, known in zip(legend.ids, legend.names, strict=True):
        if name.casefold() in {known.casefold(), str(id_)}:
            return int(table.ranks_of(np.array([id_]))[0])
    raise ConfigError(
        f"--elsewhere {name!r} is no class of legend {legend.name!r}; it has {', '.join(legend.names)}"
    )


@dataclass(frozen=True, eq=False)
class _Strata:
    """The design of a stratified sample, as its points say."""

    names: list[str]
    members: NDArray[np.int64]
    """(point,) index into `names`."""
    pixels: list[float]
    """(stratum,)"""
    hectares: float

    @classmethod
    def of(cls, points: Features, mapped: Side, pixel_ha: float) -> _Strata:
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


def _one_per_stratum(points: Features, labels: list[str], column: str) -> dict[str, float]:
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


def _warn_of_lost(pixels: Mapping[str, float], points: Features, mapped: Side) -> None:
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
