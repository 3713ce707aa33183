"""Two maps of one place against each other."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend, read_legend
from citycover.classes.raster import ClassRaster, Progress, refuse_apart
from citycover.classes.table import NO_CLASS, ClassTable, common_legend, table_between
from citycover.derive.areas import Tally, add_zone
from citycover.derive.canvas import CodedSource, canvas, write_whole
from citycover.derive.change import Change, ChangeMatrix, Transitions
from citycover.derive.source import SourceMap, Strip, check_map_legend, open_source
from citycover.derive.zones import zones_on
from citycover.errors import ConfigError
from citycover.files.failures import machine_errors
from citycover.files.remote import Place
from citycover.geometry.grid import grid_text, same_grid
from citycover.product.folder import check_output
from citycover.product.tiff import BandInfo
from citycover.scene.trust import Trust

logger = logging.getLogger(__name__)


def compare(
    before: str | Place,
    after: str | Place,
    out: str | Path | None = None,
    *,
    zones: str | Path | None = None,
    by: str | None = None,
    min_confidence: float = 0.0,
    to: str | None = None,
    map_legend: str | None = None,
    trust: Trust = Trust(),  # noqa: B008 - a value
    progress: Progress | None = None,
) -> Change:
    """Say how much of each class became each other one.

    The maps are compared on the grid of the later one: for each of its pixels, what the earlier map says at
    its centre. Where their legends differ, they are compared in the one that has a table from the other.

    Args:
        before: product folder, or class raster; on this machine, or `s3://bucket/prefix`.
        after: likewise.
        out: COG of the transitions to write, .tif; None: none.
        zones: file of polygons to reckon in, too; pixels on borders count by their shares.
        by: column that names the zones.
        min_confidence: 0 to 1; pixels of which one of the maps is less sure are left out.
        to: legend to compare in: name or file.
        map_legend: of rasters that are no products.
        trust: which files the map's own may name in turn.
        progress: is told the share that is done.

    Raises:
        ConfigError: no maps, of two places, in legends that nothing joins, or zones that cannot be used.
        MachineError: the COG cannot be written.

    Examples:
        >>> import tempfile, numpy as np, rasterio, citycover
        >>> folder = Path(tempfile.mkdtemp())
        >>> north_up = rasterio.transform.from_origin(500_000, 5_800_000, 2, 2)
        >>> for year, rows in ((2020, [[1, 1, 2], [1, 2, 2]]), (2024, [[1, 4, 4], [1, 2, 2]])):
        ...     with rasterio.open(folder / f"{year}.tif", "w", width=3, height=2, count=1, dtype="uint8",
        ...                        crs="EPSG:32633", transform=north_up) as raster:
        ...         raster.write(np.array([rows], np.uint8))
        >>> change = citycover.compare(folder / "2020.tif", folder / "2024.tif", map_legend="base4")
        >>> change.whole.changed
        8.0
        >>> [(row["from_name"], row["to_name"], row["area_m2"]) for row in change.rows()][1]
        ('Water', 'Built-up', 4.0)
    """
    if out is not None and Path(out).suffix.lower() not in {".tif", ".tiff"}:
        raise ConfigError(f"a raster of change is written as .tif; got {out}")
    if out is not None:
        check_output(Path(out), before, after, zones)
    maps = open_source(before, map_legend, trust), open_source(after, map_legend, trust)
    check_map_legend(map_legend, *maps)
    least = _steps(min_confidence, maps)
    legend = read_legend(to) if to else common_legend(maps[0].legend, maps[1].legend)
    pairs = _Pairs(maps, legend, least)
    places = zones_on(zones, by, maps[1].grid)
    classes, areas = len(legend.ids), maps[1].row_areas
    whole, tallies = Tally(classes**2), [Tally(classes**2) for _ in places]
    with ExitStack() as stack:
        codes = None
        if out is not None:
            stack.enter_context(machine_errors(Path(out)))
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            codes = stack.enter_context(canvas(Path(out).parent, maps[1].grid, np.int16))
        for strip in pairs.strips(progress):
            rows = areas[strip.window.row : strip.window.row_end]
            whole.add(strip, rows)
            for zone, tally in zip(places, tallies, strict=True):
                add_zone(tally, zone, strip, rows)
            if codes is not None:
                codes[strip.window.slices] = strip.ranks + 1
        matrix = _matrix(whole, None, classes)
        if not matrix.compared:
            raise ConfigError(
                f"{maps[0].path} and {maps[1].path} have a class in common places nowhere; check that both "
                "show one place, their nodata, and --min-confidence"
            )
        if out is not None and codes is not None:
            _write(Path(out), codes, matrix, legend, maps)
    found = tuple(_matrix(tally, zone.name, classes) for zone, tally in zip(places, tallies, strict=True))
    return Change(legend, matrix, found, pairs.warped)


class _Pairs:
    """Two maps as one, whose classes are pairs of classes."""

    def __init__(self, maps: tuple[SourceMap, SourceMap], legend: Legend, least: int) -> None:
        self._before, self._after = maps
        if len(legend.ids) ** 2 > np.iinfo(np.int16).max:
            raise ConfigError(
                f"legend {legend.name!r} has {len(legend.ids)} classes, too many to compare in; give another "
                "one with --to"
            )
        self._tables = [ClassTable.onto(legend, table_between(m.legend, legend)) for m in maps]
        self._classes, self._least = len(legend.ids), least
        with ClassRaster(self._before.path) as one, ClassRaster(self._after.path) as other:
            refuse_apart(one, other)
        self.warped = not same_grid(self._before.grid, self._after.grid)
        if self.warped:
            logger.warning(
                "the maps lie on different grids (%s, and %s): the earlier is seen on that of the later",
                grid_text(self._before.grid), grid_text(self._after.grid),
            )  # fmt: skip

    def strips(self, progress: Progress | None) -> Iterator[Strip]:
        """Strips of the later map's grid; ranks are before * classes + after."""
        onto = self._after.grid if self.warped else None
        with (
            self._before.opened(onto, self._tables[0], confidence=self._least > 0) as before,
            self._after.opened(None, self._tables[1], confidence=self._least > 0) as after,
        ):
            for window in after.classes.strips(progress=progress):
                a, b = before.read(window), after.read(window)
                pair = a.ranks * np.int16(self._classes) + b.ranks
                pair[(a.ranks < 0) | (b.ranks < 0) | self._unsure(a) | self._unsure(b)] = NO_CLASS
                yield Strip(window, pair, None)

    def _unsure(self, strip: Strip) -> NDArray[np.bool_] | bool:
        return False if strip.confidence is None else strip.confidence < self._least


def _steps(min_confidence: float, maps: tuple[SourceMap, SourceMap]) -> int:
    """The least confidence in steps of 1/255."""
    if not 0 <= min_confidence <= 1:
        raise ConfigError(f"--min-confidence takes a share from 0 to 1, got {min_confidence}")
    if min_confidence and (without := [str(m.path) for m in maps if m.confidence is None]):
        raise ConfigError(
            f"--min-confidence needs the confidence of both maps, and {', '.join(without)} has none; give "
            "product folders, or leave it out"
        )
    return math.ceil(min_confidence * 255 - 1e-9)


def _matrix(tally: Tally, zone: str | None, classes: int) -> ChangeMatrix:
    found, side = tally.areas(zone), (classes, classes)
    return ChangeMatrix(
        zone, found.pixels.reshape(side), found.square_metres.reshape(side), found.without_class
    )


def _write(
    path: Path,
    codes: NDArray[np.int16],
    matrix: ChangeMatrix,
    legend: Legend,
    maps: tuple[SourceMap, SourceMap],
) -> None:
    transitions = Transitions.of(matrix, legend)
    tags = {"before": str(maps[0].path), "after": str(maps[1].path), "legend": legend.name}
    band = BandInfo(0, "change", legend=transitions.legend, tags=tags)
    write_whole(path, CodedSource(codes, transitions.table), maps[1].grid, band)
