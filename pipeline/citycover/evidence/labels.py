"""Labels of the place that is mapped: what was asked for, what the files are, and what they hold there.

Metadata comes first, and refuses what cannot be evidence; then the cells that lie over the area are counted,
or an even sample of their rows where there are very many. No pixel of the image is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend, read_legend
from citycover.classes.raster import ClassRaster
from citycover.classes.table import NO_CLASS, ClassTable, table_between
from citycover.errors import ConfigError, ModelError
from citycover.evidence.catalogue import Credit
from citycover.evidence.cells import Sheet, refuse_ids
from citycover.evidence.fetch import LabelFile, find_labels
from citycover.evidence.noise import Belief
from citycover.evidence.request import LabelRequest
from citycover.evidence.rule import Rule
from citycover.evidence.slopes import Odds
from citycover.files.identity import FileStamp
from citycover.files.zipped import zipped
from citycover.geometry.footprint import degrees_text
from citycover.geometry.grid import finer_than, pixel_ground_size
from citycover.model.card import ModelCard

_STRIPS = 16
"""Strips of a label raster, of four million cells each, that are counted at most."""


@dataclass(frozen=True, slots=True)
class LabelEvidence:
    """Labels of the place that is mapped, and how far they are believed; small and picklable."""

    sheets: tuple[Sheet, ...]
    """Where several have a label, all of them vote."""
    prior: tuple[float, ...]
    """(channel,) mean probability that the network gives; 0: training never had the class."""
    shares: tuple[float, ...]
    """(channel,) of the labels in the area that is mapped."""
    rule: Rule
    offset: tuple[float, float] = (0.0, 0.0)
    """Rows and columns of the map by which what a pixel shows is said elsewhere in the labels."""
    slopes: tuple[float, ...] = ()
    """(channel,) how far the network's word on a class counts, 0 to 1; empty: fully."""
    change: bool = False
    """Watched: they lose their trust where the place has changed since."""
    odds: tuple[Odds, ...] = ()
    """(channel,) what the network's word on a class is worth as a chance; empty: what it says."""

    @property
    def strengths(self) -> tuple[float, ...]:
        """(channel,) power of the network's evidence; 0 where training never had the class."""
        return tuple(self.rule.strength * known for known in self.known)

    @property
    def known(self) -> tuple[float, ...]:
        """(channel,) how far the network can tell a class from the others, 0 to 1."""
        slopes = self.slopes or (1.0,) * len(self.prior)
        return tuple(slope if prior > 0 else 0.0 for slope, prior in zip(slopes, self.prior, strict=True))

    def seen_from(self, grid: GeoBox) -> GeoBox:
        """A grid of the map, moved to where the labels say what it shows."""
        return moved(grid, self.offset)


@dataclass(frozen=True, slots=True)
class PlaceLabels:
    """Labels that were understood: they lie over the area, and say something about it."""

    sheets: tuple[Sheet, ...]
    legend: str
    """What their numbers mean."""
    prior: tuple[float, ...]
    """(channel,) mean probability of the network where it was trained, from its card."""
    shares: tuple[float, ...]
    """(channel,) of the labels over the area that is mapped."""
    pixels_per_cell: float
    """Pixels of output that a cell covers, of the finest sheet."""
    trust: float | None
    """As asked for; None: as is measured."""
    credits: tuple[Credit, ...]
    """Of sheets that were asked for by name."""
    identity: str
    """Hash of files, meaning and trust; whether the files stay what they were is told by their content."""
    beside: tuple[str, ...] = ()
    """Files that mosaics among the sheets are made of."""
    change: bool = False
    """Whether they are watched."""

    def believed(self, belief: Belief) -> LabelEvidence:
        """As evidence: a share of them reckoned wrong, and read where they say what the image shows."""
        rule = Rule(belief.share, belief.measured)
        offset, prior = belief.offset.applied, belief.prior or self.prior
        return LabelEvidence(
            self.sheets, prior, self.shares, rule, offset, belief.slopes, self.change, belief.odds
        )


def moved(grid: GeoBox, offset: tuple[float, float]) -> GeoBox:
    """A grid some rows further down and columns further right."""
    rows, cols = offset
    return GeoBox(grid.shape, grid.transform * Affine.translation(cols, rows), grid.crs)


def understand_labels(request: LabelRequest, card: ModelCard, grid: GeoBox) -> PlaceLabels:
    """Look at the labels of a place.

    Args:
        request: which, and what they mean.
        card: of the network whose evidence they are put to.
        grid: of the map.

    Raises:
        ModelError: the network does not know what the rule needs.
        ConfigError: the labels cannot be read, lie elsewhere, mean something else or say nothing.
        MachineError: labels that were asked for by name cannot be fetched.
    """
    _check_model(card)
    files = [file for named in request.files for file in find_labels(named, grid)]
    legends: dict[str, None] = {}
    sheets, total = [], np.zeros(len(card.channels))
    for file in files:
        legend, table = _meaning(request.legend or _legend_of(file, card), card)
        legends[legend] = None
        with ClassRaster(file.path, "labels") as raster:
            sheet = _sheet(raster, table, grid)
            total += _count(raster, sheet, grid, len(card.channels), by_name=file.credit is not None)
        sheets.append(sheet)
    _check_counts(request, card, total)
    pixel = np.prod(pixel_ground_size(grid))
    finest = min(float(np.prod(pixel_ground_size(sheet.grid))) for sheet in sheets)
    return PlaceLabels(
        sheets=tuple(sheets),
        legend=", ".join(legends),
        prior=card.trained_prior,
        shares=tuple((total / total.sum()).tolist()),
        pixels_per_cell=finest / float(pixel),
        trust=request.trust,
        credits=tuple(file.credit for file in files if file.credit is not None),
        identity=_identity(sheets, request.trust),
        change=request.change,
    )


def check_meaning(request: LabelRequest, card: ModelCard) -> None:
    """Refuse labels that mean nothing to a network, wherever they lie.

    Raises:
        ModelError: the network does not know what the rule needs.
        ConfigError: there is no such legend, or its classes are none of the network's.
    """
    _check_model(card)
    if request.legend is not None:
        _meaning(request.legend, card)


def _check_model(card: ModelCard) -> None:
    if card.task != "classes":
        raise ModelError(
            f"model {card.name!r} gives any of its classes, not one of them; labels are evidence for models "
            "of one class a pixel only; leave out --labels"
        )
    if not card.trained_prior:
        raise ModelError(
            f"the card of model {card.name!r} has no trained_prior, the mean of what the network predicts; "
            "without it labels cannot be weighed against the network; learn one from these labels by "
            "citycover sharpen or train, or leave out --labels"
        )


def _legend_of(file: LabelFile, card: ModelCard) -> str | None:
    """Legend that a product by name is written in; None: as the model learned it, or a file of the user."""
    learned = card.label_legend or card.legend.name
    return None if file.legend == learned.partition(":")[0] else file.legend


def _meaning(wanted: str | None, card: ModelCard) -> tuple[str, ClassTable]:
    """Name of the labels' legend, and its ids as output channels."""
    name = wanted or card.label_legend or card.legend.name
    source, _, variant = name.partition(":")
    if source == card.legend.name:
        table = table_between(card.legend, card.legend)
    elif wanted is None and source in card.legend.remap:
        table = dict(card.legend.table_from(source))  # as it was learned; the legend need not be at hand
    else:
        table = _table_from(read_legend(source), card, variant)
    title = f"legend {name!r}"
    return name, ClassTable.onto(card.legend, table, order=card.channels, title=title)


def _table_from(source: Legend, card: ModelCard, variant: str) -> dict[int, int]:
    try:
        return table_between(source, card.legend, f"{source.name}:{variant}" if variant else None)
    except ConfigError as error:
        raise ConfigError(
            f"labels in legend {source.name!r} mean nothing to model {card.name!r}: {error}; or name with "
            "--labels-legend one that it knows"
        ) from None


def _sheet(raster: ClassRaster, table: ClassTable, grid: GeoBox) -> Sheet:
    """A label raster whose metadata let it be evidence."""
    path = Path(str(raster.path))
    if raster.grid.crs is None:
        raise ConfigError(
            f"labels {path} have no CRS, so they cannot be laid on the image; write one into the file "
            "(gdal_edit.py -a_srs EPSG:...)"
        )
    cell, pixel = pixel_ground_size(raster.grid), pixel_ground_size(grid)
    if finer_than(cell, pixel):
        raise ConfigError(
            f"labels {path} have cells of {min(cell):.3g} m, finer than the pixels of the map "
            f"({min(pixel):.3g} m): they are a map already; bring them to the grid of the image "
            f"(gdalwarp -r mode -tr {min(pixel):.3g} {min(pixel):.3g}), or leave out --labels"
        )
    return Sheet(path, raster.grid, table)


def _count(
    raster: ClassRaster, sheet: Sheet, grid: GeoBox, channels: int, *, by_name: bool
) -> NDArray[np.float64]:
    """(channel,) area of the labels over a grid, in square metres; a tile by name may lie beside it."""
    part = raster.part_under(grid)
    if part is None and by_name:
        return np.zeros(channels, np.float64)
    if part is None:
        raise ConfigError(
            f"labels {sheet.path} cover {degrees_text(sheet.grid)}, the map {degrees_text(grid)}: they do "
            "not overlap; check their CRS, or name labels of the place"
        )
    total = np.zeros(channels, np.float64)
    strips = list(raster.strips(part))
    for strip in strips[:: -(-len(strips) // _STRIPS)]:
        ranks, stray = raster.read_known(strip, sheet.table)
        if stray.size:
            refuse_ids(sheet, stray)
        total += np.bincount(ranks[ranks != NO_CLASS], minlength=channels)
    return total * float(np.prod(pixel_ground_size(sheet.grid)))


def _check_counts(request: LabelRequest, card: ModelCard, total: NDArray[np.float64]) -> None:
    held = {name: share for name, share in zip(card.channel_names, total.tolist(), strict=True) if share}
    files = ", ".join(str(path) for path in request.files)
    if not held:
        raise ConfigError(
            f"labels {files} have no label over the map that means a class of model {card.name!r}: they are "
            "nodata there; name labels of the place"
        )
    if len(held) == 1 and len(card.channels) > 1:
        raise ConfigError(
            f"labels {files} say {next(iter(held))!r} everywhere over the map, so they would draw it alone; "
            "check --labels-legend, name labels that tell classes apart, or leave out --labels"
        )


def _identity(sheets: Sequence[Sheet], trust: float | None) -> str:
    facts = [
        [str(s.path.absolute()), _bytes(s.path), s.table.ids.tolist(), s.table.ranks.tolist()] for s in sheets
    ]
    return hashlib.sha256(json.dumps([facts, trust]).encode()).hexdigest()


def _bytes(path: Path) -> int:
    """Of the file, store or archive that holds a sheet."""
    inside = zipped(str(path))
    stamp = FileStamp.of(path if inside is None else inside.archive)
    return 0 if stamp is None else stamp.size
