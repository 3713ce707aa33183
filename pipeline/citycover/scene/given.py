"""Given: one raster file of a scene, and what is said of it elsewhere than in the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from odc.geo.geobox import GeoBox


@dataclass(frozen=True, slots=True)
class Said:
    """What an item says of a file, all that planning needs: the file is opened when it is read."""

    grid: GeoBox
    dtypes: tuple[str, ...]
    """numpy name of each band's pixel type."""
    scaled: tuple[bool, ...]
    """Of each band, whether it says what numbers mean."""


@dataclass(frozen=True, slots=True)
class Given:
    """One raster file, and what is said of it elsewhere."""

    path: str | Path
    named: str | None = None
    """The file that names it; None: the user."""
    titles: tuple[str, ...] = ()
    """Names of its bands; empty: as the file says."""
    time: str | None = None
    """When it was taken, ISO 8601; None: as the file says."""
    measures: tuple[tuple[float, float, str | None], ...] = ()
    """Scale, offset and unit of its bands; empty: as the file says."""
    nodata: float | None = None
    """Number of pixels without a value in bands of which the file says nothing; None: there is none."""
    said: Said | None = None
    """What is known of it unopened; None: not enough."""
    strict: bool = False
    """A file with another number of bands than `titles` is not the one that was meant."""
