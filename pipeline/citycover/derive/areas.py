"""How much there is of each class: on the whole map, and in zones by the exact shares of their pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend
from citycover.classes.raster import Progress
from citycover.derive.assessment import Adjusted, read_assessment
from citycover.derive.coverage import covered_shares
from citycover.derive.source import Strip, check_map_legend, open_source
from citycover.derive.zones import Zone, zones_on
from citycover.files.remote import Place
from citycover.scene.trust import Trust

_HECTARE = 10_000.0


@dataclass(frozen=True)
class ClassAreas:
    """What a place holds; all (class,) in legend order."""

    zone: str | None
    """Name; None: the whole map."""
    pixels: NDArray[np.float64]
    """Parts of pixels count as what they are."""
    square_metres: NDArray[np.float64]
    confidence: NDArray[np.float64]
    """Mean by area, 0..1; NaN where there is none."""
    without_class: float
    """Square metres of nodata."""

    @property
    def shares(self) -> NDArray[np.float64]:
        """Of what has a class; NaN where nothing has."""
        total = self.square_metres.sum()
        shares: NDArray[np.float64] = (
            self.square_metres / total if total else np.full(len(self.pixels), np.nan)
        )
        return shares


@dataclass(frozen=True)
class AreaTable:
    """Areas by class, of a map and of its zones."""

    legend: Legend
    whole: ClassAreas
    zones: tuple[ClassAreas, ...] = ()
    adjusted: tuple[Adjusted, ...] = field(default=())
    """(class,) of the whole map, corrected by a sample; empty without one."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each class of the map, then for each that occurs in each zone; None: not known."""
        for place in (self.whole, *self.zones):
            for k, entry in enumerate(self.legend.classes):
                if place is not self.whole and not place.pixels[k]:
                    continue
                row: dict[str, Any] = {"zone": place.zone} if self.zones else {}
                row |= {
                    "class": entry.id,
                    "name": entry.name,
                    "pixels": round(float(place.pixels[k]), 6),
                    "area_m2": float(place.square_metres[k]),
                    "area_ha": float(place.square_metres[k]) / _HECTARE,
                    "percent": _plain(100 * place.shares[k]),
                    "confidence": _plain(place.confidence[k]),
                }
                if self.adjusted:
                    row |= self.adjusted[k].facts(self.total) if place is self.whole else Adjusted.NONE
                yield row

    @property
    def total(self) -> float:
        """Square metres of the map that have a class."""
        return float(self.whole.square_metres.sum())


def zonal_areas(
    product: str | Place,
    zones: str | Path | None = None,
    by: str | None = None,
    *,
    map_legend: str | None = None,
    assessment: str | Path | None = None,
    trust: Trust = Trust(),  # noqa: B008 - a value
    progress: Progress | None = None,
) -> AreaTable:
    """Area of each class, on the whole map and in zones.

    A pixel that a zone's border cuts counts by the share of it that lies inside, exactly. On degrees and on
    Mercator grids areas are those on the ellipsoid. Zones may overlap; each is reckoned by itself.

    Args:
        product: product folder, or class raster; on this machine, or `s3://bucket/prefix`.
        zones: file of polygons in any CRS; None: the whole map alone.
        by: column that names the zones; None: they are numbered.
        map_legend: of a raster that is no product: name or file.
        assessment: report of `citycover evaluate` by a stratified sample: adds adjusted areas.
        trust: which files the map's own may name in turn.
        progress: is told the share that is done.

    Raises:
        ConfigError: no map, zones that cannot be used, or an assessment of another legend.

    Examples:
        >>> import tempfile, numpy as np, rasterio, citycover
        >>> folder = Path(tempfile.mkdtemp())
        >>> north_up = rasterio.transform.from_origin(500_000, 5_800_000, 2, 2)
        >>> with rasterio.open(folder / "map.tif", "w", width=3, height=2, count=1, dtype="uint8",
        ...                    crs="EPSG:32633", transform=north_up) as raster:
        ...     raster.write(np.array([[[1, 1, 2], [1, 2, 2]]], np.uint8))
        >>> table = citycover.zonal_areas(folder / "map.tif", map_legend="base4")
        >>> [(row["name"], row["area_m2"]) for row in table.rows()][:2]
        [('Water', 12.0), ('Tree', 12.0)]
    """
    source = open_source(product, map_legend, trust)
    check_map_legend(map_legend, source)
    places = zones_on(zones, by, source.grid)
    assessed = None if assessment is None else read_assessment(Path(assessment), source.legend)
    areas, classes = source.row_areas, len(source.legend.ids)
    whole, tallies = Tally(classes), [Tally(classes) for _ in places]
    for strip in source.strips(progress):
        rows = areas[strip.window.row : strip.window.row_end]
        whole.add(strip, rows)
        for zone, tally in zip(places, tallies, strict=True):
            add_zone(tally, zone, strip, rows)
    named = zip(places, tallies, strict=True)
    table = AreaTable(
        source.legend,
        whole.areas(None),
        tuple(tally.areas(zone.name) for zone, tally in named),
        () if assessed is None else assessed.adjusted,
    )
    if assessed is not None:
        assessed.warn_if_elsewhere(table.total)
    return table


class Tally:
    """Areas that add up strip by strip."""

    def __init__(self, classes: int) -> None:
        self._sums = np.zeros((4, classes + 1))
        """Pixels, square metres, those with a confidence, and these times it; without a class first."""

    def add(self, strip: Strip, rows: NDArray[np.float64], shares: NDArray[np.float64] | None = None) -> None:
        """Count pixels.

        Args:
            strip: or a part of one.
            rows: (y,) square metres of a pixel in each of its rows.
            shares: (y, x) that count of each pixel; None: all of it.
        """
        place, size = (strip.ranks + 1).ravel(), self._sums.shape[1]
        weights = np.broadcast_to(rows[:, None], strip.ranks.shape)
        if shares is not None:
            weights = weights * shares
        flat = weights.ravel()
        self._sums[0] += np.bincount(place, None if shares is None else shares.ravel(), size)
        self._sums[1] += np.bincount(place, flat, size)
        if strip.confidence is not None:
            sure = strip.confidence.ravel()
            self._sums[2] += np.bincount(place, flat * (sure > 0), size)
            self._sums[3] += np.bincount(place, flat * sure, size)

    def areas(self, zone: str | None) -> ClassAreas:
        """What was counted."""
        pixels, area, known, sure = self._sums[:, 1:]
        confidence = np.divide(sure, 255 * known, out=np.full(len(known), np.nan), where=known > 0)
        return ClassAreas(zone, pixels, area, confidence, float(self._sums[1, 0]))


def add_zone(tally: Tally, zone: Zone, strip: Strip, rows: NDArray[np.float64]) -> None:
    """Count what a zone covers of a strip."""
    window = zone.window.clip(strip.window)
    if window is None:
        return
    part = window.shift(-strip.window.row, -strip.window.col)
    sure = None if strip.confidence is None else strip.confidence[part.slices]
    cut = Strip(window, strip.ranks[part.slices], sure)
    tally.add(cut, rows[part.slices[0]], covered_shares(zone.edges, window))


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
