"""What a STAC item says of a file, where that is enough to plan with: `proj:` and what pixels are.

    proj:code | proj:epsg | proj:wkt2 | proj:projjson, proj:transform, proj:shape  of the asset, or the item
    data_type, scale or offset (but of bytes)                                     of each band

A file of which an item says all of this is opened when it is read (`read/promise.py`), and then must be what
was said. Sources: STAC extensions projection 1 and 2, raster 1 and 2; STAC 1.1 (`bands`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError

from citycover.scene.given import Said

_TYPES = frozenset(
    {"uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"}
)

_PLAIN = re.compile(r"\.(tiff?|jp2)$", re.IGNORECASE)
"""Formats that hold their pixels themselves, so that nothing else is to be looked at before."""


def said_of(asset: Mapping[str, Any], item: Mapping[str, Any]) -> Said | None:
    """What an item says of the file of an asset; None where that is not enough.

    Args:
        asset: one of its assets.
        item: its properties, which hold for all assets that do not say otherwise.
    """
    bands = measured_bands(asset) or [dict(asset)]
    grid = _grid(dict(item) | {key: value for key, value in asset.items() if key.startswith("proj:")})
    types = tuple(band.get("data_type") for band in bands)
    if grid is None or not _PLAIN.search(str(asset.get("href"))) or not _TYPES.issuperset(types):
        return None
    scaled = tuple(any(_number(band, name) is not None for name in ("scale", "offset")) for band in bands)
    if not all(has or kind == "uint8" for has, kind in zip(scaled, types, strict=True)):
        return None
    return Said(grid, tuple(map(str, types)), scaled)


def measured_bands(asset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Bands as the raster extension has them, before and since STAC 1.1, with what the asset says of all."""
    bands = asset.get("raster:bands") or asset.get("bands") or ()
    return [dict(asset) | dict(band) for band in bands]


def nodata_said(asset: Mapping[str, Any]) -> float | None:
    """The number of pixels without a value, where an asset gives all of its bands the same one."""
    try:
        found = {str(float(band["nodata"])) for band in measured_bands(asset) or [dict(asset)]}
    except (LookupError, TypeError, ValueError):
        return None
    return float(found.pop()) if len(found) == 1 else None


def _number(band: Mapping[str, Any], name: str) -> float | None:
    value = band.get(f"raster:{name}", band.get(name))
    return float(value) if isinstance(value, int | float) else None


def _grid(facts: Mapping[str, Any]) -> GeoBox | None:
    """The grid that projection fields mean; None where one is missing, odd or turned."""
    numbers, shape = (_numbers(facts.get(f"proj:{name}")) for name in ("transform", "shape"))
    crs = _crs(facts)
    if crs is None or len(numbers) not in {6, 9} or len(shape) != 2:
        return None
    a, b, c, d, e, f = numbers[:6]
    height, width = map(int, shape)
    turned = abs(b) * height + abs(d) * width > 0.01 * min(abs(a), abs(e))
    if turned or a * e == 0 or min(shape) < 1 or any(side % 1 for side in shape):
        return None
    try:
        return GeoBox((height, width), Affine(a, b, c, d, e, f), crs)
    except (CRSError, ValueError):
        return None


def _numbers(values: Any) -> tuple[float, ...]:
    """What is a list of finite numbers; else nothing."""
    if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
        return ()
    return tuple(map(float, values)) if all(map(math.isfinite, values)) else ()


def _crs(facts: Mapping[str, Any]) -> str | None:
    if facts.get("proj:code"):
        return str(facts["proj:code"])
    if facts.get("proj:epsg"):
        return f"EPSG:{facts['proj:epsg']}"
    if facts.get("proj:wkt2"):
        return str(facts["proj:wkt2"])
    return json.dumps(facts["proj:projjson"]) if facts.get("proj:projjson") else None
