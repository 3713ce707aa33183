"""Where an array of a Zarr store lies, and of when it is, as its attributes and those around it say.

    coordinate system    the CF grid mapping (`crs_wkt`, or its parameters), `proj:` of GeoZarr (code, WKT,
                         PROJJSON), `_CRS` as GDAL writes it
    transform            `spatial:transform`, `proj:transform`, `GeoTransform` of the grid mapping
    axes                 1-D coordinates of the centres of pixels
    time                 a coordinate of one time, or what STAC or ACDD say in a group around

Who cuts an array with xarray leaves the transform as it was, and takes the axes along: where they differ,
axes count. Where they agree, the transform does, which is not rounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

Attributes = Mapping[str, Any]

_SINCE = re.compile(r"\s*(day|hour|minute|second|millisecond|microsecond|nanosecond)s?\s+since\s+(\S.*?)\s*")
"""Units of a time by CF."""

_SECONDS = {
    "day": 86400,
    "hour": 3600,
    "minute": 60,
    "millisecond": 1e-3,
    "microsecond": 1e-6,
    "nanosecond": 1e-9,
}

_UNEVEN = 0.25
"""Pixels by which a centre may lie off an even row from the first to the last: axes may be float32."""

KILOMETRES = {"km", "kilometer", "kilometers", "kilometre", "kilometres"}
"""Units of coordinates by CF."""

_DEGREES = re.compile(r"deg(ree)?s?(_\w+)?", re.IGNORECASE)

_AGREE = 0.5
"""Pixels between a corner by the transform and by the axes that are rounding."""


def find_crs(said: Sequence[Attributes], mapping: Attributes) -> CRS | None:
    """The coordinate system; None: nothing says it, or nothing that PROJ understands.

    Args:
        said: attributes of the array, and of the groups around it, the nearest first.
        mapping: attributes of its CF grid mapping; empty: it has none.
    """
    for words in _crs_words(said, mapping):
        try:
            return CRS.from_user_input(words)
        except CRSError:
            continue
    try:
        return CRS.from_cf(dict(mapping)) if "grid_mapping_name" in mapping else None
    except (CRSError, KeyError, TypeError):
        return None


def _crs_words(said: Sequence[Attributes], mapping: Attributes) -> Iterator[Any]:
    for attributes in (mapping, *said):
        for key in ("crs_wkt", "spatial_ref", "proj:code", "proj:wkt2", "proj:projjson"):
            if attributes.get(key):
                yield attributes[key]
        if code := attributes.get("proj:epsg"):
            yield f"EPSG:{code}"
        if isinstance(of_gdal := attributes.get("_CRS"), Mapping):
            yield from (of_gdal[key] for key in ("wkt", "url", "projjson") if key in of_gdal)


def find_transform(
    said: Sequence[Attributes],
    mapping: Attributes,
    axes: tuple[NDArray[Any] | None, NDArray[Any] | None],
    shape: tuple[int, int],
) -> Affine:
    """From (column, row) of a corner to the plane of the coordinate system; identity: nothing says it.

    Args:
        said: attributes of the array, and of the groups around it, the nearest first.
        mapping: attributes of its CF grid mapping; empty: it has none.
        axes: coordinates of the centres along y and x; None: there are none.
        shape: (y, x).

    Raises:
        ValueError: the coordinates run unevenly, or a transform is none.
    """
    stated = next(_transforms(said, mapping, shape), None)
    ys, xs = axes
    if ys is None or xs is None or min(len(ys), len(xs)) < 2:
        return stated or Affine.identity()
    (top, down), (left, right) = _even(ys, "y"), _even(xs, "x")
    seen = Affine(right, 0, left, 0, down, top)
    return stated if stated is not None and _agree(stated, seen, shape) else seen


def check_unit(unit: object, crs: CRS | None, axis: str) -> None:
    """Look whether coordinates are in the unit of their plane.

    Metres are not asked about: many write them whatever the unit is.

    Args:
        unit: of the coordinates along an axis, as they say.
        crs: of the plane; None: nobody knows.
        axis: its name, for messages.

    Raises:
        ValueError: in kilometres or degrees, and the CRS is not.
    """
    if crs is None or not crs.is_projected or not isinstance(unit, str):
        return
    own = crs.axis_info[0]
    kilometres = unit.strip().lower() in KILOMETRES and own.unit_conversion_factor != 1000
    if kilometres or _DEGREES.fullmatch(unit.strip()):
        raise ValueError(
            f"coordinates along {axis} are in {unit}, and its CRS ({crs.name}) is in {own.unit_name}; write "
            f"them in the unit of the CRS, or the CRS that they are in"
        )


def _transforms(said: Sequence[Attributes], mapping: Attributes, shape: tuple[int, int]) -> Iterator[Affine]:
    """What is stated of an array of this shape: a group may speak of others."""
    for attributes in said:
        for key in ("spatial", "proj"):
            numbers = attributes.get(f"{key}:transform")
            if attributes.get(f"{key}:transform_type", "affine") != "affine":
                continue
            if numbers is None or tuple(attributes.get(f"{key}:shape") or shape)[-2:] != shape:
                continue
            stated = Affine(*(float(number) for number in numbers[:6]))
            at_centres = attributes.get("spatial:registration") == "node"
            yield stated * Affine.translation(-0.5, -0.5) if at_centres else stated
    if words := mapping.get("GeoTransform"):
        numbers = words.split() if isinstance(words, str) else words
        yield Affine.from_gdal(*(float(number) for number in numbers))


def _even(centres: NDArray[Any], name: str) -> tuple[float, float]:
    """Where the first pixel begins, and how far it is from one to the next."""
    exact = centres.astype(np.float64)
    step = float(exact[-1] - exact[0]) / (len(exact) - 1)
    off = np.abs(exact - (exact[0] + step * np.arange(len(exact)))).max()
    if not (step and off <= _UNEVEN * abs(step)):  # NaN, too
        raise ValueError(f"coordinates along {name} are not evenly spaced")
    return float(exact[0]) - step / 2, step


def _agree(stated: Affine, seen: Affine, shape: tuple[int, int]) -> bool:
    back = ~stated if stated.determinant else Affine.identity()
    corners = ((0, 0), (shape[1], shape[0]))
    return all(
        max(abs(there - here) for there, here in zip(back * (seen * corner), corner, strict=True)) < _AGREE
        for corner in corners
    )


def find_time(said: Sequence[Attributes], attributes: Attributes, moment: NDArray[Any] | None) -> str | None:
    """When it was taken, as text; None: nothing says it.

    Args:
        said: attributes of the array, and of the groups around it, the nearest first.
        attributes: of a coordinate of time.
        moment: () its number, or moment; None: there is none.
    """
    if moment is not None and moment.dtype.kind == "M":
        return str(moment)
    if moment is not None and (since := _SINCE.fullmatch(str(attributes.get("units", "")))):
        try:
            seconds = float(moment) * _SECONDS.get(since[1], 1)
            return (datetime.fromisoformat(since[2]) + timedelta(seconds=seconds)).isoformat()
        except (ValueError, TypeError, OverflowError):
            return None
    for one in said:
        stac = one.get("stac_discovery")
        properties = stac.get("properties") if isinstance(stac, Mapping) else None
        for place in (one, properties if isinstance(properties, Mapping) else {}):
            for key in ("datetime", "start_datetime", "time_coverage_start"):
                if place.get(key):
                    return str(place[key])
    return None
