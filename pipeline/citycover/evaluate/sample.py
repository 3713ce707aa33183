"""Draw a stratified random sample of a class raster's pixels, to be interpreted and to judge the map by.

Two passes over the raster, in strips, so its size does not matter. The first counts the pixels of each class.
Then, for each class, as many places in the order of its pixels are drawn as it is to have points (without
replacement, by a seeded generator), and the second pass notes which pixels stand at those places.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend
from citycover.classes.raster import ClassRaster, Progress, count_ids, listed, name_legends
from citycover.errors import ConfigError
from citycover.files.remote import Place
from citycover.geometry.areas import mean_area
from citycover.geometry.crs import tie

Allocation = Literal["proportional", "equal", "olofsson"]

ALLOCATIONS: tuple[Allocation, ...] = ("proportional", "equal", "olofsson")

_LEAST: dict[Allocation, int] = {"proportional": 2, "equal": 2, "olofsson": 50}
"""Points that each stratum gets before the rest is shared out. Two are needed for a variance at all; 50 is
what Olofsson et al. (2014, section 5.1) advise for rare classes."""

_SQUARE_METRES = 10_000.0  # of a hectare


@dataclass(frozen=True, eq=False)
class PointSample:
    """Pixel centres in random order."""

    legend: Legend
    """Of the map; its classes are the strata."""
    strata: NDArray[np.int64]
    """(point,) class id on the map."""
    x: NDArray[np.float64]
    """(point,) in the map's CRS, as `y`."""
    y: NDArray[np.float64]
    lon: NDArray[np.float64]
    """(point,) degrees on WGS84, as `lat`."""
    lat: NDArray[np.float64]
    pixels: Mapping[int, int]
    """Class id -> pixels on the map: the sizes of the strata."""
    pixel_ha: float
    """Mean hectares of a pixel of the map."""

    @property
    def allocation(self) -> dict[int, int]:
        """Class id -> points."""
        return {id_: int((self.strata == id_).sum()) for id_ in self.pixels}

    def rows(self) -> list[dict[str, Any]]:
        """A row for each point; `class` is empty, for the interpreter."""
        names = dict(zip(self.legend.ids, self.legend.names, strict=True))
        return [
            {
                "id": number,
                "lon": round(lon, 9),  # a tenth of a millimetre
                "lat": round(lat, 9),
                "x": x,
                "y": y,
                "stratum": stratum,
                "stratum_name": names[stratum],
                "stratum_pixels": self.pixels[stratum],
                "stratum_ha": self.pixels[stratum] * self.pixel_ha,
                "class": None,
            }
            for number, (lon, lat, x, y, stratum) in enumerate(
                zip(
                    *(v.tolist() for v in (self.lon, self.lat, self.x, self.y, self.strata)),
                    strict=True,
                ),
                start=1,
            )
        ]


def limits(pixels: Mapping[int, int], how: Allocation) -> tuple[int, int]:
    """Fewest and most points that the strata take."""
    return sum(min(_LEAST[how], count) for count in pixels.values()), sum(pixels.values())


def allocate(pixels: Mapping[int, int], points: int, how: Allocation) -> dict[int, int]:
    """Share points out over strata.

    Every stratum first gets the least that `how` asks for (or all its pixels, if it has fewer); then one
    point after the other goes to the stratum that lies furthest behind its share.

    >>> allocate({1: 9000, 2: 900, 3: 100}, 200, "proportional")
    {1: 180, 2: 18, 3: 2}
    >>> allocate({1: 9000, 2: 900, 3: 100}, 200, "olofsson")
    {1: 100, 2: 50, 3: 50}

    Args:
        pixels: stratum -> its pixels.
        points: in all.
        how: `proportional` to pixels; `equal`; `olofsson`: at least 50 each, the rest proportional.

    Raises:
        ConfigError: fewer points than the strata need, or more than there are pixels.
    """
    given = {stratum: min(_LEAST[how], count) for stratum, count in pixels.items()}
    needed, available = limits(pixels, how)
    if not needed <= points <= available:
        raise ConfigError(
            f"{points} points were asked for; {len(pixels)} strata with the allocation {how!r} take at least "
            f"{needed} and at most {available}; give --points in between, or another --allocation"
        )
    weights = dict.fromkeys(pixels, 1) if how == "equal" else dict(pixels)
    behind = [(given[s] / weights[s], s) for s in pixels if given[s] < pixels[s]]
    heapq.heapify(behind)
    for _ in range(points - needed):
        _, stratum = heapq.heappop(behind)
        given[stratum] += 1
        if given[stratum] < pixels[stratum]:
            heapq.heappush(behind, (given[stratum] / weights[stratum], stratum))
    return given


def count_strata(path: Place, legend: Legend, progress: Progress | None = None) -> dict[int, int]:
    """Pixels of each class that occurs on a map; `progress` is told how far it is.

    Raises:
        ConfigError: not readable, ids that are not in the legend, or no pixel of a class.
    """
    counts = count_ids(path, progress=progress)
    known = {id_: n for id_, n in counts.items() if id_ in legend.ids}
    stray = {id_: n for id_, n in counts.items() if id_ not in {*known, legend.nodata, legend.product_nodata}}
    if stray:
        raise ConfigError(
            f"map {path} holds ids that legend {legend.name!r} does not have: {listed(stray)}; "
            f"{name_legends(counts)}; name the right one with --map-legend"
        )
    if not known:
        raise ConfigError(f"map {path} has no pixel of a class: nothing to draw from; check its nodata")
    return known


def draw_sample(
    path: Place,
    legend: Legend,
    pixels: Mapping[int, int],
    points: int,
    how: Allocation = "proportional",
    seed: int = 0,
    progress: Progress | None = None,
) -> PointSample:
    """Draw pixels of a class raster, stratified by class.

    Args:
        path: the map.
        legend: what its numbers mean.
        pixels: what `count_strata` says of them.
        points: in all.
        how: see `allocate`.
        seed: the same seed draws the same points.
        progress: is told how far it is.

    Raises:
        ConfigError: as `allocate`; or the map has no CRS.
    """
    rng = np.random.default_rng(seed)
    wanted = {
        id_: np.sort(rng.choice(pixels[id_], count, replace=False, shuffle=False))
        for id_, count in allocate(pixels, points, how).items()
    }
    with ClassRaster(path) as raster:
        grid = raster.grid
        if grid.crs is None:
            raise ConfigError(
                f"map {path} has no CRS: its points lie nowhere; give it one (gdal_edit.py -a_srs)"
            )
        strata, rows, cols = _find(raster, wanted, progress)
    order = np.lexsort((cols, rows))  # the raster's, which no height of strips changes; then any
    order = rng.permutation(order)  # an interpreter who stops early has still seen a random part
    strata, rows, cols = strata[order], rows[order], cols[order]
    x, y = grid.transform * (cols + 0.5, rows + 0.5)
    lon, lat = tie(grid.crs.proj, "EPSG:4326", f"map {path}").transform(x, y)
    return PointSample(legend, strata, x, y, lon, lat, dict(pixels), mean_area(grid) / _SQUARE_METRES)


def _find(
    raster: ClassRaster, wanted: Mapping[int, NDArray[np.int64]], progress: Progress | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(point,) class ids, rows and columns of the pixels at the wanted places of each class's order."""
    passed = dict.fromkeys(wanted, 0)
    found: list[NDArray[np.int64]] = []
    for window in raster.strips(progress=progress):
        labels, valid = raster.read(window)
        for id_, places in wanted.items():
            flat = np.flatnonzero((labels == id_) & valid)
            first, last = np.searchsorted(places, [passed[id_], passed[id_] + len(flat)])
            here = flat[places[first:last] - passed[id_]]
            rows, cols = np.divmod(here, window.width)
            found.append(np.stack([np.full(len(here), id_), rows + window.row, cols + window.col]))
            passed[id_] += len(flat)
    strata, rows, cols = np.concatenate(found, axis=1)
    return strata, rows, cols
