"""A map as polygons: one for each patch, with class, area and confidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely

from citycover.classes.raster import Progress
from citycover.derive.features import FeatureBatch, FeatureFile, check_ending
from citycover.derive.polygons import Patches, polygonise
from citycover.derive.sieve import sieved_strips
from citycover.derive.source import SourceMap, Strip, check_map_legend, open_source
from citycover.errors import ConfigError
from citycover.files.failures import machine_errors
from citycover.files.remote import Place
from citycover.geometry.areas import mean_area
from citycover.product.folder import check_output
from citycover.scene.trust import Trust

_BATCH = 20_000
"""Features that are written together."""


@dataclass(frozen=True, slots=True)
class Vectorized:
    """What was written."""

    path: Path
    polygons: int
    square_metres: float
    """Area of all of them."""


def vectorize(
    product: str | Place,
    out: str | Path,
    *,
    min_area: float = 0.0,
    simplify: float = 0.0,
    map_legend: str | None = None,
    trust: Trust = Trust(),  # noqa: B008 - a value
    progress: Progress | None = None,
) -> Vectorized:
    """Write a map as polygons, one for each patch of pixels that hang together by their sides.

    Memory does not depend on the size of the map: a strip of it, and the patches that reach beyond the strip.
    With `min_area` it grows with the number of patches, with `simplify` by all polygons.

    Args:
        product: product folder, or class raster; on this machine, or `s3://bucket/prefix`.
        out: file to write: .parquet (GeoParquet 1.1), .gpkg, .fgb or .geojsonl; one that exists is replaced.
        min_area: square metres of the smallest patch; smaller ones go to their longest neighbour.
        simplify: metres by which lines may be smoothed; neighbours keep the same line, so that no gap opens.
        map_legend: of a raster that is no product: name or file.
        trust: which files the map's own may name in turn.
        progress: is told the share that is done.

    Raises:
        ConfigError: no map, no such format, a `simplify` beyond the map, or the vector extra is missing.
        MachineError: the file cannot be written.

    Examples:
        >>> import tempfile, numpy as np, rasterio, citycover
        >>> folder = Path(tempfile.mkdtemp())
        >>> north_up = rasterio.transform.from_origin(500_000, 5_800_000, 2, 2)
        >>> with rasterio.open(folder / "map.tif", "w", width=3, height=2, count=1, dtype="uint8",
        ...                    crs="EPSG:32633", transform=north_up) as raster:
        ...     raster.write(np.array([[[1, 1, 2], [1, 2, 2]]], np.uint8))
        >>> found = citycover.vectorize(folder / "map.tif", folder / "areas.gpkg", map_legend="base4")
        >>> found.polygons, found.square_metres
        (2, 24.0)
    """
    out = Path(out)
    check_ending(out)
    check_output(out, product)
    for name, value in (("--min-area", min_area), ("--simplify", simplify)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} takes a number that is not negative, got {value}")
    source = open_source(product, map_legend, trust)
    check_map_legend(map_legend, source)
    side = math.sqrt(mean_area(source.grid))
    if simplify > (length := side * max(source.grid.shape)):
        raise ConfigError(
            f"--simplify {simplify:g} m is more than the map is long ({length:.6g} m): no line would stay; "
            "give a few pixels' length"
        )
    batches: Iterable[Patches] = polygonise(_strips(source, min_area, progress), source.row_units)
    if simplify:
        batches = _simplified(batches, simplify / side)
    polygons, units = 0, 0
    with machine_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with FeatureFile(out, source.grid, source.confidence is not None) as file:
            for batch in _gathered(batches):
                file.write(_features(batch, source, polygons))
                polygons, units = polygons + len(batch), units + int(batch.sums[:, 0].sum())
    return Vectorized(out, polygons, units * source.unit)


def _strips(source: SourceMap, min_area: float, progress: Progress | None) -> Iterable[Strip]:
    if not min_area:
        return source.strips(progress)
    least = math.ceil(min_area / source.unit - 1e-6)
    passes = iter((0.0, 0.5))

    def strips(confidence: bool) -> Iterator[Strip]:
        done = next(passes)
        report = None if progress is None else lambda share: progress(done + share / 2)
        return source.strips(report, confidence=confidence)

    return sieved_strips(strips, source.row_units, source.sides, least)


def _simplified(batches: Iterable[Patches], tolerance: float) -> Iterator[Patches]:
    """All patches with smoother lines, each line once for the patches on both of its sides.

    GEOS finds a common line by its common corners, so every line first gets one at each pixel; where three
    patches meet the corner stays.
    """
    found = list(batches)
    if not found:
        return
    patches = Patches.concatenate(found)
    fine = shapely.transform(shapely.segmentize(patches.outlines, 1.0), np.round)
    yield replace(patches, outlines=shapely.coverage_simplify(fine, tolerance))


def _gathered(batches: Iterable[Patches]) -> Iterator[Patches]:
    """Batches of about `_BATCH` features."""
    held: list[Patches] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= _BATCH:
            yield Patches.concatenate(held)
            held = []
    if held:
        yield Patches.concatenate(held)


def _features(patches: Patches, source: SourceMap, first: int) -> FeatureBatch:
    """Patches in the map's CRS, with their columns."""
    t = source.grid.transform
    matrix, origin = np.array([[t.a, t.d], [t.b, t.e]]), np.array([t.c, t.f])
    names = np.array(source.legend.names, object)
    return FeatureBatch(
        geometries=shapely.transform(patches.outlines, lambda xy: xy @ matrix + origin),
        ids=np.arange(first + 1, first + 1 + len(patches)),
        classes=np.array(source.legend.ids)[patches.ranks],
        names=names[patches.ranks],
        areas=(patches.sums[:, 0] * source.unit).astype(np.float64),
        confidence=patches.confidence,
    )
