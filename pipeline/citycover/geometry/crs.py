"""From one coordinate reference system into another, and into degrees; or why there is no way."""

from __future__ import annotations

from functools import lru_cache

from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from citycover.errors import ConfigError

DEGREES = CRS.from_user_input("OGC:CRS84")
"""Longitude and latitude on WGS84, in this order."""


def tie(source: object, to: object, what: str) -> Transformer:
    """What turns (x, y) of one CRS into those of another.

    Args:
        source: a CRS in any form that pyproj reads.
        to: likewise.
        what: is in `source`, for the message.

    Raises:
        ConfigError: one of the two is a local grid or on another body, which nothing ties to the Earth.
    """
    try:
        return Transformer.from_crs(CRS.from_user_input(source), CRS.from_user_input(to), always_xy=True)
    except ProjError:
        raise ConfigError(
            f"the CRS of {what} cannot be tied to the one that it is needed in: a local grid, as of a "
            "building site, or one of another body is no place on the Earth; write the true CRS into the "
            "file (gdal_edit.py -a_srs EPSG:...)"
        ) from None


@lru_cache(maxsize=64)
def to_degrees(crs: CRS) -> Transformer | None:
    """What turns (x, y) into longitude and latitude.

    Returns:
        None where the CRS is no place on the Earth: a local grid, or one of another body.
    """
    try:
        return Transformer.from_crs(crs, DEGREES, always_xy=True)
    except ProjError:
        return None
