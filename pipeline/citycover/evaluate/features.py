"""Points and polygons as truth: read from CSV, GeoJSON or any OGR file, and compared with a class raster.

A point is compared with the pixel it lies in; a polygon with all pixels whose centre it holds. Of polygons
that overlap, the last in the file counts.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from citycover.classes.legend import Legend
from citycover.classes.raster import ClassRaster, Progress, listed, name_legends
from citycover.classes.table import NO_CLASS, UNKNOWN, ClassTable
from citycover.errors import ConfigError
from citycover.evaluate.confusion import Confusion, count_pairs
from citycover.evaluate.rasters import check_compared
from citycover.evaluate.reliability import Certainty
from citycover.geometry.crs import DEGREES
from citycover.geometry.grid import crs_of
from citycover.geometry.polygons import onto_grid, repaired
from citycover.geometry.vector import Features, crs_named, read_features
from citycover.geometry.window import Window

VECTOR_ENDINGS = frozenset({".csv", ".fgb", ".geojson", ".gml", ".gpkg", ".json", ".kml", ".parquet", ".shp"})
"""Endings of files that are read as points or polygons; every other is taken for a raster."""

_POINT, _POLYGON = 0, 3

_AXES = (("lon", "lat"), ("longitude", "latitude"), ("x", "y"))


@dataclass(frozen=True, eq=False)
class Truth:
    """Points, or polygons, with their attributes."""

    path: Path
    geometries: NDArray[np.object_]
    """(feature,) shapely points, or shapely polygons; in the CRS they were asked for in."""
    columns: Mapping[str, Sequence[Any]]
    """Attribute -> (feature,) values."""
    are_points: bool

    def column(self, field: str) -> Sequence[Any]:
        """Values of an attribute.

        Raises:
            ConfigError: there is none of that name.
        """
        if field not in self.columns:
            raise ConfigError(
                f"truth {self.path} has no field {field!r}; it has {', '.join(self.columns) or 'none'}; "
                "name the one that holds the class with --field"
            )
        return self.columns[field]

    def ranks(self, field: str, legend: Legend, table: ClassTable) -> NDArray[np.int16]:
        """(feature,) rank of each one's class, or NO_CLASS where the field is empty.

        Args:
            field: holds ids or names of a legend.
            legend: the one.
            table: from its ids to ranks.

        Raises:
            ConfigError: no such field, or values that are not in the legend.
        """
        ids = {name.casefold(): id_ for name, id_ in zip(legend.names, legend.ids, strict=True)}
        values = [_as_id(value, ids) for value in self.column(field)]
        stray = Counter(v for v in values if isinstance(v, str))
        whole = np.array([v for v in values if isinstance(v, int)], np.int64)
        ranks = np.full(len(values), NO_CLASS, np.int16)
        ranks[[isinstance(v, int) for v in values]] = known = table.ranks_of(whole)
        stray.update(str(v) for v in whole[known == UNKNOWN].tolist())
        if stray:
            fits = f"; {name_legends(whole.tolist())}" if len(whole) else ""
            raise ConfigError(
                f"truth {self.path}, field {field!r}, holds what legend {legend.name!r} does not have: "
                f"{listed(stray, 'times')}; it has {', '.join(legend.names[:20])}{fits}; "
                "say with --legend which one it is written in"
            )
        return ranks


def read_truth(path: Path, grid: GeoBox, given: str | None = None) -> Truth:
    """Read points or polygons into the CRS of a map.

    Args:
        path: CSV with columns lon and lat (degrees), or x and y (in `given`, else in the CRS of the map); or
            what `read_features` reads.
        grid: of the map. Polygons lose what is far from it.
        given: CRS of the file, instead of what it says itself.

    Raises:
        ConfigError: not readable, without a CRS, neither points nor polygons, or both.
    """
    what = f"truth {path}"
    read = _read_csv(path, crs_of(grid)) if path.suffix.lower() == ".csv" else None
    features = read or read_features(path, "truth", None if given else crs_of(grid))
    source = crs_named(given, "give one such as EPSG:26986 with --truth-crs") if given else features.crs
    if source is None:
        raise ConfigError(f"{what} has no CRS; say which with --truth-crs")
    present = ~(shapely.is_missing(features.geometries) | shapely.is_empty(features.geometries))
    parts, owner = shapely.get_parts(features.geometries[present], return_index=True)
    kinds = set(shapely.get_type_id(parts).tolist())
    if kinds not in ({_POINT}, {_POLYGON}):
        raise ConfigError(f"{what} must hold points only or polygons only, and at least one; split it")
    moved = onto_grid(repaired(shapely.force_2d(parts), what), source, grid, what)
    if kinds == {_POLYGON} and shapely.is_empty(moved).all():
        raise ConfigError(
            f"{what} has no polygon with an area near the map; say its own CRS with --truth-crs"
        )
    rows = np.flatnonzero(present)[owner]
    columns = {name: [values[row] for row in rows] for name, values in features.columns.items()}
    return Truth(path, moved, columns, kinds == {_POINT})


def map_at_points(raster: ClassRaster, points: Truth, table: ClassTable) -> NDArray[np.int16]:
    """(point,) rank of the map's class where each point lies; NO_CLASS off the map or on its nodata.

    Raises:
        ConfigError: a point lies on an id that the table does not know.
    """
    ranks = np.full(len(points.geometries), NO_CLASS, np.int16)
    for place, window in pixels_of(points, raster.grid):
        ranks[place] = raster.read_ranks(window, table)[0, 0]
    return ranks


def pixels_of(points: Truth, grid: GeoBox) -> Iterator[tuple[int, Window]]:
    """Number and pixel of each point that lies on a grid, row by row: blocks are decoded once."""
    xy = shapely.get_coordinates(points.geometries)
    with np.errstate(invalid="ignore"):  # what cannot be projected lies at infinity
        cols, rows = (np.floor(v) for v in ~grid.transform * (xy[:, 0], xy[:, 1]))
    height, width = grid.shape
    on_map = np.flatnonzero((rows >= 0) & (rows < height) & (cols >= 0) & (cols < width))
    for place in on_map[np.lexsort((cols[on_map], rows[on_map]))].tolist():
        yield place, Window(int(rows[place]), int(cols[place]), 1, 1)


def compare_polygons(
    raster: ClassRaster,
    polygons: Truth,
    truth: NDArray[np.int16],
    table: ClassTable,
    classes: int,
    elsewhere: int = NO_CLASS,
    progress: Progress | None = None,
    certainty: Certainty | None = None,
) -> Confusion:
    """Compare a class raster with polygons, in strips of the raster.

    Args:
        raster: the map.
        polygons: in the CRS of the map.
        truth: (polygon,) rank of each one's class, or NO_CLASS.
        table: the map's ids to ranks.
        classes: how many there are.
        elsewhere: rank of what lies outside all polygons; NO_CLASS: unknown.
        progress: is told how far it is.
        certainty: of the map, opened on its grid; counted too.

    Raises:
        ConfigError: the map holds ids that the table does not know, or nothing could be compared.
    """
    tree = shapely.STRtree(polygons.geometries)
    total = Confusion.empty(classes)
    part = raster.whole if elsewhere != NO_CLASS else _reached(raster, polygons)
    for window in raster.strips(part, progress) if part else ():
        transform = raster.grid.transform * Affine.translation(window.col, window.row)
        here = np.sort(tree.query(shapely.box(*_bounds(transform, window))))
        if not len(here) and elsewhere == NO_CLASS:
            continue
        painted = np.full((window.height, window.width), elsewhere, np.int16)
        if len(here):
            shapes = [(polygons.geometries[k], int(truth[k])) for k in here]
            rasterio.features.rasterize(shapes, out=painted, transform=transform)
        mapped = raster.read_ranks(window, table)
        total += count_pairs(painted, mapped, classes)
        if certainty is not None:
            certainty.add(window, painted, mapped)
    return check_compared(total, raster.path, polygons.path)


def _reached(raster: ClassRaster, polygons: Truth) -> Window | None:
    """The part of a raster that polygons may lie in."""
    west, south, east, north = shapely.total_bounds(polygons.geometries)
    corners_x, corners_y = np.array([west, east, west, east]), np.array([south, south, north, north])
    cols, rows = ~raster.grid.transform * (corners_x, corners_y)
    height, width = raster.grid.shape
    row, row_end = (int(v) for v in np.clip([np.floor(rows.min()), np.ceil(rows.max())], 0, height))
    col, col_end = (int(v) for v in np.clip([np.floor(cols.min()), np.ceil(cols.max())], 0, width))
    if row_end <= row or col_end <= col:
        return None
    return Window(row, col, row_end - row, col_end - col)


def _bounds(transform: Affine, window: Window) -> tuple[float, float, float, float]:
    xs, ys = transform * (
        np.array([0.0, window.width, 0.0, window.width]),
        np.array([0.0, 0.0, window.height, window.height]),
    )
    return xs.min(), ys.min(), xs.max(), ys.max()


def _read_csv(path: Path, crs: CRS) -> Features:
    if not path.is_file():
        raise ConfigError(f"truth {path} does not exist; check the path")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            rows = list(csv.DictReader(file, delimiter=";" if ";" in header else ","))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"truth {path} is not CSV in UTF-8: {error}; save it as that") from None
    if ";" in header:  # as spreadsheets write it where numbers have a decimal comma
        rows = [{name: _with_point(value) for name, value in row.items()} for row in rows]
    names = {name.strip().casefold(): name for name in rows[0] if name} if rows else {}
    for x, y in _AXES:
        if x in names and y in names:
            break
    else:
        raise ConfigError(f"truth {path} has no columns lon and lat, or x and y, with rows below them")
    points = []
    for number, row in enumerate(rows, start=2):
        try:
            place = float(row[names[x]]), float(row[names[y]])
        except (TypeError, ValueError):
            place = math.nan, math.nan
        if not all(map(math.isfinite, place)):
            raise ConfigError(
                f"truth {path}, line {number}: {x} {row[names[x]]!r} and {y} {row[names[y]]!r} are not both "
                "numbers; write both with a decimal point, or take the line out"
            )
        points.append(shapely.Point(place))
    columns = {name.strip(): [row[name] for row in rows] for name in names.values()}
    return Features(np.array(points, object), columns, crs if x == "x" else DEGREES)


def _with_point(value: Any) -> Any:
    """A value of a CSV; a number with a decimal comma gets a point."""
    return re.sub(r"^\s*([-+]?\d+),(\d+)\s*$", r"\1.\2", value) if isinstance(value, str) else value


def _as_id(value: Any, names: Mapping[str, int]) -> int | str | None:
    """An id; text that is neither a number nor a name; None where there is nothing."""
    if value is None or value != value:  # noqa: PLR0124  (NaN: how OGR gives an empty number)
        return None
    text = str(value).strip()
    if text.casefold() in names:
        return names[text.casefold()]
    try:
        number = float(text)
    except ValueError:
        return text or None
    return int(number) if number.is_integer() and abs(number) < 2**53 else text
