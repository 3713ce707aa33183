"""GeoJSON as geometries, attributes and the name of a CRS; what is none says which feature, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape

from citycover.errors import ConfigError

_DEPTHS = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}
"""Lists in lists around a position, by type."""

_ANEW = "write it again as GeoJSON, from the program that drew it"

_FAULTS = (LookupError, ValueError, TypeError, AttributeError, shapely.errors.ShapelyError)
"""What shapely says of coordinates that are none."""


class _FaultError(ValueError):
    """What is wrong, and where."""


@dataclass(frozen=True, eq=False)
class GeoJson:
    """What a document holds."""

    geometries: NDArray[np.object_]
    """(feature,) shapely geometries, or None."""
    rows: tuple[Mapping[str, Any], ...]
    """(feature,) attributes."""
    crs: str | int | None
    """As it is named, as it could be before RFC 7946; None: it is not."""


def parse_geojson(content: bytes, what: str) -> GeoJson:
    """A feature collection, a feature or a geometry.

    Args:
        content: of the document.
        what: it is, for messages: `--aoi a.geojson`.

    Raises:
        ConfigError: it is no GeoJSON; says what of it.
    """
    try:
        data = json.loads(content.decode("utf-8-sig"))
        parts = _parts(data)
        geometries = np.empty(len(parts), object)
        geometries[:] = list(_geometries(parts))
        return GeoJson(geometries, tuple(_attributes(part) for part in parts), _named_crs(data))
    except RecursionError:
        raise ConfigError(f"{what} is not GeoJSON: its brackets are nested too deeply") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what} is not GeoJSON: its text is not UTF-8; {_ANEW}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{what} is not GeoJSON: {error}; {_ANEW}") from None
    except _FaultError as error:
        raise ConfigError(f"{what} is not GeoJSON: {error}; {_ANEW}") from None


def _parts(data: Any) -> list[dict[str, Any]]:
    """Its features; a geometry alone counts as one."""
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise _FaultError(f"it begins with {_short(data)}, which has no type such as FeatureCollection")
    parts = data.get("features") if data["type"] == "FeatureCollection" else [data]
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise _FaultError("what stands under features is no list of features")
    return parts


def _geometries(parts: list[dict[str, Any]]) -> Iterator[shapely.Geometry | None]:
    for number, part in enumerate(parts, start=1):
        given = part.get("geometry") if part.get("type") == "Feature" else part
        try:
            yield None if given is None else _geometry(given)
        except _FaultError as error:
            raise _FaultError(f"feature {number} of {len(parts)}: {error}") from None


def _geometry(given: Any) -> shapely.Geometry:
    """A geometry, flat where not all of its positions have a height.

    Raises:
        _FaultError: it is none.
    """
    try:
        return shape(given)
    except _FAULTS:
        pass
    if isinstance(given, dict) and isinstance(given.get("geometries"), list):
        return shapely.GeometryCollection([_geometry(one) for one in given["geometries"]])
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(kind, str) or kind not in _DEPTHS:
        raise _FaultError(f"{_short(given)} is no geometry, such as a Polygon with coordinates")
    corners = _corners(given.get("coordinates"), _DEPTHS[kind])
    try:
        return shape({"type": kind, "coordinates": corners})
    except _FAULTS as error:
        raise _FaultError(f"its coordinates draw no {kind}: {error}") from None


def _corners(given: Any, depth: int) -> Any:
    """Coordinates without heights.

    Raises:
        _FaultError: somewhere in them is no position.
    """
    if depth:
        if not isinstance(given, list):
            raise _FaultError(f"{_short(given)} stands in its coordinates where a list of positions should")
        return [_corners(one, depth - 1) for one in given]
    numbers = given[:2] if isinstance(given, list) else []
    if len(numbers) < 2 or not all(isinstance(one, int | float) and math.isfinite(one) for one in numbers):
        raise _FaultError(
            f"{_short(given)} stands in its coordinates where a position [x, y] in numbers should"
        )
    return numbers


def _attributes(part: dict[str, Any]) -> dict[str, Any]:
    given = part.get("properties") or {}
    if not isinstance(given, dict):
        raise _FaultError(f"the properties of a feature are {_short(given)}, no names with values")
    return given


def _named_crs(data: dict[str, Any]) -> str | int | None:
    """The name of its CRS; one that is said in another way is not passed over."""
    said = data.get("crs")
    if not said:
        return None
    own = said.get("properties") if isinstance(said, dict) else None
    name = own.get("name") if isinstance(own, dict) else None
    if not isinstance(name, str | int):
        raise _FaultError(
            f"its crs is {_short(said)}, which names none; needed is "
            f'{{"type": "name", "properties": {{"name": "EPSG:32633"}}}}, or no crs for degrees'
        )
    return name


def _short(given: Any) -> str:
    text = json.dumps(given)
    return text if len(text) <= 60 else f"{text[:57]}..."
