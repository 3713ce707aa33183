"""Zones: named polygons that a map is reckoned in."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.raster import listed
from citycover.derive.coverage import Edges
from citycover.errors import ConfigError
from citycover.geometry.grid import crs_of
from citycover.geometry.polygons import onto_grid
from citycover.geometry.vector import Features, read_features
from citycover.geometry.window import Window

logger = logging.getLogger(__name__)

_POLYGONS = {3, 6}

_SLIVER = 1e-6
"""Share of a zone that may lie outside of the map by rounding."""


@dataclass(frozen=True)
class Zone:
    """A place with a name."""

    name: str
    edges: Edges
    """In pixel coordinates of the map."""
    window: Window
    """The part of the map that it touches."""


def zones_on(zones: str | Path | None, by: str | None, grid: GeoBox) -> tuple[Zone, ...]:
    """Zones on a map's grid as `read_zones` gives them; none where no file is given.

    Raises:
        ConfigError: as `read_zones`, or there are names for zones and no zones.
    """
    if zones is not None:
        return read_zones(Path(zones), by, grid)
    if by is not None:
        raise ConfigError("--by names the zones of --zones; give a file of polygons with it")
    return ()


def read_zones(path: Path, by: str | None, grid: GeoBox) -> tuple[Zone, ...]:
    """Zones on a map's grid; those that lie beside it are left out, with a warning.

    Args:
        path: GeoJSON, or what pyogrio reads.
        by: column that names them; None: they are numbered from 1.
        grid: of the map.

    Raises:
        ConfigError: not readable, no polygons, without a CRS, invalid, a name is missing or occurs twice, or
            none lies on the map.
    """
    features = read_features(path, "--zones", crs_of(grid))
    if features.crs is None:
        raise ConfigError(
            f"--zones {path} does not say its CRS; write it into the file "
            f"(ogr2ogr -a_srs EPSG:... out.gpkg {path})"
        )
    names = _names(path, features, by)
    areas = _areas(path, features, names)
    moved = onto_grid(areas, features.crs, grid, f"--zones {path}")
    t = ~grid.transform
    matrix, origin = np.array([[t.a, t.d], [t.b, t.e]]), np.array([t.c, t.f])
    pixels = shapely.transform(moved, lambda xy: xy @ matrix + origin)
    height, width = (int(n) for n in grid.shape)
    zones = [_zone(name, area, Window(0, 0, height, width)) for name, area in zip(names, pixels, strict=True)]
    found = tuple(zone for zone in zones if zone is not None)
    if not found:
        raise ConfigError(
            f"--zones {path} and the map do not overlap; check the CRS of both, or name zones of the place"
        )
    _warn_of_outside(path, names, found, pixels, shapely.box(0, 0, width, height))
    return found


def check_zones(path: Path, by: str | None) -> None:
    """Refuse a file whose zones are those of no map.

    Raises:
        ConfigError: not readable, no polygons, invalid, or a name is missing or occurs twice.
    """
    features = read_features(path, "--zones", None)
    _areas(path, features, _names(path, features, by))


def _names(path: Path, features: Features, by: str | None) -> list[str]:
    """One for each feature."""
    if by is None:
        return [str(n) for n in range(1, len(features.geometries) + 1)]
    if by not in features.columns:
        raise ConfigError(
            f"--zones {path} has no column {by!r}; it has: {', '.join(features.columns) or 'none'}; name one "
            "of them with --by"
        )
    names = ["" if value is None else str(value).strip() for value in features.columns[by]]
    if empty := sum(name in {"", "nan"} for name in names):
        raise ConfigError(
            f"--zones {path} has {empty} zones without a {by!r}; fill it in, or choose another --by"
        )
    twice = {name: n for name in dict.fromkeys(names) if (n := names.count(name)) > 1}
    if twice:
        raise ConfigError(
            f"--zones {path} has the same {by!r} more than once: {listed(twice, 'times')}; dissolve them "
            "into one zone each, or choose another --by"
        )
    return names


def _areas(path: Path, features: Features, names: list[str]) -> NDArray[np.object_]:
    """(n,) valid polygons; heights are dropped."""
    geometries = features.geometries
    if not len(geometries):
        raise ConfigError(f"--zones {path} holds no feature; give a file of polygons")
    kinds = [int(shapely.get_type_id(g)) for g in geometries]
    if other := [name for name, kind in zip(names, kinds, strict=True) if kind not in _POLYGONS]:
        raise ConfigError(f"--zones {path} holds what is no polygon: {_few(other)}; give polygons alone")
    flat: NDArray[np.object_] = shapely.force_2d(geometries)
    bad = ~shapely.is_valid(flat)
    if bad.any():
        why = shapely.is_valid_reason(flat[bad])[0]
        raise ConfigError(
            f"--zones {path} holds polygons that are not valid ({why}), so that their area is not known: "
            f"{_few([n for n, b in zip(names, bad, strict=True) if b])}; repair them (ogr2ogr -makevalid, or "
            "Fix geometries in QGIS)"
        )
    return flat


def _few(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _zone(name: str, area: Any, whole: Window) -> Zone | None:
    if shapely.is_empty(area) or not shapely.area(area):
        return None
    edges = Edges.of(area)
    window = edges.window.clip(whole)
    return None if window is None else Zone(name, edges, window)


def _warn_of_outside(
    path: Path, names: list[str], found: tuple[Zone, ...], areas: NDArray[np.object_], whole: Any
) -> None:
    """Areas of a zone are those on the map: say where that is not all of it."""
    if beside := [name for name in names if name not in {zone.name for zone in found}]:
        logger.warning("--zones %s: these lie beside the map and are left out: %s", path, _few(beside))
    outside = shapely.area(areas) - shapely.area(shapely.intersection(areas, whole))
    partly = [n for n, o, a in zip(names, outside, shapely.area(areas), strict=True) if a > o > _SLIVER * a]
    if partly:
        logger.warning(
            "--zones %s: these lie partly outside of the map, their areas are those of the part on it: %s",
            path,
            _few(partly),
        )
