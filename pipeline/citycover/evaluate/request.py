"""What an evaluation is asked for: a map, a truth, and where they are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from citycover.classes.legend import Legend, read_legend
from citycover.classes.raster import count_ids, name_legends
from citycover.classes.table import common_legend
from citycover.errors import ConfigError
from citycover.evaluate.decide import Merge
from citycover.evaluate.features import VECTOR_ENDINGS
from citycover.files.remote import Place, RemotePath, place_of
from citycover.product.open import find_raster, refuse_other_legend
from citycover.scene.trust import Trust


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What a user asks for."""

    mapped: str | Place
    """Product folder, or class raster; on this machine, or `s3://bucket/prefix`."""
    truth: str | Place
    """Class raster, product folder, or points or polygons in a file."""
    legend: str | None = None
    """Of the truth: name, name:variant or file; None: the map's."""
    map_legend: str | None = None
    """Of a map that is no product, in the same way."""
    to: str | None = None
    """Legend to compare in; None: that of the two which has a remap table from the other."""
    field: str = "class"
    """Attribute of points and polygons that holds the class: id or name."""
    truth_class: str | None = None
    """Class of all points and polygons, in the truth's legend, where no attribute says it."""
    truth_crs: str | None = None
    """CRS of points and polygons, instead of what their file says."""
    elsewhere: str | None = None
    """Class, in the truth's legend, of what lies outside all polygons; None: unknown."""
    probabilities: Path | None = None
    """Of the map, to decide from anew: multi-band raster or Zarr."""
    merge: Merge = "last"
    """Whether classes are merged before or after the most probable one is taken."""
    trust: Trust = dataclasses.field(default_factory=Trust)
    """Which files the rasters may name in turn."""

    def __post_init__(self) -> None:
        """Raise ConfigError where the class is said twice."""
        if self.truth_class is not None and self.field != "class":
            raise ConfigError(
                f"got --truth-class {self.truth_class}, the class of all, and --field {self.field}, a column "
                "that says each one's; give one of them"
            )


@dataclass(frozen=True)
class Side:
    """The map or the truth: where it is, and what its numbers mean."""

    path: Place
    legend: Legend
    table: str
    """Name of the remap table from it."""

    @classmethod
    def named(cls, path: Place, text: str) -> Side:
        """With a legend by name, name:variant or file.

        `nlcd:wet_is_water` is NLCD under a contested remap table.

        Raises:
            ConfigError: there is no such legend.
        """
        if Path(text).suffix == ".toml":
            legend = read_legend(text)
            return cls(path, legend, legend.name)
        return cls(path, read_legend(text.partition(":")[0]), text)


def resolve_map(path: str | Place, legend: str | None, trust: Trust) -> Side:
    """The class raster of a map and what its numbers mean.

    Args:
        path: product folder or class raster.
        legend: see `Side.named`; None: what the product says.
        trust: which files the raster may name in turn.

    Raises:
        ConfigError: not found, or its legend is not known.
    """
    path = place_of(path)
    raster, said = find_raster(path, trust=trust)
    if legend is not None:
        return _named(raster, legend, said, "--map-legend")
    if said is None:
        raise ConfigError(
            f"{path} does not say what its numbers mean; {name_legends(count_ids(raster))}; "
            "name one, or a legend file, with --map-legend"
        )
    return Side(raster, said, said.name)


def _named(path: Place, text: str, said: Legend | None, option: str) -> Side:
    """With a legend by name; that of a product only under another of its tables."""
    side = Side.named(path, text)
    if said is not None:
        refuse_other_legend(path, option, side.legend, said)
    return side


def _refuse_idle(request: EvaluationRequest, truth: Place) -> None:
    """Refuse what says something of points or polygons where the truth is a raster.

    Raises:
        ConfigError: there is such an option.
    """
    said = {
        "--field": request.field != "class",
        "--truth-class": request.truth_class is not None,
        "--truth-crs": request.truth_crs is not None,
        "--elsewhere": request.elsewhere is not None,
    }
    if idle := [option for option, given in said.items() if given]:
        raise ConfigError(
            f"{' and '.join(idle)} is said of points or polygons, and truth {truth} is a raster; leave it out"
        )


def resolve(request: EvaluationRequest) -> tuple[Side, Side, Legend]:
    """Map, truth, and the legend to compare them in.

    Raises:
        ConfigError: a file or legend is missing, no remap table joins the legends, or an option is for
            another kind of truth.
    """
    ours = resolve_map(request.mapped, request.map_legend, request.trust)
    truth, said = place_of(request.truth), None
    if isinstance(truth, RemotePath) and truth.suffix.lower() in VECTOR_ENDINGS:
        raise ConfigError(f"truth {truth}: points and polygons are read from files of this machine; copy it")
    if truth.suffix.lower() not in VECTOR_ENDINGS:
        truth, said = find_raster(truth, "truth", request.trust)
        _refuse_idle(request, truth)
    if request.legend is not None:
        theirs = _named(truth, request.legend, said, "--legend")
    elif said is not None:
        theirs = Side(truth, said, said.name)
    else:
        theirs = Side(truth, ours.legend, ours.table)
    to = read_legend(request.to) if request.to else common_legend(ours.legend, theirs.legend)
    return ours, theirs, to
