"""The map that something is derived from: a product folder that is whole, or a class raster with a legend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend, read_legend
from citycover.classes.raster import ClassRaster, Progress, count_ids, name_legends
from citycover.classes.table import NO_CLASS, ClassTable
from citycover.errors import ConfigError
from citycover.files.remote import Place, place_of
from citycover.geometry.areas import row_areas
from citycover.geometry.grid import pixel_ground_size
from citycover.geometry.window import Window
from citycover.plan.layers import CLASSES, CONFIDENCE
from citycover.product.open import find_raster, refuse_other_legend, refuse_part
from citycover.product.record import RunRecord, read_record
from citycover.scene.file import check_class_file
from citycover.scene.trust import Trust

UNIT = 2**28
"""Units of area in the largest pixel of a map. Whole numbers add up to the same sum in any order, so what is
derived does not depend on how the map was cut into strips."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Whole rows of a map."""

    window: Window
    ranks: NDArray[np.int16]
    """(y, x) place of each pixel's class in the legend, or NO_CLASS."""
    confidence: NDArray[np.uint8] | None
    """(y, x) in steps of 1/255, 0: none; None: the map has no such layer, or it was not asked for."""


@dataclass(frozen=True)
class SourceMap:
    """A map on disk and what its numbers mean."""

    path: Place
    """Of the class raster."""
    legend: Legend
    confidence: Place | None
    record: RunRecord | None
    """None: a raster of unknown making."""
    grid: GeoBox
    trust: Trust = field(default_factory=Trust)
    """Which files its layers may name."""
    says_legend: bool = False
    """Whether it is of a product, which says itself what its numbers mean."""

    @property
    def row_areas(self) -> NDArray[np.float64]:
        """(y,) square metres of a pixel in each row."""
        return row_areas(self.grid)

    @property
    def row_units(self) -> NDArray[np.int64]:
        """(y,) area of a pixel in each row, in `UNIT`ths of the largest."""
        areas = self.row_areas
        units: NDArray[np.int64] = np.round(areas / areas.max() * UNIT).astype(np.int64)
        return units

    @property
    def sides(self) -> tuple[int, int]:
        """Length of a pixel's vertical and horizontal side, 1000 being the shorter."""
        down, right = pixel_ground_size(self.grid)
        shorter = min(down, right)
        return round(1000 * down / shorter), round(1000 * right / shorter)

    @property
    def unit(self) -> float:
        """Square metres of one unit."""
        return float(self.row_areas.max()) / UNIT

    def strips(self, progress: Progress | None = None, *, confidence: bool = True) -> Iterator[Strip]:
        """The map from top to bottom, in strips of about four million pixels; `confidence` as for `opened`.

        Raises:
            ConfigError: as `OpenMap.read`.
        """
        with self.opened(confidence=confidence) as opened:
            for window in opened.classes.strips(progress=progress):
                yield opened.read(window)

    @contextmanager
    def opened(
        self, onto: GeoBox | None = None, table: ClassTable | None = None, *, confidence: bool = True
    ) -> Iterator[OpenMap]:
        """The map, to be read.

        Args:
            onto: grid to see it on, by the nearest pixel; None: its own.
            table: from its numbers to ranks; None: those of its legend.
            confidence: False: it is not asked for, so not decoded.

        Raises:
            ConfigError: a layer cannot be opened, or is not of the same pixels.
        """
        with ExitStack() as stack:
            classes = stack.enter_context(ClassRaster(self.path, onto=onto))
            sure = None
            if confidence and self.confidence is not None:
                check_class_file(self.confidence, "layer", self.trust)
                sure = stack.enter_context(ClassRaster(self.confidence, "layer", onto=onto))
                if onto is None and sure.grid.shape != classes.grid.shape:
                    raise ConfigError(
                        f"{self.confidence} and {self.path} have not the same pixels: they are not of one "
                        "product; map again"
                    )
            yield OpenMap(classes, sure, table or ClassTable.onto(self.legend))


@dataclass(frozen=True)
class OpenMap:
    """A map whose files are open."""

    classes: ClassRaster
    confidence: ClassRaster | None
    table: ClassTable

    def read(self, window: Window) -> Strip:
        """What the map says there.

        Raises:
            ConfigError: a layer cannot be read, or holds ids that the table does not have.
        """
        sure = None
        if self.confidence is not None:
            steps, known = self.confidence.read(window)
            sure = np.where(known, steps, 0).astype(np.uint8)
        return Strip(window, self.classes.read_ranks(window, self.table), sure)


def open_source(path: str | Place, legend: str | None, trust: Trust) -> SourceMap:
    """A map by its product folder, or by a class raster.

    Args:
        path: folder, or raster; on this machine, or `s3://bucket/prefix`.
        legend: of a map that is no product: a name or file; a product keeps its own (`check_map_legend`).
        trust: which files a raster may name in turn.

    Raises:
        ConfigError: there is none, a product lacks files, or nothing says what its numbers mean.
    """
    path = place_of(path)
    if path.is_dir() and any((path / name).is_file() for name in ("run.json", CLASSES.file)):
        refuse_part(path)
    raster, said = find_raster(path, trust=trust)
    if said is None and legend is None:
        raise ConfigError(
            f"{path} does not say what its numbers mean; {name_legends(count_ids(raster))}; name one, or a "
            "legend file, with --map-legend"
        )
    folder = raster.parent if said is not None and raster.name == CLASSES.file else None
    if said is not None:
        known = said
    else:
        assert legend is not None, "one of the two was given"
        known = read_legend(legend)
    with ClassRaster(raster) as opened:
        grid = opened.grid
    if grid.crs is None:
        raise ConfigError(
            f"{raster} has no CRS, so it has no areas; write it into the file (gdal_edit.py -a_srs EPSG:...)"
        )
    confidence = folder / CONFIDENCE.file if folder is not None else None
    return SourceMap(
        raster,
        known,
        confidence if confidence is not None and confidence.is_file() else None,
        read_record(folder / "run.json") if folder is not None else None,
        grid,
        trust,
        said is not None,
    )


def check_map_legend(given: str | None, *maps: SourceMap) -> None:
    """Refuse a legend for rasters where all maps are products, in another.

    Raises:
        ConfigError: they are, or there is no such legend.
    """
    if given is None or not all(m.says_legend for m in maps):
        return
    for m in maps:
        refuse_other_legend(m.path, "--map-legend", read_legend(given), m.legend)


def on_legend(ranks: NDArray[np.int16], legend: Legend) -> NDArray[np.uint8]:
    """(y, x) ranks as numbers of a product."""
    table = np.array([*legend.ids, legend.product_nodata], np.uint8)
    assert NO_CLASS == -1, "the last entry is nodata's"
    ids: NDArray[np.uint8] = table[ranks]
    return ids
