"""Vector files: geometries and attributes of GeoJSON, or of what pyogrio reads, in the CRS of the file.

GeoJSON is in longitude and latitude unless it names another CRS, as it could before RFC 7946. Many writers
forget to name it: numbers that cannot be degrees are taken in a CRS that the caller gives.
"""

from __future__ import annotations

import contextlib
import logging
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from citycover.errors import ConfigError
from citycover.geometry.crs import DEGREES, to_degrees
from citycover.geometry.database import MAGIC, refuse_reaching
from citycover.geometry.geojson import parse_geojson

logger = logging.getLogger(__name__)

_MOST_BYTES = 512 << 20
"""Of GeoJSON: in memory it takes some ten times as much."""


@dataclass(frozen=True, eq=False)
class Features:
    """What a vector file holds."""

    geometries: NDArray[np.object_]
    """(feature,) shapely geometries, or None; (x, y) in `crs`."""
    columns: Mapping[str, Sequence[Any]]
    """Attribute -> (feature,) values."""
    crs: CRS | None
    """None: the file does not say."""


def read_features(path: Path, what: str, metres: CRS | None) -> Features:
    """Read all features of a file.

    Args:
        path: GeoJSON, or what pyogrio reads.
        what: is read, for messages: `--aoi`.
        metres: CRS of GeoJSON that names none and whose numbers cannot be degrees; None: do not ask.

    Raises:
        ConfigError: not there, not readable, too much, or several layers.
    """
    if path.is_dir():
        raise ConfigError(
            f"{what} {path} is a folder; needed is a file of features; name it (of a geodatabase: ogr2ogr "
            f"out.gpkg {path.name})"
        )
    if not path.is_file():
        raise ConfigError(f"{what} {path} does not exist; check the path")
    if path.suffix.lower() in {".json", ".geojson"}:
        return _read_geojson(path, what, metres)
    return _read_ogr(path, what)


def crs_named(text: str | int, remedy: str) -> CRS:
    """A CRS by name, code or definition.

    Raises:
        ConfigError: it is none; ends with the remedy.
    """
    try:
        return CRS.from_user_input(text)
    except CRSError:
        raise ConfigError(f"{text!r} is no CRS; {remedy}") from None


def _read_geojson(path: Path, what: str, metres: CRS | None) -> Features:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ConfigError(
            f"{what} {path} is {size >> 20} MiB of GeoJSON, at most {_MOST_BYTES >> 20} are read; simplify "
            "it, or write it as GeoPackage (ogr2ogr out.gpkg in.geojson)"
        )
    found = parse_geojson(path.read_bytes(), f"{what} {path}")
    names = dict.fromkeys(name for row in found.rows for name in row)
    columns = {name: [row.get(name) for row in found.rows] for name in names}
    crs: CRS | None
    if found.crs is not None:
        crs = crs_named(found.crs, f"{what} {path} names it; write one such as EPSG:32633 into it")
    else:
        crs = _unnamed(found.geometries, f"{what} {path}", metres) if metres else None
    return Features(found.geometries, columns, crs)


def _unnamed(geometries: NDArray[np.object_], what: str, metres: CRS) -> CRS:
    """The CRS of GeoJSON that names none."""
    if to_degrees(metres) is None:
        logger.warning("%s names no CRS: it is taken to lie on the local grid of the scene", what)
        return metres
    if not len(geometries):
        return DEGREES
    west, south, east, north = shapely.total_bounds(geometries)
    if max(abs(west), abs(east)) > 360 or max(abs(south), abs(north)) > 90:
        logger.warning(
            "%s names no CRS and its numbers are no degrees: they are taken in that of the scene, %s",
            what,
            metres.name,
        )
        return metres
    return DEGREES


_NAMERS = re.compile(
    rb"<\s*(?:[\w.-]+:)?(?:OGR\w*DataSource|OGR\w*Layer|GDALTileIndexDataset|VRTDataset|WFS_Capabilities)\b",
    re.IGNORECASE,
)
"""Roots of XML files that only say where features are: OGR's virtual format, and services."""

_HEAD = 1 << 16

_ALONE = {
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GML_DOWNLOAD_SCHEMA": "NO",
    "OGR_SQLITE_STATIC_VIRTUAL_OGR": "NO",
}
"""GDAL fetches nothing that a file names, and opens nothing that a table names."""


def _refuse_namers(path: Path, what: str) -> None:
    """Refuse a file that names others: what a user names may come from a stranger."""
    own, *packed = _heads(path, what)
    if own.startswith(MAGIC):
        refuse_reaching(path, what)
    if any(head.startswith(MAGIC) for head in packed):
        raise ConfigError(f"{what} {path} is a packed database; unpack it first")
    if any(_NAMERS.search(head) for head in (own, *packed)):
        raise ConfigError(
            f"{what} {path} only names other files or services; nothing was read of them; "
            "give the file that holds the features (ogr2ogr out.gpkg in.vrt)"
        )


def _heads(path: Path, what: str) -> Iterator[bytes]:
    """The first bytes of a file, or of each file in an archive that pyogrio looks into."""
    if path.suffix.lower() in {".tar", ".tgz", ".gz"}:
        raise ConfigError(f"{what} {path} is a packed file; unpack it first")
    with path.open("rb") as file:
        yield file.read(_HEAD)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    yield file.read(_HEAD)


@contextlib.contextmanager
def _alone(pyogrio: Any) -> Iterator[None]:
    before = {name: pyogrio.get_gdal_config_option(name) for name in _ALONE}
    pyogrio.set_gdal_config_options(_ALONE)
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options(before)


def _one_layer(pyogrio: Any, path: Path, what: str) -> str:
    """The layer that holds the features; tables without geometry and empty layers do not count.

    Raises:
        ConfigError: several do, and which one is meant nobody said.
    """
    layers = pyogrio.list_layers(path).tolist()
    if len(layers) == 1:
        return str(layers[0][0])
    drawn = [name for name, kind in layers if kind is not None]
    full = [n for n in drawn if pyogrio.read_info(path, layer=n, force_feature_count=True)["features"]]
    if len(full) > 1:
        raise ConfigError(
            f"{what} {path} has {len(full)} layers of features, {', '.join(full[:5])}; needed is one; take "
            f"it out: ogr2ogr one.gpkg {path.name} {full[0]!r}"
        )
    return str([*full, *drawn, *(name for name, _ in layers)][0])


def _read_ogr(path: Path, what: str) -> Features:
    try:
        import pyogrio
    except ImportError:
        raise ConfigError(
            f"{what} {path} needs the vector extra: pip install 'citycover[vector]'; or give GeoJSON"
        ) from None
    _refuse_namers(path, what)
    try:
        with _alone(pyogrio):
            meta, _, wkb, values = pyogrio.raw.read(path, layer=_one_layer(pyogrio, path, what))
        geometries = np.array([] if wkb is None else shapely.from_wkb(wkb), object)
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        shapely.errors.ShapelyError,
    ) as error:
        raise ConfigError(f"{what} {path} cannot be read: {error}; check that the file is whole") from None
    columns = {name: v.tolist() for name, v in zip(meta["fields"].tolist(), values, strict=True)}
    remedy = f"{what} {path} says so; write it again with a CRS such as EPSG:32633"
    return Features(geometries, columns, crs_named(meta["crs"], remedy) if meta["crs"] else None)
